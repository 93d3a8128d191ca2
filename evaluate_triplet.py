"""评估脚本: scores the adapter of the last training on the validation data and writes a report.

python evaluate_triplet.py
python evaluate_triplet.py --adapter output/my-model --validation_file data/val_triplet.jsonl
"""

from __future__ import annotations

from tripletune.cli.main import guarded


def main() -> int:
    """Evaluates the adapter of the last training, or the one given."""
    from tripletune.cli.evaluate import evaluate_from_arguments

    return evaluate_from_arguments(None)


if __name__ == "__main__":
    guarded(main)
