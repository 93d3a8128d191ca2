"""The plan of a run on the GPU at hand: made before the model is loaded, corrected by a trial."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tripletune.config import TrainingSettings
from tripletune.data.encode import TokenizedExample
from tripletune.data.relation_schema import RelationSchema
from tripletune.errors import ResourceError
from tripletune.models.gpu_memory import find_available_bytes
from tripletune.training.network_size import NetworkSize, read_network_size
from tripletune.training.plan import PlannedRun, RunPlan, plan_run
from tripletune.training.ranks import gather_over_ranks, join_ranks
from tripletune.training.rows import DataLengths
from tripletune.training.run_state import RUN_STATE_FILE, read_run_state
from tripletune.training.speed import DeviceSpeed, measure_device

__all__ = ["GpuFit", "describe_run"]

logger = logging.getLogger("tripletune")

_GIB = 2**30
_MOST_TRIALS = 6
_MORE_THAN_THOUGHT = 1.25
"""What memory that did not suffice is taken for, over what was predicted."""

Trial = Callable[[Any, dict[str, Any]], "int | None"]


def describe_run(
    settings: TrainingSettings,
    tokenizer: Any,
    *,
    training: Sequence[TokenizedExample],
    validation: Sequence[TokenizedExample],
    scored_texts: Sequence[str],
    schema: RelationSchema | None = None,
) -> PlannedRun:
    """What a plan is made for, from the settings, the data and the model's configuration.

    Args:
        settings: Of the run.
        tokenizer: The model's tokenizer.
        training: The encoded training examples.
        validation: The encoded validation examples.
        scored_texts: The validation sentences that are extracted from.
        schema: The relations that prompts list, when `relations_per_prompt` asks for it.

    Raises:
        ModelError: the model's configuration cannot be found or read.
        ConfigError: a LoRA target matches no layer.
    """
    size = read_network_size(
        settings.model_name,
        revision=settings.revision,
        rank=settings.lora_r,
        target_modules=settings.lora_target_modules,
        quantize=settings.load_in_4bit,
    )
    lengths = DataLengths.of(training)
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    in_nf4 = settings.fsdp or settings.compute == "fp8"  # products that need weights in NF4
    if settings.fsdp:
        size = _divide(size, num_ranks)
    prompts = _measure_prompts(scored_texts, tokenizer, settings, schema)
    return PlannedRun(
        settings=settings,
        size=size,
        training=lengths,
        validation=DataLengths.of(validation),
        longest_prompt=max(prompts, default=1),
        sentences=len(prompts),
        packing=settings.packing is not False,
        compiled=False if settings.fsdp else None,
        keeps_weights=None if settings.load_in_4bit and not in_nf4 else False,
        num_ranks=num_ranks,
    )


class GpuFit:
    """The plan of a run, from before the model is loaded to the first step.

    Args:
        run: What is to be run.
        speed: What the GPU does a second.
        available: Bytes the process can have on it.

    Attributes:
        plan: The newest plan.

    Raises:
        ResourceError: nothing fits.
    """

    def __init__(self, run: PlannedRun, speed: DeviceSpeed, *, available: int) -> None:
        self._speed = speed
        self._available = available
        self.plan: RunPlan = plan_run(run, speed, available=available)
        # What is compiled or kept stays so when the plan is made again.
        self.run = replace(
            run, compiled=self.plan.policy.compiled, keeps_weights=self.plan.keeps_weights
        )

    @classmethod
    def on_device(cls, run: PlannedRun, device: Any) -> GpuFit:
        """For the GPU at hand, whose speed is measured; the same in all processes of the run."""
        join_ranks()
        found = gather_over_ranks((measure_device(device), find_available_bytes(device)))
        return cls(run, found[0][0], available=min(available for _, available in found))

    def continue_from(self, settings: TrainingSettings, checkpoint: Path) -> None:
        """Plans again with the micro-batch of the run that is continued, where that fits.

        Another one would be as good, but not the same to the last bit.

        Args:
            settings: With the accumulation that the run needs on these GPUs.
            checkpoint: The folder of the checkpoint.

        Raises:
            AdapterError: what the checkpoint says of its run cannot be read.
            ResourceError: nothing fits.
        """
        path = checkpoint / RUN_STATE_FILE
        batch_size = read_run_state(path)["batch_size"] if path.is_file() else None
        self.run = replace(self.run, settings=settings)
        run = replace(self.run, fixed_batch_size=batch_size)
        try:
            self.plan = plan_run(run, self._speed, available=self._available)
            self.run = run
        except ResourceError:
            logger.warning("检查点的微批次 %d 条放不进显存，按计划另选", batch_size)
            self.plan = plan_run(self.run, self._speed, available=self._available)

    def settle(self, model: Any, collate: Any, examples: Any) -> RunPlan:
        """Puts the plan into effect, corrected by a trial.

        Args:
            model: Ready to train.
            collate: Makes batches of examples.
            examples: For training, by index.

        Raises:
            ResourceError: nothing fits.
        """
        from tripletune.training.probe import try_micro_batch
        from tripletune.training.recompute import checkpoint_blocks

        def use_plan(plan: RunPlan) -> None:
            checkpoint_blocks(model, plan.policy.checkpointed)

        if self.run.settings.fsdp:  # a pass given up half-way would leave other processes waiting
            use_plan(self.plan)
            return self.plan
        return self.correct(
            model,
            lambda indices: collate([examples[index] for index in indices]),
            use_plan=use_plan,
            trial=try_micro_batch,
        )

    def correct(
        self,
        model: Any,
        build_batch: Callable[[Sequence[int]], dict[str, Any]],
        *,
        use_plan: Callable[[RunPlan], None],
        trial: Trial,
    ) -> RunPlan:
        """Tries the largest micro-batch, and plans again while it needs more than there is.

        Args:
            model: Ready to train.
            build_batch: Makes a batch of training examples by index.
            use_plan: Puts a plan's policy into effect.
            trial: Gives the peak of a micro-batch, as `try_micro_batch`.

        Returns:
            The plan, with what was measured in place of what was predicted.

        Raises:
            ResourceError: nothing fits.
        """
        for _ in range(_MOST_TRIALS):
            plan = self.plan
            use_plan(plan)
            measured = _largest(gather_over_ranks(trial(model, build_batch(plan.examples))))
            if measured is not None and measured == 0:
                return plan  # the device does not count
            fixed = plan.training.weights + plan.training.adapter
            thought = plan.training.kept + plan.training.passing
            if measured is None:
                needed = _MORE_THAN_THOUGHT * thought
                logger.warning(
                    "试算最大的微批次 (%s tokens) 时显存不足 (预计 %.2f GiB)，改用更省显存的计划",
                    f"{plan.row.tokens:,}",
                    plan.training.total / _GIB,
                )
            else:
                # The optimizer's state is made at the first step.
                measured += plan.optimizer_bytes
                needed = measured - fixed
                logger.info(
                    "试算最大的微批次 (%s tokens): 显存峰值 %.2f GiB，预计 %.2f GiB",
                    f"{plan.row.tokens:,}",
                    measured / _GIB,
                    plan.training.total / _GIB,
                )
                if measured <= plan.usable:
                    self.plan = plan.with_measured(measured)
                    return self.plan
            scale = self.run.scale * max(needed / thought, 1.02)
            self.run = replace(self.run, scale=scale)
            self.plan = plan_run(self.run, self._speed, available=self._available)
            logger.warning("按试算修正后的计划: %s", self.plan.reason)
        raise ResourceError(
            f"memory: {_MOST_TRIALS} plans in a row did not fit the GPU; close other programs that "
            "use it, or use a smaller --max_source_length"
        )


def _largest(peaks: Sequence[int | None]) -> int | None:
    """The largest peak of all processes; None when one of them had no memory for it."""
    known = [peak for peak in peaks if peak is not None]
    return max(known) if len(known) == len(peaks) else None


def _divide(size: NetworkSize, num_ranks: int) -> NetworkSize:
    """The sizes for a process that holds its share of the weights, and gathers two blocks."""
    gathered = 2 * size.weight_bytes // size.layers
    return replace(size, weight_bytes=size.weight_bytes // num_ranks + gathered)


def _measure_prompts(
    texts: Sequence[str], tokenizer: Any, settings: TrainingSettings, schema: RelationSchema | None
) -> list[int]:
    """Tokens of each prompt that extraction reads."""
    from tripletune.extraction.extractor import Extractor

    # Without a model, which only generating needs.
    extractor = Extractor(
        None, tokenizer, relations=schema, relations_per_prompt=settings.relations_per_prompt
    )
    return [
        len(extractor.encode(window.text, part))
        for text in texts
        for window in extractor.iter_windows(text)
        for part in extractor.find_parts(extractor.schema)
    ]
