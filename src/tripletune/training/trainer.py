"""The `transformers` Trainer, with what triplets need: token-exact losses, F1, plain batches."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.trainer_callback import TrainerCallback

from tripletune.data.cache import EncodedFile
from tripletune.data.encode import TokenizedExample
from tripletune.models.sdpa import without_cudnn_attention
from tripletune.training.acceleration import evaluation_as_it_is
from tripletune.training.batch_order import ShuffledOrder
from tripletune.training.faults import is_out_of_memory, split_batch
from tripletune.training.resumable import ResumableTrainer
from tripletune.training.startup import StartupClock

__all__ = ["ExampleDataset", "TripletTrainer"]

logger = logging.getLogger("tripletune")

Scorer = Callable[[], Mapping[str, float]]


class ExampleDataset(Dataset[TokenizedExample]):
    """Tokenized examples by index, and the number of tokens of each in `lengths`."""

    def __init__(self, examples: Sequence[TokenizedExample]) -> None:
        self.examples = examples
        self.lengths = (
            examples.lengths
            if isinstance(examples, EncodedFile)
            else [len(example) for example in examples]
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TokenizedExample:
        return self.examples[index]


class TripletTrainer(ResumableTrainer):
    """Trainer whose losses are means over answer tokens and whose evaluation also extracts.

    The loss of an optimizer step is the summed cross entropy of its labels divided by their number
    over all micro-batches and ranks, so that it does not depend on how the step is cut up.

    Args:
        scorer: Gives precision, recall and F1 of the model as it is (`f1`, …), or None.
        group_by_length: Put examples of similar length into one step (padded batches only); the
            order of steps stays random.
        clock: Told how long the first step takes, compiling included.
        **kwargs: As `ResumableTrainer` and `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        scorer: Scorer | None = None,
        group_by_length: bool = False,
        clock: StartupClock | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # PEFT hides the model's signature on some releases; ours and every causal model's loss
        # divides by num_items_in_batch when it is given.
        self.model_accepts_loss_kwargs = True
        self._scorer = scorer
        self._group_by_length = group_by_length
        self.rank_tokens = 0
        """Tokens that this process alone has learnt from since its start."""
        self.add_callback(_StepCounter(self, clock))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not self._group_by_length:
            return ShuffledOrder(len(dataset), seed=self.args.seed)
        lengths = [len(dataset[index]) for index in range(len(dataset))]
        per_step = self.get_total_train_batch_size(self.args)
        return LengthGroupedSampler(lengths, per_step, seed=self.args.seed)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer; padded batches differ in shape from step to step."""
        with without_cudnn_attention():
            return super().train(*args, **kwargs)

    def training_step(
        self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """As the Trainer; also counts the real tokens for tokens/s."""
        self.rank_tokens += self._count_tokens(inputs)
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer; making the batches of a step counts as training."""
        started = time.perf_counter()
        samples = super().get_batch_samples(*args, **kwargs)
        self.train_seconds += time.perf_counter() - started
        return samples

    def _count_tokens(self, inputs: dict[str, Any]) -> int:
        if self.args.world_size > 1 and not bool((inputs["labels"] != -100).any()):
            return 0  # what `CollateOrBlank` makes of nothing
        mask = inputs.get("attention_mask")
        return inputs["input_ids"].numel() if mask is None else int(mask.sum())

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: nobody reads the count, for which every parameter would be visited at every step."""
        return 0

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """`eval_loss` (mean over answer tokens); precision, recall and F1 with a scorer."""
        started = time.perf_counter()
        with self.undisturbed():
            metrics = {f"{metric_key_prefix}_loss": self._mean_loss(eval_dataset)}
            if self._scorer is not None:
                self.model.eval()
                scores = self._scorer()
                metrics |= {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self.log(metrics)
        control: Any = self.control
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, control, metrics
        )
        return metrics

    @torch.no_grad()
    def _mean_loss(self, eval_dataset: Any) -> float:
        """The same for any number of ranks: batches are divided, their losses added in order."""
        self.model.eval()
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        with evaluation_as_it_is(self.model):
            totals = self._sum_losses(dataset)
        loss, count = self.sum_over_ranks(totals).sum(dim=0).tolist()
        return float(loss / max(count, 1))

    def _sum_losses(self, dataset: Any) -> Tensor:
        """(batches, 2), summed loss and number of labels; zero for the batches of other ranks."""
        size = self.args.per_device_eval_batch_size
        starts = range(0, len(dataset), size)
        totals = torch.zeros(len(starts), 2, dtype=torch.float64)
        for number in range(self.args.process_index, len(starts), self.args.world_size):
            first = starts[number]
            indices = range(first, min(first + size, len(dataset)))
            batch = self.data_collator([dataset[index] for index in indices])
            totals[number, 0] = self._summed_loss(batch)
            totals[number, 1] = int((batch["labels"][:, 1:] != -100).sum())
        return totals

    def _summed_loss(self, batch: dict[str, Any]) -> float:
        """Summed cross entropy of a batch, in halves when it does not fit the memory."""
        try:
            return self._summed_loss_at_once(batch)
        except (RuntimeError, MemoryError) as error:
            halves = split_batch(batch, 2)
            if not is_out_of_memory(error) or len(halves) < 2:
                raise
            reason = str(error).strip().split("\n")[0]
        logger.warning("评估时显存不足 (%s)：批次分成两半", reason)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return sum(self._summed_loss(half) for half in halves)

    def _summed_loss_at_once(self, batch: dict[str, Any]) -> float:
        with self.compute_loss_context_manager():
            outputs = self.model(**self._prepare_inputs(batch), num_items_in_batch=1)
        return float(outputs["loss"])


class _StepCounter(TrainerCallback):
    """Adds the tokens of a step on all ranks, and its seconds, before other callbacks show them.

    A step waits for the GPU once, after its backward passes.
    """

    def __init__(self, trainer: TripletTrainer, clock: StartupClock | None) -> None:
        self._trainer = trainer
        self._clock = clock
        self._num_counted = 0
        self._begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called before the first micro-batch of a step."""
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called once a step, on every rank."""
        seconds = time.perf_counter() - self._begun
        self._trainer.train_seconds += seconds
        if self._clock is not None:
            self._clock.parts["第一步"] = seconds
            self._clock = None
        new = self._trainer.rank_tokens - self._num_counted
        self._num_counted += new
        state.num_input_tokens_seen += int(self._trainer.sum_over_ranks(torch.tensor(new)))


class LengthGroupedSampler(Sampler[int]):
    """Random batches of examples of similar length, another order every epoch.

    The examples are shuffled, cut into pools of `POOL` batches, sorted by length inside a pool and
    cut into batches, which are shuffled again. The same seed and epoch give the same order. A batch
    is what an optimizer step learns from, so that the order does not depend on how a step is cut
    into micro-batches and ranks; inside a batch the shortest come first.
    """

    POOL = 16

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of an epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed}-{self._epoch}")
        indices = list(range(len(self._lengths)))
        chance.shuffle(indices)
        pool = self.POOL * self._batch_size
        batches: list[list[int]] = []
        for start in range(0, len(indices), pool):
            grouped = sorted(indices[start : start + pool], key=self._lengths.__getitem__)
            batches += [
                grouped[first : first + self._batch_size]
                for first in range(0, len(grouped), self._batch_size)
            ]
        short = [batch for batch in batches if len(batch) < self._batch_size]
        full = [batch for batch in batches if len(batch) == self._batch_size]
        chance.shuffle(full)
        for batch in full + short:
            yield from batch
