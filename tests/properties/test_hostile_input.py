"""Text, answers and settings that mean harm give a result or a named error, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripletune.config import TrainingSettings, build_settings
from tripletune.data.encode import encode_examples
from tripletune.data.linearize import parse_free, parse_target, render_target
from tripletune.data.readers import load_examples
from tripletune.errors import ConfigError, DataError
from tripletune.models.loading import load_tokenizer
from tripletune.schema import Example, Triplet

NUM_INPUTS = 2000
CONTROLS = "\u202e\u2066\u200b\ufeff\u0000\u0007\u001b[2J\u2028\r\n\t"
IMITATIONS = [
    render_target([Triplet("甲", "乙", "丙")]),
    render_target([]),
    "</s>",
    "[gMASK]",
    "<sop>",
    "(甲, 乙, 丙)",
]
HOSTILE_TEXT = st.lists(
    st.sampled_from([*CONTROLS, *IMITATIONS]) | st.text(max_size=8), min_size=1, max_size=12
).map("".join)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.text(max_size=5), max_size=3)
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("embedded")


@settings(max_examples=NUM_INPUTS, deadline=None)
@given(st.lists(st.tuples(HOSTILE_TEXT, HOSTILE_TEXT, HOSTILE_TEXT), max_size=3))
def test_items_that_imitate_the_target_language_come_back_as_they_were(items):
    triplets = []
    for subject, relation, target in items:
        try:
            triplets.append(Triplet(subject, relation, target))
        except DataError:
            continue
    assert list(parse_target(render_target(triplets))) == triplets


@settings(max_examples=NUM_INPUTS, deadline=None)
@given(HOSTILE_TEXT)
def test_any_output_is_read_without_an_error(output):
    for triplet in parse_free(output).triplets:
        assert all((triplet.subject, triplet.relation, triplet.object))


@settings(max_examples=NUM_INPUTS, deadline=None)
@given(HOSTILE_TEXT)
def test_hostile_text_adds_no_special_token_to_a_prompt(tokenizer, text):
    plain, _ = encode_examples(
        [Example("甲", ())], tokenizer, max_source_tokens=512, max_target_tokens=64
    )
    try:
        example = Example(text, ())
    except DataError:
        return
    encoded, report = encode_examples(
        [example], tokenizer, max_source_tokens=512, max_target_tokens=64
    )
    assert report.num_examples == 1
    special = [
        sum(token in set(tokenizer.all_special_ids) for token in one.input_ids)
        for one in (*plain, *encoded)
    ]
    assert len(set(special)) == 1


@settings(max_examples=NUM_INPUTS, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(TrainingSettings.model_fields)) | st.text(max_size=12),
        VALUES,
        max_size=4,
    )
)
def test_any_settings_are_accepted_or_refused_with_our_error(values):
    message = "accepted"
    try:
        build_settings(values)
    except ConfigError as error:
        message = str(error)
    assert message


def test_line_of_ten_megabytes_is_read_and_dropped_by_name(tmp_path, tokenizer):
    path = tmp_path / "long.jsonl"
    lines = [
        {"text": "甲" * 3_500_000, "triplets": []},
        {"text": "甲位于乙。", "triplets": [{"subject": "甲", "relation": "位于", "object": "乙"}]},
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    assert path.stat().st_size > 10_000_000
    encoded, report = encode_examples(
        load_examples(path), tokenizer, max_source_tokens=512, max_target_tokens=64
    )
    assert (len(encoded), report.num_long_texts) == (1, 1)


@pytest.mark.parametrize(
    "content", [b"\x00" * 4096, b"\xff\xfe\x00", b"[" * 200_000, b'{"text": 1}\n']
)
def test_file_of_rubbish_is_a_data_error_with_its_path(tmp_path: Path, content):
    path = tmp_path / "rubbish.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_examples(path)
    assert str(path) in str(caught.value)
