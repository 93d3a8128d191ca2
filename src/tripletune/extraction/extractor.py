"""From texts to triplets with spans: prompt, generation, reading of the output, grounding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from tripletune.data.prompts import encode_prompt, find_end_token_id, render_query
from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.errors import ConfigError, DataError, ModelError
from tripletune.extraction.answering import answer_questions
from tripletune.extraction.batch_size import choose_batch_size
from tripletune.extraction.calibration import Calibrator, load_calibrator
from tripletune.extraction.generate import GenerationMethod, GenerationOptions
from tripletune.extraction.guide import TripletGuide
from tripletune.extraction.relation_parts import RelationPart, iter_parts
from tripletune.extraction.vocabulary import Vocabulary, build_vocabulary
from tripletune.extraction.votes import DEFAULT_SHARE
from tripletune.extraction.windows import Window, iter_windows, merge_windows
from tripletune.schema import Example, Extraction, Triplet

__all__ = ["Extractor"]

_BATCHES_AHEAD = 8
_QUESTIONS_AT_ONCE = 8192
"""Prompts that are held at the same time, about 100 MB of them."""
_WINDOW_CHARS = 320
_LONGEST_ANSWER = 2048
_FEWEST_TOKENS, _TOKENS_PER_TOKEN = 48, 3
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Extractor:
    """Finds the triplets of texts with a fine-tuned model.

    Args:
        model: A causal language model, with or without adapter.
        tokenizer: Its tokenizer.
        relations: The relations there are: names, or a schema. Needed when `constrained`.
        max_new_tokens: Longest answer about a window, end token included. None: by the length of
            the window, 48 tokens and three for each of its own, which targets hardly ever exceed.
        batch_size: Windows computed together, fewer where a GPU has no room for so many. None: 128
            on a GPU, 16 elsewhere.
        constrained: Whether the model can write nothing but triplets whose items stand in the
            text and whose relation is one of `relations`. Without, output is read tolerantly.
        relations_per_prompt: For models trained so: each prompt lists so many of `relations`, and
            a text is asked about once for each part of them. None: prompts list none.
        max_triplets: Most triplets in a window, when constrained.
        window_chars: Longest text that is read at once; a longer one is read in windows. It should
            not be much more than the texts of the training had. None: 320.
        window_sentences: Most sentences that are read at once. None: as many as the window holds.
        overlap_chars: Most characters that a window repeats of the one before. None: six tenths
            of a window.
        min_confidence: Triplets below are left out; those without confidence are kept.
        calibrator: Corrects confidence, as fitted on validation data.
        votes: How many outputs are drawn about each window. A triplet is kept when `vote_share` of
            them hold it, and its confidence is their share; 1: the likeliest output alone.
        vote_share: From 0 to 1.
        method: How to generate; see `GenerationOptions`.
        use_cuda_graphs: Likewise.
        bidirectional_prompt: For causal models trained so: the tokens of a prompt see each other.

    Raises:
        ConfigError: a number is out of range, there are no relations to hold the model to, or there
            are votes without a constraint.
        ModelError: the tokenizer's tokens cannot be read, which a constraint needs.

    Example:
        >>> extractor = Extractor.from_pretrained("output/adapter")  # doctest: +SKIP
        >>> extractor.extract(["苹果公司总部位于库比蒂诺。"])[0].triplets  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        relations: Sequence[str] | RelationSchema | None = None,
        max_new_tokens: int | None = None,
        batch_size: int | None = None,
        constrained: bool = False,
        relations_per_prompt: int | None = None,
        max_triplets: int = 64,
        window_chars: int | None = None,
        window_sentences: int | None = None,
        overlap_chars: int | None = None,
        min_confidence: float | None = None,
        calibrator: Calibrator | None = None,
        votes: int = 1,
        vote_share: float = DEFAULT_SHARE,
        method: GenerationMethod = "auto",
        use_cuda_graphs: bool = True,
        bidirectional_prompt: bool = False,
    ) -> None:
        if max_triplets < 1:
            raise ConfigError(f"max_triplets: {max_triplets!r} is too few; need at least 1")
        if window_chars is not None and window_chars < 1:
            raise ConfigError(f"window_chars: {window_chars!r} is too few; need at least 1")
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence: {min_confidence!r}; need a number from 0 to 1")
        if votes < 1 or not 0 <= vote_share <= 1 or (votes > 1 and not constrained):
            raise ConfigError(
                f"votes: {votes!r}, vote_share: {vote_share!r}, constrained: {constrained}; needed "
                "are at least 1 vote and a share from 0 to 1, and more than one only under a "
                "constraint (without --free)"
            )
        end_token_id = find_end_token_id(tokenizer)
        pad_token_id = tokenizer.pad_token_id
        if batch_size is None:
            batch_size = choose_batch_size(on_gpu=model is not None and model.device.type == "cuda")
        self.options = GenerationOptions(
            end_token_id=end_token_id,
            pad_token_id=end_token_id if pad_token_id is None else pad_token_id,
            max_new_tokens=_LONGEST_ANSWER if max_new_tokens is None else max_new_tokens,
            batch_size=batch_size,
            method=method,
            use_cuda_graphs=use_cuda_graphs,
            bidirectional_prompt=bidirectional_prompt,
        )
        self.model = model
        self.tokenizer = tokenizer
        self.schema = read_schema(relations)
        self.max_new_tokens = max_new_tokens
        self.constrained = constrained
        self.relations_per_prompt = relations_per_prompt
        self.max_triplets = max_triplets
        self.window_chars = _WINDOW_CHARS if window_chars is None else window_chars
        self.window_sentences = window_sentences
        self.overlap_chars = self.window_chars * 6 // 10 if overlap_chars is None else overlap_chars
        self.min_confidence = min_confidence
        self.calibrator = None if calibrator is None else calibrator.for_votes(votes)
        self.votes = votes
        self.vote_share = vote_share
        self._parts: tuple[RelationSchema, list[RelationPart]] | None = None
        if constrained or relations_per_prompt is not None:
            self.find_parts(self.schema)

    @classmethod
    def from_pretrained(
        cls,
        adapter_dir: str | Path,
        *,
        base_model: str | None = None,
        quantize: bool | None = None,
        device: Any = None,
        dtype: Any = None,
        relations: Sequence[str] | RelationSchema | None = None,
        constrained: bool | None = None,
        **options: Any,
    ) -> Extractor:
        """The extractor of a trained adapter folder.

        Its `schema.json`, `calibration.json` and `extraction.json` (the longest text to read at
        once, the form of the prompt) are used where they exist.

        Args:
            adapter_dir: What training wrote.
            base_model: Name or folder of the base model; None takes the one it was trained on.
            quantize: Whether to hold the base model in NF4. None does so on a GPU whose memory
                does not hold it in 16 bits.
            device: As `load_model_and_tokenizer`.
            dtype: Likewise.
            relations: None takes those of `schema.json`.
            constrained: None constrains when relations are known.
            **options: As the constructor.

        Raises:
            AdapterError: the folder holds no adapter.
            ModelError: the base model cannot be loaded.
        """
        from tripletune.extraction.loading import load_adapter

        loaded = load_adapter(
            adapter_dir, base_model=base_model, quantize=quantize, device=device, dtype=dtype
        )
        options.setdefault("calibrator", load_calibrator(adapter_dir))
        reading = loaded.reading
        if options.get("window_chars") is not None:
            reading = replace(reading, window_sentences=None)
        for name, value in asdict(reading).items():
            if options.get(name) is None:
                options[name] = value
        relations = loaded.schema if relations is None else relations
        constrained = relations is not None if constrained is None else constrained
        return cls(
            loaded.model, loaded.tokenizer, relations=relations, constrained=constrained, **options
        )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokenizer's tokens write.

        Raises:
            ModelError: they cannot be read.
        """
        return build_vocabulary(self.tokenizer)

    def extract(
        self,
        texts: Iterable[str],
        *,
        schema: Sequence[str] | RelationSchema | None = None,
        on_text: Callable[[], None] | None = None,
    ) -> list[Extraction]:
        """The triplets of each text, in the order of the texts.

        A text that is empty or blank has no triplets and says so in `problems`.

        Args:
            texts: Of any length.
            schema: The relations to use this time instead of the extractor's own.
            on_text: Called when a text is done, so that waiting can be shown; not for blank ones.

        Raises:
            DataError: a text is not a string, or the texts are one.
        """
        texts = check_texts(texts)
        chosen = self.schema if schema is None else read_schema(schema)
        questions = (
            (index, window, part)
            for index in range(len(texts))
            for window in self.iter_windows(texts[index])
            for part in self.find_parts(chosen)
        )
        answers: list[list[tuple[Window, Extraction]]] = [[] for _ in texts]
        while some := list(islice(questions, _QUESTIONS_AT_ONCE)):
            found = answer_questions(
                self,
                [(window.text, part) for _, window, part in some],
                None if on_text is None else _tell_texts([index for index, _, _ in some], on_text),
            )
            for (index, window, _), extraction in zip(some, found, strict=True):
                answers[index].append((window, extraction))
        return [self._finish(text, some) for text, some in zip(texts, answers, strict=True)]

    def iter_extract(
        self,
        examples: Iterable[Example | str],
        *,
        schema: Sequence[str] | RelationSchema | None = None,
        on_text: Callable[[], None] | None = None,
    ) -> Iterator[Extraction]:
        """The extraction of each example or text, in order, reading a few batches ahead.

        Gold triplets of examples are not looked at; their ids are kept. `on_text` as in `extract`.

        Raises:
            DataError: as `extract`.
        """
        if isinstance(examples, str):
            check_texts(examples)
        source = iter(examples)
        while chunk := list(islice(source, self.options.batch_size * _BATCHES_AHEAD)):
            texts = [example if isinstance(example, str) else example.text for example in chunk]
            found = self.extract(texts, schema=schema, on_text=on_text)
            for example, extraction in zip(chunk, found, strict=True):
                identifier = None if isinstance(example, str) else example.id
                yield replace(extraction, id=identifier)

    async def stream(
        self, texts: Iterable[str], *, schema: Sequence[str] | RelationSchema | None = None
    ) -> AsyncIterator[tuple[int, Triplet]]:
        """(index of the text, triplet) as each triplet is written, the model in a thread.

        Each triplet of a text comes once. Leaving the loop early ends the generation.

        Raises:
            ConfigError: the extractor is not constrained.
            DataError: as `extract`.
        """
        from tripletune.extraction.streaming import stream_triplets

        chosen = self.schema if schema is None else read_schema(schema)
        async for pair in stream_triplets(self, check_texts(texts), chosen):
            yield pair

    def find_parts(self, schema: RelationSchema | None) -> list[RelationPart]:
        """What a text is asked about, one prompt for each; those of the last schema are kept.

        Raises:
            ConfigError: there are no relations, but a constraint or the prompts need them.
        """
        if not schema:
            if self.constrained or self.relations_per_prompt is not None:
                given = None if schema is None else schema.names
                raise ConfigError(
                    f"relations: {given!r}, but a constraint or the prompt needs them; give names "
                    "or a schema, or use constrained=False (--free) with a model whose prompts "
                    "list none"
                )
            return [RelationPart()]
        if self._parts is None or self._parts[0] != schema:
            vocabulary = self.vocabulary if self.constrained else None
            parts = iter_parts(schema, self.relations_per_prompt, vocabulary=vocabulary)
            self._parts = (schema, list(parts))
        return self._parts[1]

    def encode(self, text: str, part: RelationPart) -> list[int]:
        """Token ids of the prompt for a text; lone surrogates are read as U+FFFD."""
        text = _SURROGATE.sub("\ufffd", text)
        return encode_prompt(self.tokenizer, render_query(text, relations=part.names))

    def encode_all(
        self, questions: Sequence[tuple[str, RelationPart]]
    ) -> tuple[list[list[int]], list[int]]:
        """Prompts for texts and what they are asked about, and the longest answers in tokens."""
        prompts = [self.encode(text, part) for text, part in questions]
        if self.max_new_tokens is not None:
            return prompts, [self.max_new_tokens] * len(prompts)
        around = {part: len(self.encode("", part)) for part in {part for _, part in questions}}
        limits = [
            _FEWEST_TOKENS + _TOKENS_PER_TOKEN * (len(ids) - around[part])
            for ids, (_, part) in zip(prompts, questions, strict=True)
        ]
        return prompts, [min(max(limit, _FEWEST_TOKENS), _LONGEST_ANSWER) for limit in limits]

    def adjust(self, triplet: Triplet) -> Triplet | None:
        """The triplet with calibrated confidence, or None when that is too low."""
        confidence = triplet.confidence
        if confidence is None:
            return triplet
        if self.calibrator is not None:
            confidence = self.calibrator.apply(confidence)
        if self.min_confidence is not None and confidence < self.min_confidence:
            return None
        return replace(triplet, confidence=round(confidence, 6))

    def build_guide(self, text: str, part: RelationPart, max_tokens: int) -> TripletGuide:
        """A guide for one output about a text, of so many tokens at most."""
        return part.find_constraint().build_guide(
            text, max_triplets=self.max_triplets, max_tokens=max_tokens
        )

    def iter_windows(self, text: str) -> Iterator[Window]:
        """The windows in which a text is read, blank ones left out."""
        windows = iter_windows(
            text,
            max_chars=self.window_chars,
            max_overlap_chars=self.overlap_chars,
            max_sentences=self.window_sentences,
        )
        return (window for window in windows if window.text.strip())

    def _finish(self, text: str, parts: list[tuple[Window, Extraction]]) -> Extraction:
        if not parts:
            return Extraction(text, problems=("the text is empty or blank",))
        whole = len(parts) == 1 and len(parts[0][0].text) == len(text)
        extraction = parts[0][1] if whole else merge_windows(text, parts)
        adjusted = [self.adjust(triplet) for triplet in extraction.triplets]
        kept = tuple(triplet for triplet in adjusted if triplet is not None)
        return replace(extraction, triplets=kept)

    def find_vocabulary(self) -> Vocabulary | None:
        """What the tokenizer's tokens write; None where they cannot be read."""
        try:
            return self.vocabulary
        except ModelError:
            return None

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of an answer."""
        if hasattr(self.tokenizer, "decode_text"):
            return str(self.tokenizer.decode_text(token_ids))
        return str(
            self.tokenizer.decode(
                token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def read_schema(relations: Sequence[str] | RelationSchema | None) -> RelationSchema | None:
    if relations is None or isinstance(relations, RelationSchema):
        return relations
    if isinstance(relations, str):
        raise ConfigError(f"relations: {relations!r} is one string; give a list of names")
    for name in relations:
        if not isinstance(name, str):
            raise ConfigError(f"relations: {name!r} is not a string; give names, or a schema")
    return RelationSchema(tuple(Relation(name) for name in dict.fromkeys(relations)))


def check_texts(texts: Iterable[str]) -> list[str]:
    """The texts.

    Raises:
        DataError: one is not a string, or they are not several.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise DataError(f"texts: {texts!r:.80} is not a list of texts; put one text in a list, too")
    found = list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(f"texts: number {index} is {text!r}, not a string")
    return found


def _tell_texts(indices: Sequence[int], on_text: Callable[[], None]) -> Callable[[int], None]:
    """Takes the number of an answered question; calls `on_text` at the last one about a text."""
    left = Counter(indices)

    def tell(question: int) -> None:
        index = indices[question]
        left[index] -= 1
        if not left[index]:
            on_text()

    return tell
