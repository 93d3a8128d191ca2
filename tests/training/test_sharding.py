from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open

from tests.training.sharded_ranks import observe
from tests.training.small_runs import build_small_settings
from tripletune.errors import ConfigError, ModelError
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loading import load_model
from tripletune.training import sharding
from tripletune.training.acceleration import accelerate_layers
from tripletune.training.adapters import add_lora
from tripletune.training.offload import offload_activations
from tripletune.training.run import TrainingRun
from tripletune.training.sharding import (
    count_bytes,
    load_sharded,
    lockstep,
    shard_frozen_weights,
)

SCRIPT = Path(__file__).with_name("sharded_ranks.py")


def start_two(*arguments: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_process_without_torchrun_is_told_to_start_several(tmp_path, tiny_model_dir):
    run = TrainingRun(build_small_settings(tmp_path, tiny_model_dir, fsdp=True))
    with pytest.raises(ConfigError, match=r"fsdp: True, and torchrun did not start .*--fsdp"):
        run.setup_model_and_tokenizer()


def test_eight_bit_products_are_refused(tmp_path, tiny_model_dir, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    settings = build_small_settings(tmp_path, tiny_model_dir, fsdp=True, compute="fp8")
    with pytest.raises(ConfigError, match="compute: 'fp8' needs whole weights"):
        TrainingRun(settings).setup_model_and_tokenizer()


def test_packed_weights_in_bytes_are_refused(tmp_path, tiny_model_dir):
    run = TrainingRun(build_small_settings(tmp_path, tiny_model_dir, load_in_4bit=True))
    run.setup_model_and_tokenizer()
    with pytest.raises(ConfigError, match=r"bnb_4bit_quant_storage: .* in torch.uint8; only t"):
        shard_frozen_weights(run.model, None, torch.device("cpu"))


def test_lockstep_of_a_whole_model_asks_nobody(tmp_path):
    with lockstep(torch.nn.Linear(2, 2)):
        pass


def count_block_bytes(folder: Path) -> int:
    """Bytes of the model's blocks: NF4 for their matrices, bf16 for the rest."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        shapes = {n: file.get_slice(n).get_shape() for n in list(file.keys()) if ".layers." in n}
    return sum(
        math.prod(shape) // 2 if len(shape) == 2 else 2 * math.prod(shape)
        for shape in shapes.values()
    )


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def load_packed(folder: Path) -> Any:
    torch.manual_seed(0)  # of the adapter
    model = load_model(str(folder), quantize=True, device="cpu", quant_storage=torch.float32)
    names = ("query_key_value",)
    return add_lora(model, rank=2, alpha=4, dropout=0.0, target_modules=names, model_name="tiny")


def test_weights_that_change_when_they_are_gathered_are_refused(alone, tiny_model_dir, monkeypatch):
    cut = sharding._lay_packed_weights_open

    def cut_and_change(model: Any, device: torch.device) -> None:
        cut(model, device)
        with torch.no_grad():
            # As a copy that makes every NaN the same one does.
            model.get_base_model().transformer.layers[1].mlp.dense_4h_to_h.weight[3] = math.nan

    monkeypatch.setattr(sharding, "_lay_packed_weights_open", cut_and_change)
    with pytest.raises(ModelError, match=r"fsdp: the packed weight of mlp\.dense_4h_to_h has chan"):
        load_sharded(lambda: load_packed(tiny_model_dir), torch.device("cpu"))


def test_sharing_with_nobody_changes_nothing(alone, tiny_model_dir):
    whole, shared = load_packed(tiny_model_dir), load_packed(tiny_model_dir)
    shared = load_sharded(lambda: shared, torch.device("cpu"))
    for model in (whole, shared):
        accelerate_layers(model, keep_weights=False)
    config = whole.get_base_model().config
    ids = torch.tensor([[5, 6, config.gmask_token_id, config.bos_token_id, 9]])
    with torch.no_grad():
        expected, actual = (model(input_ids=ids).logits for model in (whole, shared))
    assert torch.equal(actual, expected)
    assert sum(count_bytes(shared)) > sum(count_bytes(whole)) == count_bytes(shared)[0]


def test_shared_weights_go_with_offloaded_activations(alone, tiny_model_dir):
    whole, shared = load_packed(tiny_model_dir), load_packed(tiny_model_dir)
    shared = load_sharded(lambda: shared, torch.device("cpu"))
    for model in (whole, shared):
        accelerate_layers(model, keep_weights=False)
    offload_activations(shared.get_base_model())
    config = whole.get_base_model().config
    ids = torch.tensor([[5, 6, config.gmask_token_id, config.bos_token_id, 9]])
    for model in (whole, shared):
        model(input_ids=ids, labels=ids).loss.backward()
    expected, actual = (
        [p.grad for p in model.parameters() if p.requires_grad] for model in (whole, shared)
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.slow
def test_two_processes_share_the_weights_and_see_the_whole_model(tmp_path, tiny_model_dir):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    config = ChatGLMConfig.from_pretrained(
        tiny_model_dir, num_layers=4, num_hidden_layers=4, tie_word_embeddings=False
    )
    torch.manual_seed(0)
    ChatGLMForConditionalGeneration(config).save_pretrained(folder)
    start_two(SCRIPT, tmp_path, folder)
    seen = [json.loads((tmp_path / f"seen{rank}.json").read_text()) for rank in (0, 1)]
    blocks = count_block_bytes(folder)
    embeddings = 2 * config.vocab_size * config.hidden_size
    for rank in (0, 1):
        whole = observe(tmp_path, folder, rank=rank)
        (held, gathered), (held_alone, _) = seen[rank].pop("bytes"), whole.pop("bytes")
        # Half of the blocks and of the embeddings lie elsewhere; one of them at a time is gathered.
        assert held == held_alone - (blocks + embeddings) // 2
        assert gathered == embeddings
        for name in ("losses", "gradients", "evaluation"):
            assert seen[rank].pop(name) == pytest.approx(whole.pop(name), rel=1e-5)
        assert seen[rank] == json.loads(json.dumps(whole))
