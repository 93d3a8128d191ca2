from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tripletune.models.loss import compute_causal_loss, find_labelled, take_tokens


def make_inputs(dtype=torch.float32):
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 16, dtype=dtype)
    labels = torch.randint(0, 11, (2, 7))
    labels[0, :4] = -100
    labels[1, 6] = -100
    return hidden, labels


def whole_loss(hidden, weight, labels):
    """The textbook formula, with every logit."""
    logits = hidden[:, :-1] @ weight.T
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@pytest.mark.parametrize("chunk_tokens", [1, 3, 1000])
def test_loss_and_gradients_equal_the_whole_formula(chunk_tokens):
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    expected = whole_loss(theirs, head.weight, labels)
    (expected_hidden, expected_weight) = torch.autograd.grad(expected, [theirs, head.weight])
    loss = compute_causal_loss(ours, head, labels, chunk_tokens=chunk_tokens)
    (hidden_grad, weight_grad) = torch.autograd.grad(loss, [ours, head.weight])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(hidden_grad, expected_hidden)
    torch.testing.assert_close(weight_grad, expected_weight)


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor holds that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return made


@pytest.mark.parametrize("chunk_tokens", [1, 8, 1000])
def test_loss_without_gradients_is_the_same_in_quarter_chunks(chunk_tokens):
    torch.manual_seed(0)
    hidden, labels = torch.randn(2, 50, 4), torch.randint(0, 300, (2, 50))
    labels[0, :9] = -100
    head = nn.Linear(4, 300, bias=False).requires_grad_(False)
    expected = whole_loss(hidden, head.weight, labels)
    with torch.no_grad(), LargestTensor() as largest:
        loss = compute_causal_loss(hidden, head, labels, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(loss, expected)
    num_labelled = 41 + 49
    weight = 300 * 4
    assert largest.size == max(weight, 300 * min(num_labelled, max(1, chunk_tokens // 4)))


def test_head_that_is_no_plain_linear_gives_the_same():
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False)
    wrapped = nn.Sequential(head)
    states = hidden.clone().requires_grad_()
    loss = compute_causal_loss(states, wrapped, labels, chunk_tokens=2)
    (gradient,) = torch.autograd.grad(loss, states)
    other = hidden.clone().requires_grad_()
    (expected,) = torch.autograd.grad(whole_loss(other, head.weight, labels), other)
    torch.testing.assert_close(gradient, expected)


def test_divides_by_the_count_of_the_whole_step():
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False)
    mean = compute_causal_loss(hidden, head, labels)
    count = int((labels[:, 1:] != -100).sum())
    for given in (40, torch.tensor(40)):
        loss = compute_causal_loss(hidden, head, labels, num_items_in_batch=given)
        torch.testing.assert_close(loss, mean * count / 40)


def test_no_label_gives_zero_loss_and_gradients():
    hidden, labels = make_inputs()
    states = hidden.requires_grad_()
    loss = compute_causal_loss(states, nn.Linear(16, 11, bias=False), torch.full_like(labels, -100))
    (gradient,) = torch.autograd.grad(loss, states)
    assert loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(states))


@pytest.mark.parametrize("wrapped", [False, True])
def test_places_beyond_the_labels_add_nothing(wrapped):
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False)
    labelled = find_labelled(labels, int((labels[:, 1:] != -100).sum()) + 3)
    assert (labelled.targets == -100).sum() == 3
    states, other = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    loss = compute_causal_loss(states, nn.Sequential(head) if wrapped else head, labelled)
    expected = whole_loss(other, head.weight, labels)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, states)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, other)[0])


def test_frozen_head_gets_no_gradient():
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False).requires_grad_(False)
    compute_causal_loss(hidden.requires_grad_(), head, labels).backward()
    assert head.weight.grad is None


def test_taken_tokens_carry_their_gradient_back():
    states = torch.randn(2, 3, 4, requires_grad=True)
    taken = take_tokens(states, torch.tensor([4, 1]))
    assert torch.equal(taken, torch.stack([states[1, 1], states[0, 1]])[None])
    taken.backward(torch.ones_like(taken))
    expected = torch.zeros(2, 3, 4)
    expected[1, 1] = expected[0, 1] = 1.0
    assert torch.equal(states.grad, expected)


@pytest.mark.parametrize("count", [None, 3])
def test_labelled_tokens_are_those_before_a_label(count):
    labels = torch.tensor([[-100, -100, 7, 8], [5, -100, -100, 9]])
    index, targets = find_labelled(labels, count)
    assert index.tolist() == [1, 2, 6]
    assert targets.tolist() == [7, 8, 9]


def test_loss_of_taken_tokens_is_the_loss_of_all():
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False)
    labelled = find_labelled(labels)
    taken = take_tokens(hidden, labelled.places)
    assert torch.equal(
        compute_causal_loss(taken, head, labelled), compute_causal_loss(hidden, head, labels)
    )
