from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback, TrainingArguments

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.models.loading import load_model
from tripletune.training.adapters import add_lora
from tripletune.training.trainer import ExampleDataset, LengthGroupedSampler, TripletTrainer

PAD = 3
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=120)
SIZES = st.integers(1, 7)


def build_examples(model: Any, number: int) -> list[TokenizedExample]:
    """Examples whose prompts and answers all differ in length."""
    generator = torch.Generator().manual_seed(0)
    closing = [model.config.gmask_token_id, model.config.bos_token_id]
    examples = []
    for index in range(number):
        prompt = torch.randint(100, 4000, (4 + 3 * index % 11,), generator=generator).tolist()
        answer = torch.randint(100, 4000, (1 + 5 * index % 9,), generator=generator).tolist()
        ids = [*prompt, *closing, *answer, model.config.eos_token_id]
        examples.append(TokenizedExample(ids, len(prompt) + 2))
    return examples


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" in logs:
            self.values.append(logs["loss"])


def build_trainer(model: Any, examples, tmp_path, *, collator=None, scorer=None, **settings):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no",
        logging_steps=1,
        learning_rate=5e-3,
        seed=3,
        **settings,
    )
    return TripletTrainer(
        model=model,
        args=arguments,
        train_dataset=ExampleDataset(examples),
        eval_dataset=ExampleDataset(examples),
        data_collator=collator or PaddedCollator(PAD, "two_rows"),
        scorer=scorer,
    )


@pytest.fixture
def build_model(tiny_model_dir):
    def build() -> Any:
        torch.manual_seed(0)
        model = load_model(str(tiny_model_dir), quantize=False, device="cpu")
        # Far enough from zero that a few steps change the losses.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data *= 5
        return add_lora(
            model,
            rank=4,
            alpha=16,
            dropout=0.0,
            target_modules="all-linear",
            model_name="tiny",
        )

    return build


def record_losses(model: Any, tmp_path, *, collator=None, **settings) -> list[float]:
    losses = Losses()
    trainer = build_trainer(
        model, build_examples(model, 16), tmp_path, collator=collator, max_steps=4, **settings
    )
    trainer.add_callback(losses)
    trainer.train()
    return losses.values


@torch.no_grad()
def compute_mean_loss(model: Any, examples) -> float:
    """Cross entropy over all answer tokens, one example at a time."""
    collator = PaddedCollator(PAD, "two_rows")
    total, count = 0.0, 0
    for example in examples:
        batch = collator([example])
        labels = batch.pop("labels")
        logits = model(**batch).logits
        total += float(
            torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
        )
        count += int((labels[0, 1:] != -100).sum())
    return total / count


def test_loss_does_not_depend_on_how_a_step_is_cut(build_model, tmp_path):
    whole = record_losses(build_model(), tmp_path, per_device_train_batch_size=8)
    for size, steps in ((1, 8), (2, 4)):
        cut = record_losses(
            build_model(),
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
        )
        assert cut == pytest.approx(whole, rel=1e-5)
    assert len(whole) == 4
    # Two epochs of two steps: what was learnt in the first is far above the tolerance.
    assert sum(whole[2:]) < sum(whole[:2]) - 0.05


def test_loss_does_not_depend_on_packing(build_model, tmp_path):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    padded = record_losses(build_model(), tmp_path, **settings)
    packed = record_losses(
        build_model(), tmp_path, collator=PackedCollator(PAD, "two_rows"), **settings
    )
    assert packed == pytest.approx(padded, rel=1e-5)


