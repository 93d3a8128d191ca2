"""推理脚本: triplets out of a sentence, a file, or a dialogue.

python inference_triplet.py "苹果公司是一家美国的科技公司。"
python inference_triplet.py --input sentences.txt --output triplets.jsonl
python inference_triplet.py            # 对话; quit 或 exit 退出
"""

from __future__ import annotations

from tripletune.cli.main import guarded


def main() -> int:
    """Extracts with the adapter of the last training, or the one given."""
    from tripletune.cli.inference import infer_from_arguments

    return infer_from_arguments(None)


if __name__ == "__main__":
    guarded(main)
