from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.training.test_fast_layers import IDS, LABELS, make_model
from tripletune.data.collate import PackedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.loading import find_position_scheme
from tripletune.models.quantization import quantize_linear_layers
from tripletune.training import acceleration
from tripletune.training.acceleration import accelerate_layers, speed_up_network
from tripletune.training.adapters import add_lora
from tripletune.training.fast_layers import speed_up_linear_layers
from tripletune.training.recompute import checkpoint_blocks


def run(model) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and bytes that the forward pass saved."""
    saved = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    model.zero_grad()
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=IDS, labels=LABELS).loss
    before = saved
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, before


@pytest.fixture(scope="module")
def model():
    model = make_model(dropout=0.5)
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False)
    return model.train()


@pytest.mark.parametrize("count", [1, 2])
def test_recomputing_changes_no_loss_and_no_gradient_and_saves_less(model, count):
    assert checkpoint_blocks(model, 0) == 2
    loss, gradients, saved = run(model)
    checkpoint_blocks(model, count)
    again, same, less = run(model)
    assert again == loss
    assert same.keys() == gradients.keys()
    assert all(torch.equal(same[name], gradients[name]) for name in gradients)
    assert less < saved


def test_each_block_more_saves_less(model):
    saved = []
    for count in range(3):
        checkpoint_blocks(model, count)
        saved.append(run(model)[2])
    assert saved == sorted(saved, reverse=True)
    assert len(set(saved)) == 3


def build_wide_chatglm():
    """Blocks of 4,096 features, which LoRA's kernels begin with, in NF4 on the GPU."""
    config = ChatGLMConfig(
        vocab_size=64, hidden_size=4096, num_layers=2, num_attention_heads=32,
        inner_hidden_size=4096, mask_token_id=30, gmask_token_id=31, bos_token_id=34,
        eos_token_id=35,
    )  # fmt: skip
    return ChatGLMForConditionalGeneration(config), ["query_key_value"]


def build_flexible_llama():
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    return LlamaForCausalLM(config), ["o_proj"]  # one: several may draw in another order


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
@pytest.mark.parametrize(
    ("build", "packed_kernels"),
    [(build_wide_chatglm, True), (build_flexible_llama, True), (build_flexible_llama, False)],
)
def test_compiled_blocks_recompute_on_a_gpu_what_they_had(build, packed_kernels, monkeypatch):
    monkeypatch.setattr(acceleration, "has_packed_attention", lambda: packed_kernels)
    torch.manual_seed(0)
    base, targets = build()
    base = base.to(device="cuda", dtype=torch.bfloat16)
    quantize_linear_layers(base, dtype=torch.bfloat16)
    model = add_lora(
        base, rank=8, alpha=32, dropout=0.3, target_modules=targets, model_name="tiny"
    ).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    accelerate_layers(model, keep_weights=False)
    speed_up_network(model)
    examples = [TokenizedExample([*range(3, n), 31, 34, *range(4, 12)], n - 1) for n in (9, 20, 25)]
    scheme = find_position_scheme(base)
    batch = PackedCollator(3, scheme, 128, count_labels=True)(examples)
    batch = {k: v.cuda() if torch.is_tensor(v) else v for k, v in batch.items()}

    def pass_once(depth):
        checkpoint_blocks(model, depth)
        model.zero_grad()
        torch.manual_seed(1)
        loss = model(**batch).loss
        loss.backward()
        return loss.detach(), {
            name: parameter.grad for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }  # fmt: skip

    loss, gradients = pass_once(0)
    for depth in (1, 2):
        again, same = pass_once(depth)
        # Half precision rounds where a kernel ends; other masks would differ by more than half.
        torch.testing.assert_close(again, loss, rtol=2e-3, atol=0)
        for name, gradient in gradients.items():
            assert (same[name] - gradient).norm() < 0.05 * gradient.norm(), name
    assert len(gradients) == 4
