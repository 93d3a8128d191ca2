from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

import tripletune.extraction.slot_reader as area
from tests.extraction.builders import (
    build_chatglm,
    build_chatglm2,
    build_deepseek,
    build_gemma2,
    build_llama,
    build_mistral,
    build_sliding,
)
from tripletune.extraction.batch_reader import BatchReader
from tripletune.extraction.generate import GenerationOptions, generate_greedy
from tripletune.extraction.slot_reader import SlotReader, supports_slots

BUILDERS = {
    "chatglm": build_chatglm,
    "chatglm2": build_chatglm2,
    "llama": build_llama,
    "gemma2": build_gemma2,
    "gemma3": build_sliding,
    "deepseek": build_deepseek,
}
"""Gemma 2 caps its scores and DeepSeek's keys are wider than its values, so that they are given
masks instead of runs."""

WIDE = {
    "chatglm": {"hidden_size": 128, "inner_hidden_size": 256},
    "chatglm2": {"kv_channels": 16},
    "llama": {"head_dim": 32},
    "gemma3": {"head_dim": 16},
}
"""With heads of a width that there are kernels for."""

WAITING = {
    "aten._local_scalar_dense",
    "aten.is_nonzero",
    "aten.nonzero",
    "aten.masked_select",
    "aten.lift_fresh",
}
"""Operators for which the host waits, or copies from it."""


class Recording(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (build_chatglm, True),
        (build_chatglm2, True),
        (build_llama, True),
        (build_sliding, True),
        (build_gemma2, True),
        (build_mistral, False),
    ],
)
def test_supports_slots_excludes_windows_that_no_mask_tells(build: Any, expected: bool) -> None:
    assert supports_slots(build()) is expected


