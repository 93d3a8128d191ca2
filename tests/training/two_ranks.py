"""One small training as torchrun starts it; writes losses, scores and data order of its rank.

torchrun --nproc_per_node=2 two_ranks.py FOLDER MODEL OUTPUT_DIR [FIELD=VALUE ...]
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.training.small_runs import SmallRun, build_small_settings
from tripletune.training.ranks import gather_over_ranks, map_over_ranks


class Run(SmallRun):
    def score(self) -> dict[str, float]:
        numbers = list(range(7))
        doubled = map_over_ranks(lambda share: [2 * number for number in share], numbers)
        assert doubled == [2 * number for number in numbers]
        size = int(os.environ["WORLD_SIZE"])
        assert gather_over_ranks(os.environ["RANK"]) == [str(rank) for rank in range(size)]
        return super().score()


def main() -> None:
    folder, model, output_dir, stop_at, *fields = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    changes: dict[str, Any] = {"output_dir": Path(output_dir), "lora_dropout": 0.0}
    for field in fields:
        name, _, value = field.partition("=")
        changes[name] = json.loads(value)
    rank = os.environ.get("RANK", "0")

    def at_step(trainer: Any, step: int) -> None:
        if step == int(stop_at) and rank == "0":
            os.kill(os.getpid(), signal.SIGTERM)

    run = Run(build_small_settings(Path(folder), Path(model), **changes), at_step)
    run.train()
    history = run.trainer.state.log_history
    (Path(output_dir) / f"rank{rank}.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main()
