"""From texts to triplets with spans: prompt, generation, reading of the output, grounding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tripletune.data.linearize import parse_free
from tripletune.data.prompts import encode_prompt, find_end_token_id, render_query
from tripletune.errors import AdapterError, ConfigError
from tripletune.extraction.generate import Generated, generate_greedy
from tripletune.extraction.grounding import ground_pair
from tripletune.schema import Example, Extraction, Triplet

__all__ = ["Extractor"]

_BATCHES_AHEAD = 8


class Extractor:
    """Finds the triplets of texts with a fine-tuned model.

    Args:
        model: A causal language model, with or without adapter.
        tokenizer: Its tokenizer.
        relations: Names of the relations there are.
        max_new_tokens: Longest answer, end token included.
        batch_size: Texts computed together.
        constrained: Whether the model can write nothing but triplets of the text.
        relations_in_prompt: Whether the prompt lists the relations, for models trained so.

    Raises:
        ConfigError: a limit is below 1.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        relations: Sequence[str] | None = None,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        constrained: bool = False,
        relations_in_prompt: bool = False,
    ) -> None:
        if constrained:
            raise ConfigError("constrained: True is not accepted here; use constrained=False")
        if batch_size < 1 or max_new_tokens < 1:
            raise ConfigError(
                f"batch_size, max_new_tokens: {batch_size!r}, {max_new_tokens!r}; need at least 1"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.relations = None if relations is None else tuple(relations)
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.relations_in_prompt = relations_in_prompt

    @classmethod
    def from_pretrained(
        cls,
        adapter_dir: str | Path,
        *,
        base_model: str | None = None,
        quantize: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> Extractor:
        """The extractor of a trained adapter folder.

        Args:
            adapter_dir: What training wrote.
            base_model: Name or folder of the base model; None takes the one it was trained on.
            quantize: Whether to hold the base model in NF4.
            device: As `load_model_and_tokenizer`.
            dtype: Likewise.
            **options: As the constructor.

        Raises:
            AdapterError: the folder holds no adapter.
            ModelError: the base model cannot be loaded.
        """
        from peft import PeftModel

        from tripletune.models.loading import load_model_and_tokenizer

        path = Path(adapter_dir) / "adapter_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AdapterError(
                f"adapter: folder {str(adapter_dir)!r} has no readable adapter_config.json "
                f"({error}); give the output folder of a training run"
            ) from error
        name = base_model or config["base_model_name_or_path"]
        model, tokenizer = load_model_and_tokenizer(
            name, quantize=quantize, device=device, dtype=dtype
        )
        model = PeftModel.from_pretrained(model, str(adapter_dir)).eval()
        return cls(model, tokenizer, **options)

    def extract(self, texts: Sequence[str]) -> list[Extraction]:
        """The triplets of each text, in the order of the texts.

        A text that is empty or blank has no triplets and says so in `problems`.
        """
        readable = [index for index, text in enumerate(texts) if text.strip()]
        results = [Extraction(text, problems=("the text is empty or blank",)) for text in texts]
        outputs = self._generate([texts[index] for index in readable])
        for index, generated in zip(readable, outputs, strict=True):
            results[index] = self._read(texts[index], generated)
        return results

    def iter_extract(self, examples: Iterable[Example | str]) -> Iterator[Extraction]:
        """The extraction of each example or text, in order, reading a few batches ahead.

        Gold triplets of examples are not looked at; their ids are kept.
        """
        source = iter(examples)
        while chunk := list(islice(source, self.batch_size * _BATCHES_AHEAD)):
            found = self.extract([e if isinstance(e, str) else e.text for e in chunk])
            for example, extraction in zip(chunk, found, strict=True):
                identifier = None if isinstance(example, str) else example.id
                yield replace(extraction, id=identifier)

    def _generate(self, texts: Sequence[str]) -> list[Generated]:
        relations = self.relations if self.relations_in_prompt else None
        prompts = [
            encode_prompt(self.tokenizer, render_query(text, relations=relations)) for text in texts
        ]
        end_token_id = find_end_token_id(self.tokenizer)
        pad_token_id = self.tokenizer.pad_token_id
        return generate_greedy(
            self.model,
            prompts,
            end_token_id=end_token_id,
            pad_token_id=end_token_id if pad_token_id is None else pad_token_id,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    def _read(self, text: str, generated: Generated) -> Extraction:
        output = self._decode(generated.token_ids)
        parsed = parse_free(output)
        triplets, problems = list(parsed.triplets), list(parsed.problems)
        if not generated.is_complete:
            problems.append(f"the output did not end within {self.max_new_tokens} tokens")
        grounded = []
        for triplet in triplets:
            spans = ground_pair(text, triplet.subject, triplet.object)
            grounded.append(_place(triplet, *spans))
        return Extraction(text, tuple(grounded), output=output, problems=tuple(problems))

    def _decode(self, token_ids: Sequence[int]) -> str:
        if hasattr(self.tokenizer, "decode_text"):
            return str(self.tokenizer.decode_text(token_ids))
        return str(
            self.tokenizer.decode(
                token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def _place(triplet: Triplet, subject_span: Any, object_span: Any) -> Triplet:
    return replace(triplet, subject_span=subject_span, object_span=object_span)
