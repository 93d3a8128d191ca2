"""What the tokenizers of all ChatGLM generations share: the vocabulary file, and quick encoding.

The library encodes a batch text by text, by way of pieces. SentencePiece gives ids at once, and for
many texts together; a call for plain strings, which is nearly every call, goes that way here.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import sentencepiece
from transformers.tokenization_python import PreTrainedTokenizer
from transformers.tokenization_utils_base import BatchEncoding, TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from tripletune.errors import ModelError

__all__ = ["SentencePieceTokenizer", "find_width"]

_SIMPLE_TRUNCATION = (
    TruncationStrategy.DO_NOT_TRUNCATE,
    TruncationStrategy.LONGEST_FIRST,
    TruncationStrategy.ONLY_FIRST,
)
# Arguments of an encoding call that the quick path has no answer to; the library's path has.
_UNUSUAL = (
    "is_split_into_words",
    "return_overflowing_tokens",
    "return_special_tokens_mask",
    "return_token_type_ids",
    "return_length",
    "sanitize_control_tokens",
)


class SentencePieceTokenizer(PreTrainedTokenizer):
    """A tokenizer whose vocabulary is a SentencePiece model; each generation derives its own."""

    family: ClassVar[str]
    """Name of the models, for messages."""
    vocab_file: str
    sp_model: Any
    opening_ids: list[int]
    """Special tokens before a text."""
    closing_ids: list[int]
    """Special tokens after a text."""

    @abstractmethod
    def encode_rows(self, rows: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens around it."""

    @abstractmethod
    def pad_rows(
        self,
        rows: list[list[int]],
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
    ) -> dict[str, list[Any]]:
        """The columns of a batch, padded; the arguments are those of the library's `pad`."""

    @classmethod
    def load_vocabulary(cls, path: str) -> Any:
        """The SentencePiece model in a file.

        Raises:
            ModelError: the file is missing or holds no SentencePiece model.
        """
        if not path or not Path(path).is_file():
            raise ModelError(
                f"tokenizer: vocabulary file {path!r} does not exist; a {cls.family} folder needs "
                f"{cls.vocab_files_names['vocab_file']}: download the model folder again, complete"
            )
        model = sentencepiece.SentencePieceProcessor()
        try:
            model.load(path)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"tokenizer: {path} is not a SentencePiece model; if it is a Git LFS pointer run "
                "'git lfs pull' in that folder, else download it again"
            ) from error
        return model

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copies the vocabulary file into a folder and returns its path there."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        target = Path(save_directory) / f"{prefix}{self.vocab_files_names['vocab_file']}"
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    def _encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Encodes plain strings in one pass; everything else goes the library's way."""
        rows = [text] if isinstance(text, str) else text
        if (
            text_pair is not None
            or not rows
            or not all(isinstance(row, str) for row in rows)
            or truncation_strategy not in _SIMPLE_TRUNCATION
            or any(kwargs.get(name) for name in _UNUSUAL)
        ):
            return super()._encode_plus(
                text,
                text_pair=text_pair,
                add_special_tokens=add_special_tokens,
                padding_strategy=padding_strategy,
                truncation_strategy=truncation_strategy,
                max_length=max_length,
                **kwargs,
            )
        opening = self.opening_ids if add_special_tokens else []
        closing = self.closing_ids if add_special_tokens else []
        encoded = self.encode_rows(rows)
        if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE and max_length is not None:
            room = max(0, max_length - len(opening) - len(closing))
            if self.truncation_side == "left":
                encoded = [ids[max(0, len(ids) - room) :] for ids in encoded]
            else:
                encoded = [ids[:room] for ids in encoded]
        for ids in encoded:
            ids[:0] = opening
            ids.extend(closing)
        columns = self.pad_rows(
            encoded,
            padding_strategy,
            max_length,
            kwargs.get("pad_to_multiple_of"),
            kwargs.get("padding_side"),
        )
        if kwargs.get("return_attention_mask") is False:
            columns.pop("attention_mask", None)
        tensor_type = kwargs.get("return_tensors")
        if isinstance(text, str) and tensor_type is None:
            return BatchEncoding({name: values[0] for name, values in columns.items()})
        return BatchEncoding(columns, tensor_type=tensor_type)

    def _pad(
        self,
        encoded_inputs: dict[str, Any] | BatchEncoding,
        max_length: int | None = None,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
    ) -> Any:
        ids = list(encoded_inputs["input_ids"])
        columns = self.pad_rows(
            [ids], padding_strategy, max_length, pad_to_multiple_of, padding_side
        )
        if return_attention_mask is False:
            columns.pop("attention_mask", None)
        encoded_inputs.pop("attention_mask", None)
        for name, (values,) in columns.items():
            encoded_inputs[name] = values
        return encoded_inputs


def find_width(
    rows: list[list[int]], strategy: PaddingStrategy, max_length: int | None, multiple: int | None
) -> int:
    """Length to pad each row to, which some rows may exceed; 0 without padding."""
    if strategy == PaddingStrategy.DO_NOT_PAD:
        return 0
    width = max(map(len, rows)) if strategy == PaddingStrategy.LONGEST else max_length or 0
    return -(-width // multiple) * multiple if multiple else width
