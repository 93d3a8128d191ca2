"""The examples of a run, read before the model, so that a mistake in them is told at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tripletune.config import TrainingSettings
from tripletune.data.leaks import find_leaks
from tripletune.data.readers import load_examples
from tripletune.data.relation_schema import RelationSchema, learn_schema
from tripletune.schema import Example

__all__ = ["RunData", "load_run_data"]

logger = logging.getLogger("tripletune")


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run learns from and is scored on.

    Attributes:
        training: Examples to learn from.
        schema: Their relations.
        validation: Examples to score on.
    """

    training: list[Example]
    schema: RelationSchema
    validation: list[Example]


def load_run_data(settings: TrainingSettings) -> RunData:
    """Reads both files; validation texts that are trained on are told of.

    Raises:
        DataError: a file is missing, empty or damaged.
    """
    training = load_examples(settings.train_file)
    schema = learn_schema(training)
    validation = load_examples(settings.validation_file)
    leaks = find_leaks((e.text for e in training), [e.text for e in validation])
    if leaks:
        logger.warning(
            "验证集 %d 条文本中有 %d 条也在训练集中 (如 %r)，分数会虚高；去掉它们: "
            "tripletune data fix %s 新文件 --against %s",
            len(validation),
            len(leaks),
            validation[leaks[0]].text[:40],
            settings.train_file,
            settings.validation_file,
        )
    return RunData(training, schema, validation)
