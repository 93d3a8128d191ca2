from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

import tripletune.extraction.answering as answering
import tripletune.extraction.extractor as area
from tests.extraction.builders import build_sentencepiece, build_small_chatglm
from tripletune.data.linearize import parse_target
from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.errors import ConfigError, DataError
from tripletune.extraction.calibration import Calibrator
from tripletune.extraction.extractor import Extractor
from tripletune.extraction.generate import iter_greedy
from tripletune.extraction.relation_parts import RelationPart
from tripletune.schema import Example, Span, Triplet

TEXTS = ["甲公司位于乙市。", "苹果公司，总部地点位于库比蒂诺", "a b"]


class Parrot(torch.nn.Module):
    """Says the same line over and over."""

    def __init__(self, vocab_size: int, line: list[int]) -> None:
        super().__init__()
        self.config = LlamaConfig(vocab_size=vocab_size)
        self.device = torch.device("cpu")
        self.line = line
        self.said = 0

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, **_: Any) -> Any:
        token = self.line[self.said % len(self.line)]
        self.said += 1
        logits = torch.nn.functional.one_hot(torch.tensor([[token]]), self.config.vocab_size)
        return CausalLMOutputWithPast(logits=logits.float(), past_key_values=None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_sentencepiece(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return build_small_chatglm(tokenizer)


def build(model: Any, tokenizer: Any, **options: Any) -> Extractor:
    values = {"relations": ["位于", "总部地点"], "constrained": True, "max_new_tokens": 40}
    return Extractor(model, tokenizer, **{**values, **options})


def test_extract_gives_blank_texts_back_with_a_problem(model: Any, tokenizer: Any) -> None:
    found = build(model, tokenizer).extract(["", " \n", "甲"])
    assert [extraction.text for extraction in found] == ["", " \n", "甲"]
    assert found[0].problems == found[1].problems == ("the text is empty or blank",)


def test_extract_finds_the_same_alone_and_in_a_batch(model: Any, tokenizer: Any) -> None:
    extractor = build(model, tokenizer)
    alone = [extractor.extract([text])[0] for text in TEXTS]
    assert [e.triplets for e in extractor.extract(TEXTS)] == [e.triplets for e in alone]
    assert any(extraction.triplets for extraction in alone)


def test_extract_reads_a_long_document_in_windows(model: Any, tokenizer: Any) -> None:
    text = "".join(f"第{number}家甲公司位于乙市。" for number in range(60))
    extractor = build(model, tokenizer, window_chars=40, overlap_chars=15)
    found = extractor.extract([text, TEXTS[0]])
    spans = [t.subject_span for t in found[0].triplets if t.subject_span is not None]
    assert found[0].text == text
    assert max(span.start for span in spans) > 40
    for triplet in found[0].triplets:
        assert triplet.subject_span is not None
        assert text[triplet.subject_span.start : triplet.subject_span.end] == triplet.subject
    assert found[1] == extractor.extract([TEXTS[0]])[0]


def test_extract_uses_the_schema_of_the_call(model: Any, tokenizer: Any) -> None:
    extractor = build(model, tokenizer)
    found = extractor.extract(TEXTS, schema=["创始人"])
    relations = {triplet.relation for extraction in found for triplet in extraction.triplets}
    assert relations == {"创始人"}
    assert extractor.extract(TEXTS) == build(model, tokenizer).extract(TEXTS)


def test_extract_drops_triplets_below_the_confidence(model: Any, tokenizer: Any) -> None:
    everything = build(model, tokenizer).extract(TEXTS)
    confidences = [t.confidence or 0.0 for e in everything for t in e.triplets]
    limit = sorted(confidences)[len(confidences) // 2]
    kept = build(model, tokenizer, min_confidence=limit).extract(TEXTS)
    assert [t.confidence for e in kept for t in e.triplets] == [
        confidence for confidence in confidences if confidence >= limit
    ]


def test_extract_calibrates_confidence(model: Any, tokenizer: Any) -> None:
    calibrator = Calibrator("isotonic", ((0.0, 0.25), (1.0, 0.25)))
    found = build(model, tokenizer, calibrator=calibrator).extract(TEXTS)
    assert {t.confidence for e in found for t in e.triplets} == {0.25}


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_votes_are_the_same_in_every_batch(model: Any, tokenizer: Any, method: Any) -> None:
    wanted = build(model, tokenizer, votes=4, vote_share=0.25).extract(TEXTS)
    options = {"votes": 4, "vote_share": 0.25, "batch_size": 3, "method": method}
    found = build(model, tokenizer, **options).extract(TEXTS[::-1])[::-1]
    assert [(e.text, e.triplets) for e in found] == [(e.text, e.triplets) for e in wanted]
    shares = {t.confidence for e in wanted for t in e.triplets}
    assert shares
    assert shares <= {0.25, 0.5, 0.75, 1.0}


def test_votes_find_grounded_triplets_of_the_schema(model: Any, tokenizer: Any) -> None:
    greedy = build(model, tokenizer).extract(TEXTS)
    found = build(model, tokenizer, votes=8, vote_share=0.0).extract(TEXTS)
    assert sum(len(e.triplets) for e in found) > sum(len(e.triplets) for e in greedy)
    for text, extraction in zip(TEXTS, found, strict=True):
        for triplet in extraction.triplets:
            for span, item in (
                (triplet.subject_span, triplet.subject),
                (triplet.object_span, triplet.object),
            ):
                assert span is not None
                assert text[span.start : span.end] == item
            assert triplet.relation in ("位于", "总部地点")


def test_votes_need_a_constraint(model: Any, tokenizer: Any) -> None:
    for options in ({"votes": 0}, {"votes": 2, "constrained": False}, {"vote_share": 1.5}):
        with pytest.raises(ConfigError, match="votes: "):
            build(model, tokenizer, **options)


def test_votes_are_not_streamed(model: Any, tokenizer: Any) -> None:
    async def read() -> None:
        async for _ in build(model, tokenizer, votes=2).stream(TEXTS):
            pass

    with pytest.raises(ConfigError, match="stream: votes is 2"):
        asyncio.run(read())


def test_a_calibration_of_other_votes_is_left_out(model: Any, tokenizer: Any) -> None:
    calibrator = Calibrator("isotonic", ((0.0, 0.25), (1.0, 0.25)))
    with pytest.warns(UserWarning, match="fitted with --votes 1, this is --votes 3"):
        extractor = build(model, tokenizer, calibrator=calibrator, votes=3, vote_share=0.0)
    assert {t.confidence for e in extractor.extract(TEXTS) for t in e.triplets} - {0.25}


def test_extract_free_reads_whatever_is_written(model: Any, tokenizer: Any) -> None:
    found = build(model, tokenizer, constrained=False, relations=None).extract(TEXTS)
    assert [extraction.text for extraction in found] == TEXTS


def test_extract_free_ends_an_output_that_repeats_itself(tokenizer: Any) -> None:
    line = tokenizer.encode_plain("(甲公司, 位于, 乙市)\n")
    model = Parrot(tokenizer.vocab_size, line)
    extractor = build(model, tokenizer, constrained=False, max_new_tokens=None)
    (found,) = extractor.extract(["甲公司位于乙市。" * 10])
    assert [triplet.key for triplet in found.triplets] == [("甲公司", "位于", "乙市")]
    assert found.problems == ("'(甲公司, 位于, 乙市)' was repeated; the output was ended there",)
    assert found.output.count("(甲公司, 位于, 乙市)") == 2


def test_encode_all_limits_answers_by_the_length_of_the_text(model: Any, tokenizer: Any) -> None:
    extractor = build(model, tokenizer, max_new_tokens=None)
    part = RelationPart()
    prompts, limits = extractor.encode_all([("", part), ("甲", part), ("甲" * 100, part)])
    longer = [len(prompt) - len(prompts[0]) for prompt in prompts]
    assert longer[2] > longer[1] > 0
    assert limits == [48 + 3 * number for number in longer]
    assert build(model, tokenizer, max_new_tokens=7).encode_all([("甲", part)])[1] == [7]


def test_extract_refuses_what_is_not_a_string(model: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="number 1 is 3, not a string"):
        build(model, tokenizer).extract(["甲", 3])  # type: ignore[list-item]


def test_iter_extract_keeps_ids_and_order(model: Any, tokenizer: Any) -> None:
    examples = [Example(text, id=str(number)) for number, text in enumerate(TEXTS * 8)]
    found = list(build(model, tokenizer, batch_size=2).iter_extract(examples))
    assert [(e.id, e.text) for e in found] == [(e.id, e.text) for e in examples]


def test_windows_of_many_long_texts_are_not_held_all_at_once(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["甲公司位于乙市。" * 6, "", "丙公司位于丁市。" * 5]
    extractor = build(model, tokenizer, window_chars=8, overlap_chars=0)
    expected = extractor.extract(texts)
    numbers: list[int] = []

    def note(model: Any, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        numbers.append(len(prompts))
        return iter_greedy(model, prompts, *args, **kwargs)

    monkeypatch.setattr(answering, "iter_greedy", note)
    monkeypatch.setattr(area, "_QUESTIONS_AT_ONCE", 4)
    found = extractor.extract(texts)
    assert numbers == [4, 4, 3]
    assert [extraction.triplets for extraction in found] == [e.triplets for e in expected]
    assert found[0].triplets


@pytest.mark.parametrize("votes", [1, 3])
def test_texts_are_told_of_once_when_all_of_them_is_read(
    model: Any, tokenizer: Any, votes: int
) -> None:
    texts = ["甲公司位于乙市。" * 3, "", "丙位于丁。", "戊"]
    told: list[None] = []
    build(model, tokenizer, window_chars=8, overlap_chars=0, votes=votes).extract(
        texts, on_text=lambda: told.append(None)
    )
    assert len(told) == 3


def test_extractor_refuses_a_constraint_without_relations(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"relations: None, but a constraint or the prompt"):
        build(model, tokenizer, relations=None)


@pytest.mark.parametrize("texts", ["甲在乙。", b"x", None])
def test_extract_refuses_one_text_that_is_not_in_a_list(
    model: Any, tokenizer: Any, texts: Any
) -> None:
    extractor = build(model, tokenizer)
    with pytest.raises(DataError, match="is not a list of texts; put one text in a list"):
        extractor.extract(texts)
    if isinstance(texts, str):
        with pytest.raises(DataError, match="is not a list of texts; put one text in a list"):
            next(extractor.iter_extract(texts))


def test_extract_takes_texts_from_a_generator(model: Any, tokenizer: Any) -> None:
    texts = ["甲位于乙。", "丙"]
    found = build(model, tokenizer).extract(text for text in texts)
    assert [extraction.text for extraction in found] == texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_chars": 0}, "window_chars: 0 is too few"),
        ({"min_confidence": 1.5}, "min_confidence: 1.5; need a number from 0 to 1"),
        ({"method": "fast"}, "method: 'fast' is none of auto, batch, slots"),
        ({"relations": ["位于", 1]}, "relations: 1 is not a string"),
    ],
)
def test_extractor_refuses_what_is_out_of_range(
    model: Any, tokenizer: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(model, tokenizer, **changes)


def test_extractor_refuses_one_string_as_relations(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="'位于' is one string"):
        build(model, tokenizer, relations="位于")


def test_extractor_lists_relations_in_the_prompt_when_asked(model: Any, tokenizer: Any) -> None:
    schema = RelationSchema(tuple(map(Relation, ("位于", "总部地点", "创始人"))))

    def render(**options: Any) -> list[str]:
        extractor = build(model, tokenizer, relations=schema, **options)
        parts = extractor.find_parts(schema)
        return [tokenizer.decode_text(extractor.encode("甲", part)) for part in parts]

    # This tokenizer writes full-width commas as narrow ones.
    opening = "请从以下文本中抽取三元组,格式为(主体, 关系, 客体)"
    assert [render(relations_per_prompt=size) for size in (1, 2, 3)] == [
        [f"{opening},关系限于{name}:\n甲" for name in ("位于", "总部地点", "创始人")],
        [f"{opening},关系限于位于、总部地点:\n甲", f"{opening},关系限于创始人:\n甲"],
        [f"{opening},关系限于位于、总部地点、创始人:\n甲"],
    ]
    assert render() == [f"{opening}:\n甲"]


@pytest.mark.parametrize("constrained", [True, False])
def test_extractor_refuses_a_prompt_without_relations(
    model: Any, tokenizer: Any, constrained: bool
) -> None:
    for relations in (None, []):
        with pytest.raises(
            ConfigError, match=r"relations: (None|\(\)), but a constraint or the pr"
        ):
            build(
                model,
                tokenizer,
                relations=relations,
                constrained=constrained,
                relations_per_prompt=2,
            )


def test_extract_merges_what_each_prompt_of_a_text_gives(model: Any, tokenizer: Any) -> None:
    names = ["位于", "创始人", "总部地点"]
    asked = build(model, tokenizer, relations=names, relations_per_prompt=1).extract(TEXTS)
    single = [
        build(model, tokenizer, relations=[name], relations_per_prompt=1).extract(TEXTS)
        for name in names
    ]
    assert [extraction.triplets for extraction in asked] == [
        tuple(triplet for extraction in some for triplet in extraction.triplets)
        for some in zip(*single, strict=True)
    ]
    assert {triplet.relation for e in asked for triplet in e.triplets} == set(names)


def test_stream_gives_the_triplets_of_extract(model: Any, tokenizer: Any) -> None:
    extractor = build(model, tokenizer, window_chars=12, overlap_chars=4)

    async def collect() -> list[tuple[int, Triplet]]:
        return [pair async for pair in extractor.stream(TEXTS)]

    streamed = asyncio.run(collect())
    extracted = extractor.extract(TEXTS)
    assert {(index, t) for index, t in streamed} == {
        (index, t) for index, e in enumerate(extracted) for t in e.triplets
    }
    assert len(streamed) == len(set(streamed)) > 0
    for index, triplet in streamed:
        span = triplet.subject_span
        assert isinstance(span, Span)
        assert TEXTS[index][span.start : span.end] == triplet.subject


def test_from_pretrained_uses_schema_and_calibration_of_the_folder(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from tripletune.data.relation_schema import save_schema
    from tripletune.extraction.calibration import save_calibrator
    from tripletune.extraction.loading import save_reading_settings

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    tuned = get_peft_model(
        build_small_chatglm(tokenizer), LoraConfig(target_modules=["query_key_value"])
    )
    tuned.save_pretrained(adapter)
    save_schema(RelationSchema((Relation("位于"),)), adapter / "schema.json")
    save_calibrator(Calibrator("isotonic", ((0.0, 0.5), (1.0, 0.5))), adapter)
    save_reading_settings(adapter, ["甲" * 70], relations_per_prompt=1, bidirectional_prompt=True)
    extractor = Extractor.from_pretrained(adapter, base_model=str(base), max_new_tokens=40)
    assert extractor.constrained
    assert (extractor.window_chars, extractor.relations_per_prompt) == (70, 1)
    assert extractor.options.bidirectional_prompt
    found = extractor.extract(TEXTS)
    relations = {(t.relation, t.confidence) for e in found for t in e.triplets}
    assert relations == {("位于", 0.5)}
    for extraction in found:
        parse_target(extraction.output)
