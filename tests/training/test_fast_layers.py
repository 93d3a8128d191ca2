from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tests.training.graphs import collect_graphs, compile_with
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.nf4 import dequantize_nf4
from tripletune.training.adapters import add_lora
from tripletune.training.fast_layers import compile_blocks, speed_up_linear_layers
from tripletune.training.recompute import checkpoint_blocks

IDS = torch.tensor([[5, 6, 7, 31, 34, 9, 10, 11, 35]])
LABELS = torch.tensor([[-100] * 5 + [9, 10, 11, 35]])


def make_model(*, dropout: float = 0.0, targets="all-linear"):
    """A PEFT model over an NF4 base, on the CPU, with LoRA weights that are not zero."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    config = ChatGLMConfig(
        vocab_size=40, hidden_size=64, num_layers=2, num_attention_heads=2, inner_hidden_size=128,
        mask_token_id=30, gmask_token_id=31, bos_token_id=34, eos_token_id=35,
    )  # fmt: skip
    model = ChatGLMForConditionalGeneration(config)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            quantised = bnb.nn.Linear4bit(
                module.in_features, module.out_features, quant_type="nf4",
                compute_dtype=torch.float32, compress_statistics=True,
            )  # fmt: skip
            quantised.load_state_dict(module.state_dict())
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], quantised.to("cpu"))
            quantised.weight = bnb.nn.Params4bit(
                module.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            ).to("cpu")
    model = add_lora(
        model, rank=4, alpha=8, dropout=dropout, target_modules=targets, model_name="tiny"
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def loss_and_gradients(model):
    model.zero_grad()
    loss = model(input_ids=IDS, labels=LABELS).loss
    loss.backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in trained}


@pytest.mark.parametrize("keep_weights", [True, False])
def test_fast_layers_give_the_same_loss_and_gradients(keep_weights):
    model = make_model()
    expected_loss, expected = loss_and_gradients(model)
    changed = speed_up_linear_layers(model, dtype=torch.float32, keep_weights=keep_weights)
    assert changed == 8
    loss, gradients = loss_and_gradients(model)
    torch.testing.assert_close(loss, expected_loss)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_fast_layers_change_nothing_that_is_saved():
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=True)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_disabled_adapter_gives_the_base_model():
    model = make_model()
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False)
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        disabled = model(input_ids=IDS).logits
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
        zeroed = model(input_ids=IDS).logits
    torch.testing.assert_close(disabled, zeroed)


def test_changing_twice_changes_nothing_more():
    model = make_model()
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False)
    assert speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False) == 0


def test_compile_blocks_counts_every_block():
    with torch.compiler.set_stance("force_eager"):
        model = make_model()
        expected, _ = loss_and_gradients(model)
        assert compile_blocks(model) == 2
        loss, _ = loss_and_gradients(model)
    torch.testing.assert_close(loss, expected)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
def test_blocks_are_compiled_once_for_rows_of_every_length(monkeypatch):
    collect, graphs = collect_graphs()
    compile_with(collect, monkeypatch)
    model = make_model()
    compile_blocks(model)
    model.train()
    counts = []
    # 64 and 256 are sizes of the network and of NF4's tables, too.
    for length in (9, 64, 256, 100):
        ids = torch.full((1, length), 7)
        ids[0, -4:-2] = torch.tensor([31, 34])
        model(input_ids=ids, labels=ids, num_labels=length - 1).loss.backward()
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts == [counts[0]] * 4


@pytest.fixture
def compiled_halves(monkeypatch):
    """Compiles without a backend; gives the graphs of both passes, and the calls of the first."""
    from functorch.compile import min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd

    halves = {"forward": [], "backward": [], "calls": []}

    def note(half):
        def take(graph, inputs):
            halves[half].append([str(node.target) for node in graph.graph.nodes])

            def run(*args):
                if half == "forward":
                    halves["calls"].append(len(args))
                return graph.forward(*args)

            return run

        return take

    backend = aot_autograd(
        fw_compiler=note("forward"), bw_compiler=note("backward"),
        partition_fn=min_cut_rematerialization_partition,
    )  # fmt: skip
    compile_with(backend, monkeypatch)
    return halves


def count_products(graphs):
    return [sum("aten.mm" in name or "aten.addmm" in name for name in graph) for graph in graphs]


@pytest.fixture
def compiled(compiled_halves):
    """A model whose compiled blocks ran once; its loss and gradients before and that time."""
    model = make_model(targets=["query_key_value"]).train()
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False)
    before = loss_and_gradients(model)
    compile_blocks(model)
    return model, before, loss_and_gradients(model)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
def test_compiled_blocks_compute_all_again_but_their_last_product(compiled, compiled_halves):
    model, (expected, gradients), (kept, _) = compiled
    products = count_products(compiled_halves["backward"])
    checkpoint_blocks(model, 2)
    loss, recomputed = loss_and_gradients(model)
    more = count_products(compiled_halves["backward"][len(products) :])
    # Four frozen products forward and two of LoRA; gradients need the results of all but the last.
    assert more == [count + 5 for count in products]
    torch.testing.assert_close([kept, loss], [expected, expected])
    torch.testing.assert_close(recomputed, gradients)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
def test_compiled_blocks_drop_the_same_when_computed_again(compiled_halves):
    model = make_model(dropout=0.5).train()
    torch.manual_seed(3)
    expected, gradients = loss_and_gradients(model)
    compile_blocks(model)
    checkpoint_blocks(model, 2)
    torch.manual_seed(3)
    loss, recomputed = loss_and_gradients(model)
    assert len(compiled_halves["backward"]) == len(compiled_halves["calls"]) == 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(recomputed, gradients)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
def test_compiled_blocks_checkpointed_by_others_are_so_from_outside(compiled, compiled_halves):
    model, (expected, gradients), _ = compiled
    products = count_products(compiled_halves["backward"])
    assert len(compiled_halves["calls"]) == 2
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss, recomputed = loss_and_gradients(model)
    assert len(compiled_halves["calls"]) == 2 + 4, "two blocks, computed twice"
    # The first block is compiled once more: its input has a gradient now.
    assert count_products(compiled_halves["backward"]) == [*products, products[1]]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(recomputed, gradients)


def build_llama():
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def build_gpt2():
    """Whose blocks are given the cache by place."""
    config = GPT2Config(
        vocab_size=40, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
@pytest.mark.parametrize("build", [build_llama, build_gpt2])
def test_checkpointed_blocks_write_no_cache(build, compiled_halves):
    torch.manual_seed(0)
    model = build().train()
    assert model.config.use_cache
    expected, gradients = loss_and_gradients(model)
    compile_blocks(model)
    checkpoint_blocks(model, 2)
    loss, recomputed = loss_and_gradients(model)
    assert compiled_halves["calls"]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(recomputed, gradients)


def test_weight_is_made_again_for_the_backward_pass_also_for_a_compiler(monkeypatch):
    # Two calls alike are one to a compiler, which then keeps the weight: 11 GB of ChatGLM-6B.
    calls = []

    def record(packed, state, dtype, **kwargs):
        calls.append(kwargs)
        return dequantize_nf4(packed, state, dtype, **kwargs)

    monkeypatch.setattr("tripletune.training.fast_layers.dequantize_nf4", record)
    model = make_model()
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False)
    loss_and_gradients(model)
    assert calls[:8] == [{}] * 8
    # The first layer's projection needs no gradient of its input: nothing before it is trained.
    assert calls[8:] in ([{"again": True}] * 8, [{"again": True}] * 7)


def test_dequantize_falls_back_to_bitsandbytes_on_the_cpu():
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(torch.randn(64, 64), quant_type="nf4", compress_statistics=True)
    weight = dequantize_nf4(packed, state, torch.bfloat16)
    assert torch.equal(weight, dequantize_4bit(packed, state).to(torch.bfloat16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 64), (4096, 1024), (320, 192)])
def test_dequantize_kernel_equals_bitsandbytes(dtype, shape):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = torch.randn(shape, device="cuda", dtype=dtype)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    assert torch.equal(dequantize_nf4(packed, state, dtype), dequantize_4bit(packed, state))
