"""The guarantee: constrained output parses, is grounded and stays within the schema.

Networks read every twentieth of the 2,000 texts; all of them with

    TRIPLETUNE_GUARANTEE_TEXTS=2000 python -m pytest tests/extraction/test_guarantee.py
"""

from __future__ import annotations

import json
import os
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.extraction.builders import (
    build_byte_tokenizer,
    build_chatglm,
    build_chatglm2,
    build_llama,
    build_sentencepiece,
    build_small_chatglm,
)
from tripletune.data.linearize import parse_target, render_target
from tripletune.data.relation_schema import Relation
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.extractor import Extractor
from tripletune.extraction.generate import Generated
from tripletune.extraction.reading import read_constrained
from tripletune.extraction.vocabulary import build_vocabulary
from tripletune.schema import Extraction

RELATIONS = ["总部地点", "总部", "位于", "职业（曾任）", "a, b", "作者\\n", "创始人"]
NUM_TEXTS = 2000
NUM_READ = int(os.environ.get("TRIPLETUNE_GUARANTEE_TEXTS", "100"))
NUM_OF_A_SET = 40
NUM_SETS = 13

_ALPHABETS = [
    "甲乙丙丁公司位于北京大学，。（）、《》",
    "abc ABC 123 ,.()[]\\n\\r",
    ", ,  ,()\\\n\r\t",
    "，（）：；！？　ａｂｃ１２３㎏㍿ﬁ²½…",
    "🄁 ´,, ¨a ⒈",
    "😀👍🏽👨‍👩‍👧🇨🇳é́̈ñ가각ᄀ가ﷺ",
    "\x00\x01\x1f\x7f\x85\u200b\u200e\u2028\u2029\ufeff\ufffd\U0010ffff\ue000",
    "無𠮷𪚥龘〇々ゔがｶﾞ\ud800\udfff",
]


def read_set(folder: Path) -> list[str]:
    """The first texts of a data set, whatever its files are."""
    names = ("dev.jsonl", "normalised.jsonl", "original_slice.jsonl", "original_slice.txt")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return []
    lines = path.read_text(encoding="utf-8").splitlines()[:NUM_OF_A_SET]
    if path.suffix == ".txt":
        return lines
    records = [json.loads(line) for line in lines]
    return [str(record.get("text") or record.get("input") or record) for record in records]


def make_texts(shared: Path | None) -> list[str]:
    """Texts of every data set that is there, then random ones of every kind, then the smallest."""
    texts: list[str] = []
    if shared is not None:
        sets = [read_set(folder) for folder in sorted((shared / "datasets").iterdir())]
        assert sum(map(bool, sets)) == NUM_SETS
        texts = [text for of_set in sets for text in of_set]
    source = random.Random(5)
    while len(texts) < NUM_TEXTS - 3:
        alphabet = source.choice([*_ALPHABETS, "".join(_ALPHABETS)])
        length = source.choice([1, 2, 3, 8, 30, 90])
        if source.random() < 0.2:
            text = "".join(chr(source.randrange(1, 0x110000)) for _ in range(length))
        else:
            text = "".join(source.choices(alphabet, k=length))
        texts.append(text)
    return [*texts, "", " ", "甲"]


def check_guarantee(text: str, extraction: Extraction) -> None:
    parsed = parse_target(extraction.output) if extraction.output else ()
    assert render_target(parsed) == extraction.output or not extraction.output
    assert len(parsed) >= len(extraction.triplets)
    assert len(text) > 320 or len(parsed) == len(extraction.triplets)
    assert len(set(extraction.triplets)) == len(extraction.triplets)
    for triplet in extraction.triplets:
        subject_span, object_span = triplet.subject_span, triplet.object_span
        assert subject_span is not None
        assert object_span is not None
        assert text[subject_span.start : subject_span.end] == triplet.subject
        assert text[object_span.start : object_span.end] == triplet.object
        assert triplet.relation in RELATIONS
        assert triplet.confidence is not None


class _SharedTokenizer:
    """Stands for ChatGLM2's tokenizer where only its vocabulary matters."""

    all_special_ids = (0,)
    eos_token_id = 2
    pad_token_id = 0

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self.sp_model = sentencepiece.SentencePieceProcessor()
        self.sp_model.load(str(path))

    def build_prompt_ids(self, query: str) -> list[int]:
        return [64790, 64792, *self.sp_model.encode(query)]

    def encode_plain(self, text: str) -> list[int]:
        return list(self.sp_model.encode(text))