def test_first_loss_is_the_mean_over_the_answer_tokens_of_the_step(build_model, tmp_path):
    model = build_model()
    examples = build_examples(model, 8)
    expected = compute_mean_loss(model.eval(), examples)
    losses = Losses()
    trainer = build_trainer(
        model,
        examples,
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    trainer.add_callback(losses)
    trainer.train()
    assert losses.values == pytest.approx([expected], rel=1e-5)


def test_evaluate_gives_the_mean_over_all_answer_tokens(build_model, tmp_path):
    model = build_model()
    examples = build_examples(model, 7)
    trainer = build_trainer(model, examples, tmp_path, per_device_eval_batch_size=3)
    metrics = trainer.evaluate()
    expected = compute_mean_loss(model.eval(), examples)
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert set(metrics) == {"eval_loss", "eval_runtime", "epoch"}


def test_evaluate_adds_what_the_scorer_gives(build_model, tmp_path):
    model = build_model()
    seen = []

    def score() -> dict[str, float]:
        seen.append(model.training)
        return {"f1": 0.5, "precision": 1.0}

    trainer = build_trainer(model, build_examples(model, 2), tmp_path, scorer=score)
    metrics = trainer.evaluate()
    assert (metrics["eval_f1"], metrics["eval_precision"]) == (0.5, 1.0)
    assert seen == [False]
    assert trainer.state.log_history[-1]["eval_f1"] == 0.5


def test_trainer_counts_the_real_tokens(build_model, tmp_path):
    model = build_model()
    examples = build_examples(model, 6)
    trainer = build_trainer(
        model, examples, tmp_path, num_train_epochs=2, per_device_train_batch_size=3
    )
    trainer.train()
    assert trainer.state.num_input_tokens_seen == 2 * sum(len(example) for example in examples)
    assert trainer.train_seconds > 0


def test_seconds_of_training_hold_batches_and_steps_but_no_evaluation(
    build_model, tmp_path, monkeypatch
):
    model = build_model()
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("tripletune.training.trainer.time", clock)

    def taking(seconds: float, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            now[0] += seconds
            return function(*args, **kwargs)

        return call

    class OptimizerStep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
            now[0] += 100.0

    monkeypatch.setattr(TripletTrainer, "compute_loss", taking(10.0, TripletTrainer.compute_loss))
    trainer = build_trainer(
        model, build_examples(model, 4), tmp_path, max_steps=2, per_device_train_batch_size=1,
        gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=1,
        collator=taking(1.0, PaddedCollator(PAD, "two_rows")), scorer=taking(1000.0, dict),
    )  # fmt: skip
    trainer.add_callback(OptimizerStep())
    trainer.train()
    assert trainer.train_seconds == 2 * (2 * 1.0 + 2 * 10.0 + 100.0)


def test_steps_of_ever_new_shapes_are_taken_without_cudnn(build_model, tmp_path):
    model = build_model()
    was_enabled = torch.backends.cuda.cudnn_sdp_enabled()
    seen = []
    model.register_forward_pre_hook(
        lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()), prepend=True
    )
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        build_trainer(model, build_examples(model, 4), tmp_path, max_steps=2).train()
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_enabled)
    assert seen == [False, False]


def test_trainer_changes_the_adapter_alone(build_model, tmp_path):
    model = build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_trainer(model, build_examples(model, 4), tmp_path, max_steps=2).train()
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all("lora_" in name for name in changed)


@given(LENGTHS, SIZES, st.integers(0, 3))
def test_sampler_gives_every_index_once(lengths, batch_size, epoch):
    sampler = LengthGroupedSampler(lengths, batch_size, seed=42)
    sampler.set_epoch(epoch)
    assert Counter(sampler) == Counter(range(len(lengths)))
    assert len(sampler) == len(lengths)


@given(LENGTHS, SIZES)
def test_sampler_order_depends_on_seed_and_epoch_alone(lengths, batch_size):
    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthGroupedSampler(lengths, batch_size, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)


@given(LENGTHS, SIZES)
def test_sampler_batches_are_neighbours_in_length(lengths, batch_size):
    """Inside a pool no example lies between the shortest and the longest of another's batch."""
    order = list(LengthGroupedSampler(lengths, batch_size, seed=0))
    if len(lengths) > LengthGroupedSampler.POOL * batch_size:
        return
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    ranges = sorted((min(b), max(b)) for b in ([lengths[i] for i in batch] for batch in batches))
    assert all(first[1] <= second[0] for first, second in pairwise(ranges))


def test_sampler_orders_differ_between_epochs_and_seeds():
    orders = set()
    for seed in (1, 2):
        for epoch in (0, 1):
            sampler = LengthGroupedSampler(range(200), 4, seed=seed)
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 4


def test_sampler_puts_the_incomplete_batch_last():
    lengths = [10] * 5 + [1] * 4
    order = list(LengthGroupedSampler(lengths, 4, seed=0))
    batches = [order[0:4], order[4:8], order[8:]]
    assert len(batches) == math.ceil(len(lengths) / 4)
    assert lengths[batches[2][0]] == 10


def test_trainer_groups_by_length_when_asked(build_model, tmp_path):
    model = build_model()
    trainer = build_trainer(model, build_examples(model, 6), tmp_path)
    assert not isinstance(trainer._get_train_sampler(), LengthGroupedSampler)
    trainer._group_by_length = True
    assert isinstance(trainer._get_train_sampler(), LengthGroupedSampler)


def test_order_of_a_step_does_not_depend_on_how_it_is_cut(build_model, tmp_path):
    model = build_model()
    examples = build_examples(model, 23)

    def steps(batch_size: int, accumulation: int) -> list[set[int]]:
        trainer = build_trainer(
            model,
            examples,
            tmp_path,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        trainer._group_by_length = True
        order = list(trainer._get_train_sampler())
        return [set(order[first : first + 8]) for first in range(0, len(order), 8)]

    assert steps(8, 1) == steps(2, 4) == steps(4, 2)
    assert steps(8, 1) != steps(4, 1)


def test_example_dataset_gives_the_examples():
    examples = [TokenizedExample([1, 2, 3], 2), TokenizedExample([4, 5], 1)]
    dataset = ExampleDataset(examples)
    assert [dataset[index] for index in range(len(dataset))] == examples
