"""The examples of a run as token ids, from its cache, with a warning about what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tripletune.config import TrainingSettings
from tripletune.data.cache import EncodedFile, load_encoded
from tripletune.data.relation_schema import RelationSchema
from tripletune.data.subschemas import iter_prompted
from tripletune.errors import DataError
from tripletune.schema import Example

__all__ = ["CACHE_FOLDER", "encode_data"]

CACHE_FOLDER = "token_cache"
"""The cache's folder in the output folder, where `cache_dir` names no other."""

logger = logging.getLogger("tripletune")


def encode_data(
    examples: Sequence[Example],
    tokenizer: Any,
    settings: TrainingSettings,
    *,
    path: Path,
    schema: RelationSchema,
) -> EncodedFile:
    """The token ids of the examples that fit, several of each when prompts list relations.

    Args:
        examples: Those of a data file.
        tokenizer: The model's tokenizer.
        settings: Lengths and what to do with long texts; where the cache lies.
        path: The data file, for messages.
        schema: The relations that prompts list, when `relations_per_prompt` asks for it.

    Raises:
        DataError: nothing fits, or there are no relations to list.
        OutputError: the cache cannot be written.
    """
    relations = None
    if settings.relations_per_prompt is not None:
        if not schema:
            raise DataError(
                f"relations_per_prompt: {settings.relations_per_prompt} cannot be listed, because "
                "the training data has no triplet; leave it out",
                path=path,
            )
        prompted = [
            pair
            for example in examples
            for pair in iter_prompted(
                example, schema, size=settings.relations_per_prompt, seed=settings.seed
            )
        ]
        logger.info(
            "每个提示列出 %d 种关系: %d 条数据成为 %d 条提示, 其中 %d 条没有所列的关系",
            settings.relations_per_prompt,
            len(examples),
            len(prompted),
            sum(not example.triplets for example, _ in prompted),
        )
        examples, relations = [pair[0] for pair in prompted], [pair[1] for pair in prompted]
    encoded, report = load_encoded(
        examples,
        tokenizer,
        max_source_tokens=settings.max_source_length,
        max_target_tokens=settings.max_target_length,
        long_texts=settings.long_texts,
        cache_dir=settings.cache_dir or settings.output_dir / CACHE_FOLDER,
        relations=relations,
    )
    if report.num_kept < report.num_examples or report.num_shortened:
        logger.warning(
            "%s: 共 %d 条, 保留 %d 条; 文本过长丢弃 %d 条 (max_source_length=%d), "
            "答案过长丢弃 %d 条 (max_target_length=%d), 缩短文本 %d 条",
            path,
            report.num_examples,
            report.num_kept,
            report.num_long_texts,
            settings.max_source_length,
            report.num_long_targets,
            settings.max_target_length,
            report.num_shortened,
        )
    if report.num_repeated:
        logger.info("%s: 答案中重复的三元组只保留一个，去掉 %d 个", path, report.num_repeated)
    if not encoded:
        raise DataError(
            f"none of the {len(examples)} examples fits max_source_length="
            f"{settings.max_source_length} and max_target_length="
            f"{settings.max_target_length} tokens; raise them",
            path=path,
        )
    return encoded
