"""The `transformers` Trainer, with what triplets need: token-exact losses, F1, plain batches."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.trainer import Trainer

from tripletune.data.encode import TokenizedExample

__all__ = ["ExampleDataset", "TripletTrainer"]

Scorer = Callable[[], Mapping[str, float]]


class ExampleDataset(Dataset[TokenizedExample]):
    """Tokenized examples in memory, by index."""

    def __init__(self, examples: Sequence[TokenizedExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TokenizedExample:
        return self.examples[index]


class TripletTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose losses are means over answer tokens and whose evaluation also extracts.

    The loss of an optimizer step is the summed cross entropy of its labels divided by their number
    over all micro-batches and ranks, so that it does not depend on how the step is cut up.

    Args:
        scorer: Gives precision, recall and F1 of the model as it is (`f1`, …), or None.
        group_by_length: Put examples of similar length into one batch (padded batches only); the
            order of batches stays random.
        **kwargs: As `transformers.Trainer`.
    """

    def __init__(
        self, *, scorer: Scorer | None = None, group_by_length: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        # PEFT hides the model's signature on some releases; ours and every causal model's loss
        # divides by num_items_in_batch when it is given.
        self.model_accepts_loss_kwargs = True
        self._scorer = scorer
        self._group_by_length = group_by_length
        self.train_seconds = 0.0
        """Seconds spent in training steps, evaluation and saving not counted."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not self._group_by_length or dataset is None:
            return super()._get_train_sampler(train_dataset)
        lengths = [len(dataset[index]) for index in range(len(dataset))]
        return LengthGroupedSampler(lengths, self.args.train_batch_size, seed=self.args.seed)

    def training_step(
        self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """As the Trainer; also counts the real tokens for tokens/s."""
        mask = inputs.get("attention_mask")
        tokens = inputs["input_ids"].numel() if mask is None else int(mask.sum())
        self.state.num_input_tokens_seen += tokens
        started = time.perf_counter()
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        self.train_seconds += time.perf_counter() - started
        return loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """`eval_loss` (mean over answer tokens), and precision, recall and F1 when there is a scorer."""
        started = time.perf_counter()
        metrics = {f"{metric_key_prefix}_loss": self._mean_loss(eval_dataset)}
        if self._scorer is not None:
            self.model.eval()
            scores = self._scorer()
            metrics |= {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def _mean_loss(self, eval_dataset: Any) -> float:
        model = self.model.eval()
        totals = torch.zeros(2, dtype=torch.float64)
        for inputs in self.get_eval_dataloader(eval_dataset):
            count = int((inputs["labels"][:, 1:] != -100).sum())
            with self.compute_loss_context_manager():
                outputs = model(**self._prepare_inputs(inputs), num_items_in_batch=1)
            totals += torch.tensor([float(outputs["loss"]), count], dtype=torch.float64)
        if self.args.world_size > 1:
            totals = self.accelerator.reduce(totals.to(self.args.device), reduction="sum").cpu()
        return float(totals[0] / totals[1].clamp(min=1))


class LengthGroupedSampler(Sampler[int]):
    """Random batches of examples of similar length, another order every epoch.

    The examples are shuffled, cut into pools of `POOL` batches, sorted by length inside a pool and
    cut into batches, which are shuffled again. The same seed and epoch give the same order.
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