def test_slot_reader_takes_a_prompt_into_a_slot_that_was_used() -> None:
    model = build_llama()
    with torch.no_grad():
        reader = SlotReader(model, num_slots=2, num_places=70, pad_token_id=3)
        reader.read_prompts([0, 1], [[5, 6, 7], [8]])
        for token in (9, 10):
            reader.set_tokens([0, 1], torch.tensor([token, token + 10]))
            reader.step()
        first = reader.read_prompts([0], [[11, 12]])
        reader.set_tokens([0, 1], torch.tensor([13, 21]))
        logits = reader.step()
        rows = [[11, 12], [11, 12, 13], [8, 19, 20, 21]]
        expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(first[0], expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, torch.stack(expected[1:]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_prompt_that_comes_several_times_is_read_once(name: str) -> None:
    model = BUILDERS[name]()
    once, twice = [5, 31, 32], [6, 7, 31, 32]
    numbers_read = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: numbers_read.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    with torch.no_grad():
        reader = SlotReader(model, num_slots=3, num_places=70, pad_token_id=3)
        first = reader.read_prompts([2, 0, 1], [twice, once, twice])
        assert numbers_read == [2]
        reader.set_tokens([0, 1, 2], torch.tensor([8, 9, 10]))
        logits = reader.step()
        ahead = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in (twice, once)]
        rows = [[*once, 8], [*twice, 9], [*twice, 10]]
        expected = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(first, torch.stack([ahead[0], ahead[1], ahead[0]]), **close)
    torch.testing.assert_close(logits, torch.stack(expected), **close)


def test_slot_reader_keeps_the_slots_that_are_named() -> None:
    model = build_chatglm()
    with torch.no_grad():
        reader = SlotReader(model, num_slots=3, num_places=70, pad_token_id=3)
        prompts = [[5, 31, 32], [6, 7, 31, 32], [8, 31, 32]]
        reader.read_prompts([0, 1, 2], prompts)
        reader.select([2, 1])
        assert reader.num_slots == 2
        reader.set_tokens([0, 1], torch.tensor([9, 10]))
        logits = reader.step()
        rows = [[*prompts[2], 9], [*prompts[1], 10]]
        expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_adapted_model_reads_as_its_merged_one_and_keeps_its_attention() -> None:
    torch.manual_seed(0)
    adapter = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(build_llama(), adapter).eval()
    written = generate(model, use_cuda_graphs=False)
    assert model.get_base_model().config._attn_implementation == "sdpa"
    assert written == generate(model.merge_and_unload(), use_cuda_graphs=False)
    assert written != generate(build_llama(), use_cuda_graphs=False)


@pytest.mark.parametrize("name", BUILDERS)
def test_step_reads_nothing_back_and_copies_nothing_in(name: str) -> None:
    """What cannot be recorded in a CUDA graph, and would make the host wait without one."""
    with torch.inference_mode():
        reader = SlotReader(BUILDERS[name](), num_slots=2, num_places=70, pad_token_id=3)
        reader.read_prompts([0, 1], [[5, 6, 31, 32], [8, 31, 32]])
        reader.set_tokens([0, 1], torch.tensor([9, 10]))
        with Recording() as recording:
            reader.step()
    assert "aten.embedding" in recording.names, "nothing was recorded; the test shows nothing"
    assert not recording.names & WAITING


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("name", BUILDERS)
def test_prompts_are_read_without_asking_the_device(
    name: str, both_ways: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host knows of them beforehand, it looks up on the host."""
    recording = Recording()
    forward = BatchReader._forward

    def record(self: BatchReader, input_ids: torch.Tensor, mask: Any) -> torch.Tensor:
        with recording:
            return forward(self, input_ids, mask)

    monkeypatch.setattr(BatchReader, "_forward", record)
    with torch.inference_mode():
        reader = SlotReader(
            BUILDERS[name](), num_slots=2, num_places=70, pad_token_id=3,
            bidirectional_prompt=both_ways,
        )  # fmt: skip
        reader.read_prompts([0, 1], [[5, 6, 31, 32], [8, 31, 32]])
    assert "aten.embedding" in recording.names, "nothing was recorded; the test shows nothing"
    assert not recording.names & WAITING


@pytest.mark.parametrize("name", ["chatglm2", "gemma3"])
def test_slots_write_what_a_batch_writes_about_prompts_read_both_ways(name: str) -> None:
    model = BUILDERS[name]()
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12], [13, 14], [15, 16, 17, 18]]
    written = {}
    for method in ("batch", "slots"):
        for both_ways in (False, True):
            options = GenerationOptions(
                end_token_id=33, pad_token_id=3, max_new_tokens=12, batch_size=2,
                method=method, bidirectional_prompt=both_ways,
            )  # fmt: skip
            answers = generate_greedy(model, prompts, options)
            written[method, both_ways] = [answer.log_probabilities for answer in answers]
    for found, expected in zip(written["slots", True], written["batch", True], strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    first = [[answer[0] for answer in written["slots", way]] for way in (False, True)]
    assert first[0] != pytest.approx(first[1], abs=1e-2)


def generate(model: Any, *, use_cuda_graphs: bool) -> list[tuple[int, ...]]:
    """Answers of up to 24 tokens; at the end half of the slots are free."""
    generator = torch.Generator().manual_seed(7)
    prompts = [
        [*torch.randint(4, 29, (2 + 7 * number % 60,), generator=generator).tolist(), 31, 32]
        for number in range(72)
    ]
    options = GenerationOptions(
        end_token_id=33,
        pad_token_id=3,
        max_new_tokens=24,
        batch_size=16,
        method="slots",
        use_cuda_graphs=use_cuda_graphs,
    )
    return [result.token_ids for result in generate_greedy(model, prompts, options)]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(Slots, places that are looked at) of each record that is made."""
    shapes: list[tuple[int, int]] = []
    record = SlotReader._record

    def note(self: SlotReader, length: int) -> Any:
        shapes.append((self.num_slots, length))
        return record(self, length)

    monkeypatch.setattr(SlotReader, "_record", note)
    return shapes


ALL_SHAPES = [(16, 128), (16, 64), (8, 64)]


@pytest.mark.parametrize("name", BUILDERS)
def test_each_shape_is_recorded_once(
    name: str, recorded: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With records that run the step as it is, in place of CUDA graphs."""
    monkeypatch.setattr(area, "can_record", lambda device: True)
    monkeypatch.setattr(
        area, "record_step", lambda step, device, pool: SimpleNamespace(replay=step)
    )
    made_room: list[torch.device] = []
    monkeypatch.setattr(area, "make_room", made_room.append)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    model = BUILDERS[name]()
    plain = generate(model, use_cuda_graphs=False)
    assert not recorded
    assert generate(model, use_cuda_graphs=True) == plain
    assert recorded == ALL_SHAPES
    assert len(made_room) == 3, "once for the first step of each shape"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        *((name, "fp32") for name in (*WIDE, "gemma2")),
        ("chatglm", "nf4"),
        ("chatglm", "expanded nf4"),
    ],
)
def test_recorded_steps_write_what_plain_steps_write(
    name: str, weights: str, recorded: list[tuple[int, int]]
) -> None:
    model = BUILDERS[name](**WIDE.get(name, {})).cuda()
    if "nf4" in weights:
        pytest.importorskip("bitsandbytes")
        from tripletune.models.nf4_products import expand_for_many_tokens
        from tripletune.models.quantization import quantize_linear_layers

        model = model.to(torch.bfloat16)
        assert quantize_linear_layers(model, dtype=torch.bfloat16)
        assert weights == "nf4" or expand_for_many_tokens(model, fewest_tokens=1)
    plain = generate(model, use_cuda_graphs=False)
    assert not recorded
    assert generate(model, use_cuda_graphs=True) == plain
    # Kernels look at a slot's own places, so that its length makes no other shape.
    assert recorded == ([(16, 128), (8, 128)] if name in WIDE else ALL_SHAPES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WIDE)
def test_slots_read_on_a_gpu_what_whole_rows_read(
    name: str, dtype: torch.dtype, both_ways: bool
) -> None:
    """Kernels are as near to the network in fp32 as a batch of rows in the same dtype is."""
    exact = BUILDERS[name](**WIDE[name]).cuda()
    model = BUILDERS[name](**WIDE[name]).cuda().to(dtype)
    prompts = [[*range(4, 4 + count), 31, 32] for count in (9, 2, 17, 5)]
    answers = [[7, 19, 11], [23, 5, 8], [9, 9, 14], [28, 6, 21]]
    found = {}
    for key, network, reader_class in (
        ("expected", exact, BatchReader), ("rows", model, BatchReader), ("slots", model, SlotReader)
    ):  # fmt: skip
        found[key] = read_along(network, reader_class, prompts, answers, both_ways)
    distance = {
        key: (found[key] - found["expected"]).norm() / found["expected"].norm()
        for key in ("rows", "slots")
    }
    assert distance["slots"] <= (1e-5 if dtype == torch.float32 else 1.5 * distance["rows"])


def read_along(
    model: Any, reader_class: Any, prompts: Any, answers: Any, both_ways: bool
) -> torch.Tensor:
    """Logits after the prompt and each token of the answer, (1 + T, B, V)."""
    with torch.inference_mode():
        if reader_class is BatchReader:
            rows = BatchReader(model, prompts, 3, bidirectional_prompt=both_ways)
            logits = [rows.read_prompts()]
            steps = list(zip(*answers, strict=True))
            logits += [rows.read_tokens([[token] for token in step]) for step in steps]
        else:
            slots = SlotReader(
                model, num_slots=len(prompts), num_places=70, pad_token_id=3,
                bidirectional_prompt=both_ways,
            )  # fmt: skip
            everyone = list(range(len(prompts)))
            logits = [slots.read_prompts(everyone, prompts)]
            for step in zip(*answers, strict=True):
                slots.set_tokens(everyone, torch.tensor(step, device=model.device))
                logits.append(slots.step())
        return torch.stack(logits).float()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_steps_are_recorded_on_the_gpu_of_the_model() -> None:
    first, second = (BUILDERS["chatglm"]().to(f"cuda:{number}") for number in (0, 1))
    assert torch.cuda.current_device() == 0
    expected = generate(first, use_cuda_graphs=False)
    assert generate(second, use_cuda_graphs=True) == expected
    assert torch.cuda.current_device() == 0


def test_step_goes_on_without_a_record_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_llama()
    expected = generate(model, use_cuda_graphs=False)

    def fail(self: SlotReader, length: int) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(SlotReader, "_record", fail)
    monkeypatch.setattr(area, "can_record", lambda device: True)
    monkeypatch.setattr(area, "make_room", lambda device: None)
    with pytest.warns(UserWarning, match=r"cannot be recorded \(operation not permitted .*\)"):
        assert generate(model, use_cuda_graphs=True) == expected
