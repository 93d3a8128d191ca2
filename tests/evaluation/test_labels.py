from __future__ import annotations

from tripletune.evaluation.error_classes import ERROR_CLASSES
from tripletune.evaluation.labels import ERROR_LABELS, RULE_LABELS
from tripletune.evaluation.matching import RULES


def test_every_rule_and_error_class_has_a_label():
    assert tuple(RULE_LABELS) == RULES
    assert tuple(ERROR_LABELS) == ERROR_CLASSES


def test_labels_are_complete():
    labels = [*RULE_LABELS.values(), *ERROR_LABELS.values()]
    assert len(labels) == 15
    assert all(all(label) for label in labels)
