from __future__ import annotations

from tripletune.models.loading import load_model_and_tokenizer
from tripletune.schema import Example, Triplet
from tripletune.training.scoring import score_model


def test_score_model_gives_zero_where_nothing_is_predicted(tiny_model_dir):
    model, tokenizer = load_model_and_tokenizer(str(tiny_model_dir), quantize=False, device="cpu")
    example = Example("甲公司位于乙市。", (Triplet("甲公司", "位于", "乙市"),))
    scores = score_model(model, tokenizer, [example])
    assert scores == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
