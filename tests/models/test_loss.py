from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tripletune.models.loss import compute_causal_loss


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


def test_frozen_head_gets_no_gradient():
    hidden, labels = make_inputs()
    head = nn.Linear(16, 11, bias=False).requires_grad_(False)
    compute_causal_loss(hidden.requires_grad_(), head, labels).backward()
    assert head.weight.grad is None
