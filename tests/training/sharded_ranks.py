"""What one of two processes sees of a model whose frozen weights they share; as JSON.

torchrun --nproc_per_node=2 sharded_ranks.py FOLDER MODEL
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.training.small_runs import build_small_settings
from tripletune.extraction.generate import GenerationOptions, generate_greedy
from tripletune.training.run import TrainingRun
from tripletune.training.sharding import count_bytes, lockstep


def hash_weights(model: Any) -> dict[str, str]:
    """SHA-256 of the bytes of every frozen weight, gathered."""
    hashes = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            content = whole.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


@torch.inference_mode()
def compute_losses(model: Any, rows: list[list[int]]) -> list[float]:
    ids = [torch.tensor([row]) for row in rows]
    return [float(model(input_ids=row, labels=row).loss) for row in ids]


def compute_gradients(model: Any, row: list[int]) -> list[float]:
    """Norm of each adapter matrix's gradient; every block is computed again for it."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    model.train()
    ids = torch.tensor([row])
    model(input_ids=ids, labels=ids).loss.backward()
    model.eval()
    return [float(p.grad.norm()) for p in model.parameters() if p.requires_grad]


def observe(folder: Path, model_dir: Path, *, rank: int, **changes: Any) -> dict[str, Any]:
    """What there is to compare with one process; rank 1 makes other forward passes than rank 0."""
    settings = build_small_settings(
        folder, model_dir, load_in_4bit=True, max_target_length=60, lora_dropout=0.0,
        eval_batch_size=32, **changes,
    )  # fmt: skip
    run = TrainingRun(settings)
    # As on a GPU: what is not packed in bf16, so that a block is gathered in two dtypes.
    with patch("tripletune.models.loading.default_dtype", lambda device: torch.bfloat16):
        run.setup_model_and_tokenizer()
    run.prepare_datasets()
    tokenizer = run.tokenizer
    row = [5, 6, 7, tokenizer.gmask_token_id, tokenizer.bos_token_id, 9, 10]
    rows = [[number, *row] for number in range(1 if rank else 3)]
    options = GenerationOptions(
        tokenizer.eos_token_id, tokenizer.pad_token_id, max_new_tokens=9 if rank else 4
    )
    with lockstep(run.model):
        losses = compute_losses(run.model, rows)
        written = generate_greedy(run.model, rows, options)
    gradients = compute_gradients(run.model, rows[0])
    # One sentence and one batch: the other process has nothing to extract from or evaluate.
    run.validation_examples = run.validation_examples[:1]
    metrics = run._build_trainer().evaluate()
    return {
        "evaluation": [value for name, value in metrics.items() if name != "eval_runtime"],
        "gradients": gradients,
        "weights": hash_weights(run.model),
        "bytes": count_bytes(run.model),
        "losses": losses,
        "written": [one.token_ids for one in written],
    }


def main() -> None:
    folder, model_dir = map(Path, sys.argv[1:3])
    rank = int(os.environ["RANK"])
    seen = observe(folder, model_dir, rank=rank, fsdp=True)
    (folder / f"seen{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
