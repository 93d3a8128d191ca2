"""Memory and time of a run before it starts: what it will need, and how it is made to fit.

From the network's sizes, the real lengths of the data and the GPU, the plan chooses

- the micro-batch: examples in a row; the accumulation makes up for it, the effective batch stays;
- how many blocks compute their activations again in the backward pass, none if memory allows;
- whether blocks are compiled, which takes half a minute that a short run does not win back;
- whether dequantised weights are kept, where memory is plentiful: a step is 3 % faster then;
- how many sentences are extracted from at once when the model is evaluated,

so that the run is as fast as it can be, and says so in a table; or it says that nothing fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tripletune.config import TrainingSettings
from tripletune.errors import ResourceError
from tripletune.training.memory import (
    OPTIMIZER_BYTES,
    Moment,
    Policy,
    Row,
    predict_evaluation,
    predict_generation,
    predict_training,
)
from tripletune.training.network_size import NetworkSize
from tripletune.training.rows import (
    DataLengths,
    RowPlan,
    find_evaluation_rows,
    find_training_rows,
)
from tripletune.training.speed import (
    DeviceSpeed,
    estimate_generation_seconds,
    estimate_training_seconds,
)

__all__ = ["PlannedRun", "RunPlan", "plan_run"]

USABLE_SHARE = 0.92
"""Of what a process can have; the rest is for what lies between allocations."""
WORTH_CHANGING = 0.97
"""Another micro-batch is taken when it needs less than this share of the time."""
COMPILE_SECONDS = 30.0
"""What compiling blocks cost on an H100's machine the first time; 10 to 20 with its cache there."""
ROOM_SHARE = 0.8
"""Of the usable memory; dequantised weights are kept where a run takes no more with them."""
_GENERATION_BATCHES = (128, 64, 32, 16, 8, 4, 2, 1)
_ORDINARY_GENERATION = 16
"""More at a time is faster, too; but an evaluation takes no more memory for it than training."""


