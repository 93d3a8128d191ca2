from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.small_runs import build_small_settings, leave_out_slow_parts, train
from tripletune.errors import ResourceError
from tripletune.training.checkpoints import verify_checkpoint
from tripletune.training.guarded_steps import GuardedTrainer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    leave_out_slow_parts(monkeypatch)


@pytest.fixture
def settings(tmp_path, tiny_model_dir):
    return build_small_settings(tmp_path, tiny_model_dir, resume_from_checkpoint="auto")


def test_step_without_finite_loss_changes_nothing_and_is_counted(settings, monkeypatch, caplog):
    weights: dict[int, Any] = {}
    original = GuardedTrainer.compute_loss

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 2 else loss

    def remember(trainer: Any, step: int) -> None:
        adapter = [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]
        weights[step] = torch.cat([p.flatten() for p in adapter])

    monkeypatch.setattr(GuardedTrainer, "compute_loss", poisoned)
    trainer = train(settings.changed(max_steps=5), remember)
    assert torch.equal(weights[2], weights[3])
    assert not torch.equal(weights[3], weights[4])
    assert trainer.skipped_steps == 1
    assert [m for m in caplog.messages if "跳过" in m] == [
        "第 3 步的损失或梯度不是有限数，跳过这一步 (共跳过 1 步)"
    ]
    assert np.isfinite([r["loss"] for r in trainer.state.log_history if "loss" in r]).all()


def test_losses_that_stay_infinite_end_the_run_and_name_the_checkpoint(settings, monkeypatch):
    original = GuardedTrainer.compute_loss

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        return loss * float("inf") if self.state.global_step >= 5 else loss

    monkeypatch.setattr(GuardedTrainer, "compute_loss", poisoned)
    message = r"not finite in 5 steps in a row, up to step 10; .*Last checkpoint: .*checkpoint-8"
    with pytest.raises(ResourceError, match=message):
        train(settings)
    sound = verify_checkpoint(settings.output_dir / "checkpoint-8").path
    for tensor in load_file(sound / "adapter_model.safetensors").values():
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("during", ["forward", "backward"])
def test_training_out_of_memory_goes_on_in_pieces_with_the_same_gradient(
    tmp_path, tiny_model_dir, monkeypatch, caplog, packing, during
):
    settings = build_small_settings(
        tmp_path, tiny_model_dir, max_steps=4, lora_dropout=0.0, packing=packing, batch_size=4
    )
    expected = train(settings.changed(output_dir=tmp_path / "whole"))
    out_of_memory = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    rows_or_tokens: list[int] = []
    original = GuardedTrainer.compute_loss

    def limited(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, model, inputs, *args, **kwargs)
        size = inputs["input_ids"].numel() if packing else len(inputs["input_ids"])
        if self.state.global_step == 2 and self.num_pieces == 1 and len(rows_or_tokens) == 5:
            if during == "forward":
                raise out_of_memory
            loss.backward(retain_graph=True)
            raise out_of_memory
        rows_or_tokens.append(size)
        return loss

    monkeypatch.setattr(GuardedTrainer, "compute_loss", limited)
    trainer = train(settings)
    assert trainer.num_pieces == 2
    (said,) = [m for m in caplog.messages if "显存不足" in m]
    assert "第 3 步的微批次分成 2 份重做" in said
    losses, whole = (
        [r["loss"] for r in t.state.log_history if "loss" in r] for t in (trainer, expected)
    )
    assert losses == pytest.approx(whole, rel=1e-5)
    for name, parameter in expected.model.named_parameters():
        torch.testing.assert_close(trainer.model.get_parameter(name), parameter)


def test_training_out_of_memory_with_one_example_says_what_to_do(settings, monkeypatch):
    def never(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(GuardedTrainer, "compute_loss", never)
    with pytest.raises(ResourceError, match=r"one example does not fit .*--max_source_length"):
        train(settings)