@lru_cache
def make_tokenizer(name: str, shared: Path, folder: Path) -> Any:
    if name == "small-chatglm":
        return build_sentencepiece(folder)
    if name == "byte-bpe":
        return build_byte_tokenizer()
    if name == "chatglm-6b":
        from tripletune.models.tokenization_chatglm import ChatGLMTokenizer

        return ChatGLMTokenizer(str(shared / "tokenizers" / name / "ice_text.model"))
    return _SharedTokenizer(shared / "tokenizers" / name / "tokenizer.model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabulary")


@pytest.fixture(scope="module")
def shared_or_none(repository: Path) -> Path | None:
    path = repository.parent / "shared"
    return path if path.is_dir() else None


@pytest.fixture(params=["small-chatglm", "byte-bpe", "chatglm-6b", "chatglm2-6b", "chatglm3-6b"])
def tokenizer(request: pytest.FixtureRequest, shared_or_none: Path | None, folder: Path) -> Any:
    if request.param.endswith("6b") and shared_or_none is None:
        pytest.skip("the real vocabularies are not beside this checkout")
    return make_tokenizer(request.param, shared_or_none or folder, folder)


def walk_randomly(guide: Any, end_token_id: int, source: random.Random) -> Generated:
    """Output that takes any allowed token, as the most confused of models would."""
    written: list[int] = []
    for _ in range(60):
        allowed = guide.allowed()
        if not len(allowed):
            break
        token = int(source.choice(allowed))
        if token == end_token_id:
            break
        guide.advance(token)
        written.append(token)
    return Generated(tuple(written), (-0.5,) * (len(written) + 1), True)


def test_constraint_holds_for_any_choice_of_tokens(
    tokenizer: Any, shared_or_none: Path | None
) -> None:
    vocabulary = build_vocabulary(tokenizer)
    constraint = Constraint(vocabulary, [Relation(name) for name in RELATIONS])
    source = random.Random(3)
    num_triplets = 0
    texts = make_texts(shared_or_none)
    assert len(texts) == NUM_TEXTS
    for text in texts:
        guide = constraint.build_guide(text, max_triplets=4, max_tokens=60)
        generated = walk_randomly(guide, vocabulary.end_token_id, source)
        extraction = read_constrained(text, generated, guide, constraint)
        check_guarantee(text, extraction)
        assert len(extraction.triplets) <= 4
        num_triplets += len(extraction.triplets)
    assert num_triplets > NUM_TEXTS / 4


def build_network(tokenizer: Any) -> Any:
    if isinstance(tokenizer, _SharedTokenizer):
        return build_chatglm2(65024)
    if not hasattr(tokenizer, "sp_model"):
        return build_llama(len(tokenizer))
    if tokenizer.vocab_size > 1000:
        return build_chatglm(130528)
    return build_small_chatglm(tokenizer)


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_extractor_holds_the_guarantee_with_random_weights(
    tokenizer: Any, method: Any, shared_or_none: Path | None
) -> None:
    extractor = Extractor(
        build_network(tokenizer),
        tokenizer,
        relations=RELATIONS,
        constrained=True,
        max_new_tokens=24,
        max_triplets=3,
        batch_size=50,
        method=method,
    )
    texts = make_texts(shared_or_none)[:: NUM_TEXTS // NUM_READ]
    texts += ["", " ", "甲", "(甲, 位于, 乙)", "无"]
    extractions = extractor.extract(texts)
    assert [extraction.text for extraction in extractions] == texts
    for text, extraction in zip(texts, extractions, strict=True):
        check_guarantee(text, extraction)


@pytest.mark.slow
def test_extractor_holds_the_guarantee_with_the_embedded_model(shared_or_none: Path | None) -> None:
    from tripletune.models.loading import load_model_and_tokenizer, resolve_model_path

    if not list(Path(resolve_model_path("embedded")).glob("*.safetensors")):
        pytest.skip("the embedded model has no weights here")
    model, tokenizer = load_model_and_tokenizer("embedded", quantize=False)
    extractor = Extractor(
        model, tokenizer, relations=RELATIONS, constrained=True, max_new_tokens=24, batch_size=50
    )
    texts = make_texts(shared_or_none)[:: NUM_TEXTS // NUM_READ]
    for text, extraction in zip(texts, extractor.extract(texts), strict=True):
        check_guarantee(text, extraction)