@dataclass(frozen=True)
class PlannedRun:
    """What a plan is made for.

    Attributes:
        settings: Batch sizes, epochs and limits. `gradient_checkpointing` False forbids it;
            `join_micro_batches` False keeps the micro-batch from growing.
        size: Of the network with its adapter.
        training: Lengths of the training examples.
        validation: Lengths of the validation examples.
        longest_prompt: Tokens of the longest prompt that is extracted from.
        sentences: Sentences extracted from at each evaluation.
        packing: Whether micro-batches are rows without padding.
        compiled: Whether blocks are compiled. None: when the run wins back what that takes.
        keeps_weights: Whether dequantised weights are kept. None: when there is plenty of room.
        num_ranks: GPUs. With several the micro-batch is left as it is.
        fixed_batch_size: The only micro-batch to consider, that of a run that is continued. None:
            any.
        scale: Times the predicted activations, as a trial has shown.
    """

    settings: TrainingSettings
    size: NetworkSize
    training: DataLengths
    validation: DataLengths
    longest_prompt: int
    sentences: int
    packing: bool = True
    compiled: bool | None = None
    keeps_weights: bool | None = False
    num_ranks: int = 1
    fixed_batch_size: int | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run will need, and what was chosen for it.

    Attributes:
        batch_size: Examples in a micro-batch.
        accumulation: Micro-batches in a step.
        eval_batch_size: Examples in a batch of the evaluation's loss.
        generation_batch: Sentences extracted from at once.
        policy: How activations are kept.
        keeps_weights: Whether dequantised weights are kept.
        layers: Blocks of the network.
        row: The micro-batch that needs the most memory.
        examples: Indices of the training examples in it.
        optimizer_bytes: What the optimizer keeps once it has made a step.
        training: The fullest moment of training.
        evaluation: Of the evaluation's loss.
        generation: Of extraction.
        available: Bytes that the process can have on the GPU.
        tokens: Real tokens of all micro-batches.
        training_seconds: Estimate, of training steps alone.
        evaluation_seconds: Estimate, of all evaluations.
        device: Whose speed the estimates go by.
        reason: Why this, in Chinese.
    """

    batch_size: int
    accumulation: int
    eval_batch_size: int
    generation_batch: int
    policy: Policy
    keeps_weights: bool
    layers: int
    row: Row
    examples: tuple[int, ...]
    optimizer_bytes: int
    training: Moment
    evaluation: Moment
    generation: Moment
    available: int
    tokens: int
    training_seconds: float
    evaluation_seconds: float
    device: DeviceSpeed
    reason: str

    @property
    def total(self) -> int:
        """The predicted peak, in bytes."""
        return max(self.training.total, self.evaluation.total, self.generation.total)

    @property
    def usable(self) -> int:
        """What the peak may be, in bytes."""
        return int(USABLE_SHARE * self.available)

    def with_measured(self, total: int) -> RunPlan:
        """The plan with the measured peak of training in place of the predicted one."""
        difference = total - self.training.total
        kept = self.training.kept + difference
        return replace(self, training=replace(self.training, kept=kept))

    def summary(self) -> dict[str, int | bool]:
        """What was chosen and predicted, for the run's record; sizes in bytes."""
        return {
            "batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulation,
            "checkpointed_blocks": self.policy.checkpointed,
            "compiled": self.policy.compiled,
            "keeps_weights": self.keeps_weights,
            "generation_batch": self.generation_batch,
            "predicted_peak": self.total,
            "available": self.available,
        }

    def apply(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings with the plan's batches."""
        return settings.changed(
            batch_size=self.batch_size,
            gradient_accumulation_steps=self.accumulation,
            eval_batch_size=self.eval_batch_size,
        )


def plan_run(run: PlannedRun, device: DeviceSpeed, *, available: int) -> RunPlan:
    """The fastest way that fits.

    Args:
        run: What is to be run.
        device: What the GPU does a second.
        available: Bytes the process can have on it.

    Raises:
        ResourceError: nothing fits; the message says what to change.
    """
    plan = _plan_blocks(replace(run, keeps_weights=bool(run.keeps_weights)), device, available)
    if run.keeps_weights is not None:
        return plan
    try:
        kept = replace(run, compiled=plan.policy.compiled, keeps_weights=True)
        roomy = _plan(kept, device, available)
    except ResourceError:
        return plan
    is_the_same = (roomy.policy, roomy.batch_size) == (plan.policy, plan.batch_size)
    return roomy if is_the_same and roomy.total <= ROOM_SHARE * roomy.usable else plan


def _plan_blocks(run: PlannedRun, device: DeviceSpeed, available: int) -> RunPlan:
    if run.compiled is not None:
        return _plan(run, device, available)
    compiled = _plan(replace(run, compiled=True), device, available)
    try:
        plain = _plan(replace(run, compiled=False), device, available)
    except ResourceError:
        return compiled  # which needs a little less memory
    saved = plain.training_seconds - compiled.training_seconds
    return compiled if saved > COMPILE_SECONDS else plain


def _plan(run: PlannedRun, device: DeviceSpeed, available: int) -> RunPlan:
    usable = int(USABLE_SHARE * available)
    if run.keeps_weights:
        weight_bytes = run.size.weight_bytes + 2 * run.size.frozen_parameters
        run = replace(run, size=replace(run.size, weight_bytes=weight_bytes))
    eval_batch_size, evaluation = _fit_evaluation(run, usable)
    candidate, seconds = _choose(run, device, usable)
    generation_batch, generation = _fit_generation(run, usable, candidate.moment.total)
    settings = run.settings
    steps = candidate.rows.count / max(1, settings.effective_batch_size // candidate.batch_size)
    answer = float(run.validation.labelled.mean()) if len(run.validation) else 0.0
    evaluations = 2 + steps // settings.eval_steps  # before and after, too
    each = estimate_generation_seconds(
        run.size, device, sentences=run.sentences, batch=generation_batch, answer=answer
    )
    return RunPlan(
        batch_size=candidate.batch_size,
        accumulation=settings.effective_batch_size // candidate.batch_size,
        eval_batch_size=eval_batch_size,
        generation_batch=generation_batch,
        policy=candidate.policy,
        keeps_weights=bool(run.keeps_weights),
        layers=run.size.layers,
        row=candidate.row,
        examples=candidate.rows.largest[candidate.row],
        optimizer_bytes=OPTIMIZER_BYTES * run.size.trainable,
        training=candidate.moment,
        evaluation=evaluation,
        generation=generation,
        available=available,
        tokens=candidate.rows.tokens,
        training_seconds=seconds,
        evaluation_seconds=evaluations * each,
        device=device,
        reason=_explain(run, candidate),
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A micro-batch size with the least recomputation with which it fits."""

    batch_size: int
    rows: RowPlan
    policy: Policy
    row: Row
    moment: Moment


def _choose(run: PlannedRun, device: DeviceSpeed, usable: int) -> tuple[_Candidate, float]:
    best: tuple[_Candidate, float] | None = None
    least: _Candidate | None = None
    for batch_size in _iter_batch_sizes(run):
        candidate = _fit_training(run, batch_size, usable)
        least = candidate
        if candidate.moment.total > usable:
            continue
        seconds = estimate_training_seconds(
            run.size,
            candidate.policy,
            device,
            tokens=candidate.rows.computed_tokens,
            micro_batches=candidate.rows.count,
            in_fp8=run.settings.compute == "fp8",
        )
        if best is None or seconds < WORTH_CHANGING * best[1]:
            best = (candidate, seconds)
    if best is None:
        raise _refuse(run, least, usable)
    return best


def _iter_batch_sizes(run: PlannedRun) -> Iterator[int]:
    """Micro-batch sizes to consider: the one asked for first, then larger ones, then smaller."""
    settings = run.settings
    asked = settings.batch_size
    if run.num_ranks > 1:
        yield asked
        return
    effective = settings.effective_batch_size
    if run.fixed_batch_size is not None and effective % run.fixed_batch_size == 0:
        yield run.fixed_batch_size
        return
    divisors = [size for size in range(1, effective + 1) if effective % size == 0]
    yield asked
    if settings.join_micro_batches:
        yield from (size for size in divisors if size > asked)
    yield from (size for size in reversed(divisors) if size < asked)


def _fit_training(run: PlannedRun, batch_size: int, usable: int) -> _Candidate:
    rows = find_training_rows(
        run.training,
        run.settings,
        batch_size=batch_size,
        packing=run.packing,
        num_ranks=run.num_ranks,
    )
    settings, layers = run.settings, run.size.layers
    depths: Sequence[int] = range(layers + 1) if settings.gradient_checkpointing else (0,)
    if settings.gradient_checkpointing and settings.offload_activations:
        depths = (layers,)
    candidate: _Candidate | None = None
    for depth in depths:
        policy = Policy(
            depth, bool(run.compiled), settings.offload_activations, settings.lora_dropout > 0
        )
        moments = [
            (predict_training(run.size, row, policy).scaled(run.scale), row) for row in rows.largest
        ]
        moment, row = max(moments, key=lambda pair: pair[0].total)
        found = _Candidate(batch_size, rows, policy, row, moment)
        if moment.total <= usable:
            return found
        if candidate is None or moment.total < candidate.moment.total:
            candidate = found
    if candidate is None:
        raise ResourceError("gradient_checkpointing: no way to run was considered")
    return candidate


def _fit_generation(run: PlannedRun, usable: int, training: int) -> tuple[int, Moment]:
    for batch in _GENERATION_BATCHES:
        moment = predict_generation(
            run.size,
            batch=batch,
            sentences=run.sentences,
            prompt=run.longest_prompt,
            answer=run.settings.max_target_length,
        )
        if moment.total <= (usable if batch <= _ORDINARY_GENERATION else min(usable, training)):
            break
    else:
        raise ResourceError(
            f"memory: extracting from one sentence (prompt of {run.longest_prompt} tokens, answer "
            f"of up to {run.settings.max_target_length}) needs about {_gib(moment.total)} of the "
            f"{_gib(usable)} usable on this GPU; lower --max_source_length or "
            "--max_target_length, or use a smaller model"
        )
    return batch, moment


def _fit_evaluation(run: PlannedRun, usable: int) -> tuple[int, Moment]:
    batch_size = run.settings.eval_batch_size
    while True:
        rows = find_evaluation_rows(run.validation, batch_size=batch_size, packing=run.packing)
        moment = max(
            (predict_evaluation(run.size, row) for row in rows.largest),
            key=lambda moment: moment.total,
        )
        if moment.total <= usable or batch_size == 1:
            return batch_size, moment
        batch_size //= 2


def _explain(run: PlannedRun, candidate: _Candidate) -> str:
    depth, layers = candidate.policy.checkpointed, run.size.layers
    asked = run.settings.batch_size
    parts = ["显存充足，不需要梯度检查点"]
    if depth == layers:
        parts = ["所有层使用梯度检查点以放进显存"]
    elif depth:
        parts = [f"{layers} 层中 {depth} 层使用梯度检查点以放进显存"]
    if candidate.batch_size > asked:
        parts.append(f"微批次由 {asked} 增为 {candidate.batch_size} 条 (更快，有效批次不变)")
    elif candidate.batch_size < asked:
        parts.append(f"微批次由 {asked} 减为 {candidate.batch_size} 条以放进显存 (有效批次不变)")
    if run.keeps_weights:
        parts.append("保留解压后的权重，不必每次乘积再解压")
    return "；".join(parts)


def _refuse(run: PlannedRun, least: _Candidate | None, usable: int) -> ResourceError:
    settings = run.settings
    if least is None:
        return ResourceError(f"batch_size: {settings.batch_size!r} leaves nothing to consider")
    advice = [
        f"a smaller --max_source_length (now {settings.max_source_length}) or "
        f"--max_target_length (now {settings.max_target_length})"
    ]
    if not settings.gradient_checkpointing:
        advice.insert(0, "--gradient_checkpointing true")
    if not settings.load_in_4bit:
        advice.insert(0, "--load_in_4bit true")
    advice.append("a smaller model")
    return ResourceError(
        f"memory: even a micro-batch of {least.batch_size} ({least.row.tokens} tokens) needs "
        f"about {_gib(least.moment.total)}, of which the model takes "
        f"{_gib(least.moment.weights)}; usable on this GPU: {_gib(usable)}; use "
        + ", or ".join(advice)
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
