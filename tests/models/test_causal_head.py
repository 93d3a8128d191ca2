"""The shared `forward` on a base model of three given hidden states; numbers made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from tripletune.models.causal_head import CausalHead

HIDDEN = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
IDS = torch.tensor([[0, 1, 0]])


class Base(nn.Module):
    """Gives the same states whatever it is asked, and keeps what it was asked."""

    def forward(self, **asked):
        self.asked = asked
        kept = asked["kept_tokens"]
        states = HIDDEN if kept is None else HIDDEN[:, kept]
        return BaseModelOutputWithPast(last_hidden_state=states, attentions=("probabilities",))


class Model(CausalHead, nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = Base()
        self.head = nn.Linear(2, 2, bias=False)
        weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        self.head.weight = nn.Parameter(weight, requires_grad=False)

    def get_output_embeddings(self):
        return self.head


LOGITS = [[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("kept", "rows"),
    [(None, [0, 1, 2]), (0, [0, 1, 2]), (1, [2]), (2, [1, 2]), (torch.tensor([0, 2]), [0, 2])],
)
def test_logits_to_keep_is_a_number_of_last_places_or_their_indices(kept, rows):
    output = Model()(IDS, logits_to_keep=kept)
    assert output.logits[0].tolist() == [LOGITS[row] for row in rows]
    assert output.loss is None


def test_loss_is_the_mean_over_labels_one_place_further():
    # Labels 1 and 0 follow the states with logits (1, 0) and (0, 2).
    expected = (math.log(1 + math.e) + math.log(1 + math.e**2)) / 2
    labels = torch.tensor([[-100, 1, 0]])
    model = Model()
    output = model(IDS, labels=labels)
    assert float(output.loss) == pytest.approx(expected, rel=1e-6)
    assert output.logits is None
    assert model.transformer.asked["kept_tokens"].tolist() == [0, 1]
    assert float(model(IDS, labels=labels, num_items_in_batch=4).loss) == pytest.approx(
        expected / 2, rel=1e-6
    )


@pytest.mark.parametrize("wish", [{"logits_to_keep": 0}, {"output_hidden_states": True}])
def test_every_place_is_computed_when_more_than_the_loss_is_wanted(wish):
    model = Model()
    loss = model(IDS, labels=torch.tensor([[-100, -100, 0]]), **wish).loss
    assert model.transformer.asked["kept_tokens"] is None
    assert float(loss) == pytest.approx(math.log(1 + math.e**2), rel=1e-6)


def test_wishes_are_passed_on_and_answers_back():
    model = Model()
    output = model(IDS, output_attentions=True, something_else=3)
    assert output.attentions == ("probabilities",)
    assert model.transformer.asked["output_attentions"] is True
    assert model.transformer.asked["something_else"] == 3


def test_plain_tuple_on_request():
    assert Model()(IDS, return_dict=False)[0][0].tolist() == LOGITS
