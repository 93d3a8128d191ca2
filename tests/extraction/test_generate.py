from __future__ import annotations

import gc
from functools import wraps
from typing import Any

import pytest
import torch

import tripletune.extraction.generate as area
from tests.extraction.builders import (
    build_chatglm,
    build_chatglm2,
    build_gemma2,
    build_llama,
    build_mistral,
    build_qwen3,
    build_sliding,
)
from tests.extraction.scripted_guide import ScriptedGuide
from tripletune.errors import ConfigError
from tripletune.extraction.batch_reader import BatchReader
from tripletune.extraction.generate import GenerationOptions, generate_greedy

NUM_NEW = 12
BUILDERS = {
    "chatglm": build_chatglm,
    "chatglm2": build_chatglm2,
    "llama": build_llama,
    "gemma3": build_sliding,
    "gemma2": build_gemma2,
    "qwen3": build_qwen3,
}


def make_prompts(name: str, lengths: tuple[int, ...] = (3, 9, 1, 6, 14, 2, 5)) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    tail = [31, 32] if name == "chatglm" else []
    return [
        torch.randint(4, 29, (length,), generator=generator).tolist() + tail for length in lengths
    ]


def run_stock(model: Any, prompt: list[int], end_token_id: int) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=NUM_NEW,
        eos_token_id=end_token_id,
        pad_token_id=3,
    )
    written: list[int] = output[0, len(prompt) :].tolist()
    return written


def make_options(**changes: Any) -> GenerationOptions:
    values = {"end_token_id": 33, "pad_token_id": 3, "max_new_tokens": NUM_NEW, "batch_size": 3}
    return GenerationOptions(**{**values, **changes})


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, "batch") for name in BUILDERS] + [(name, "slots") for name in BUILDERS],
)
def test_generate_greedy_writes_what_stock_generate_writes(name: str, method: str) -> None:
    model = BUILDERS[name]()
    prompts = make_prompts(name)
    end = run_stock(model, prompts[1], end_token_id=39)[4]
    results = generate_greedy(model, prompts, make_options(end_token_id=end, method=method))
    expected = [run_stock(model, prompt, end) for prompt in prompts]
    written = [[*r.token_ids, *([end] if r.is_complete else [])] for r in results]
    assert written == expected
    assert len({len(ids) for ids in expected}) > 1, "no row ends early; the test shows nothing"


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_generate_greedy_gives_the_log_probability_of_each_token(method: str) -> None:
    model = build_llama()
    prompt = [5, 6, 7]
    (result,) = generate_greedy(model, [prompt], make_options(max_new_tokens=4, method=method))
    ids = torch.tensor([[*prompt, *result.token_ids, *([33] if result.is_complete else [])]])
    with torch.no_grad():
        scores = model(ids).logits.log_softmax(-1)[0]
    expected = [float(scores[2 + i, ids[0, 3 + i]]) for i in range(len(result.log_probabilities))]
    assert result.log_probabilities == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["chatglm", "llama", "gemma3"])
@pytest.mark.parametrize("method", ["batch", "slots"])
def test_generate_greedy_reads_forced_tokens_like_chosen_ones(name: str, method: str) -> None:
    model = BUILDERS[name]()
    prompts = make_prompts(name)
    free, forced = list(range(4, 29)), [[11], [12], [13]]
    guides = [ScriptedGuide([free, *forced, free, free]) for _ in prompts]
    results = generate_greedy(model, prompts, make_options(method=method), guides=guides)
    for prompt, result in zip(prompts, results, strict=True):
        written = list(result.token_ids)
        assert written[1:4] == [11, 12, 13]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 :]
        for place in (0, 4, 5):
            assert written[place] == free[int(logits[place, free].argmax())]
        assert result.log_probabilities[1:4] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_generate_greedy_ends_a_row_whose_guide_allows_nothing(method: str) -> None:
    guides = [ScriptedGuide([[5, 6]]), ScriptedGuide([])]
    results = generate_greedy(build_llama(), [[5], [6]], make_options(method=method), guides=guides)
    assert [(len(r.token_ids), r.is_complete) for r in results] == [(1, True), (0, True)]


def test_generate_greedy_tells_tokens_as_they_come() -> None:
    heard: list[tuple[int, int]] = []
    results = generate_greedy(
        build_llama(),
        [[5], [6, 7]],
        make_options(max_new_tokens=5, end_token_id=99),
        on_token=lambda index, token, score: heard.append((index, token)),
    )
    for index, result in enumerate(results):
        assert [token for row, token in heard if row == index] == list(result.token_ids)


def test_generate_greedy_restores_training_mode() -> None:
    model = build_llama().train()
    generate_greedy(model, [[5]], make_options(max_new_tokens=2))
    assert model.training


def test_generate_greedy_refuses_an_empty_prompt() -> None:
    with pytest.raises(ConfigError, match="number 1 is empty"):
        generate_greedy(build_llama(), [[5], []], make_options())


def test_generate_greedy_refuses_slots_for_a_sliding_window() -> None:
    with pytest.raises(ConfigError, match="'slots' does not fit MistralForCausalLM"):
        generate_greedy(build_mistral(), [[5]], make_options(method="slots"))


class EndingGuide:
    """Allows everything and ends after some tokens."""

    def __init__(self, count: int) -> None:
        self.left = count

    @property
    def is_finished(self) -> bool:
        return self.left == 0

    def prepare(self) -> None:
        pass

    def allowed(self) -> None:
        return None

    def advance(self, token_id: int) -> None:
        self.left -= 1


@pytest.mark.parametrize(("method", "num_steps"), [("batch", 4), ("slots", 5)])
def test_generate_greedy_ends_a_row_as_soon_as_its_guide_is_finished(
    method: str, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_llama()
    widths: list[int] = []
    forward = model.forward

    @wraps(forward)
    def count(**inputs: Any) -> Any:
        widths.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", count)
    guides = [EndingGuide(2), EndingGuide(4), EndingGuide(2)]
    options = make_options(end_token_id=99, method=method)
    results = generate_greedy(model, [[5], [6], [7]], options, guides=guides)
    assert [(len(r.token_ids), r.is_complete) for r in results] == [(2, True), (4, True), (2, True)]
    assert len(widths) == num_steps
    assert widths[-1] == (1 if method == "batch" else 3)


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_generate_greedy_holds_each_row_to_its_own_limit(method: str) -> None:
    prompts = make_prompts("llama")
    limits = [1, 2, 3, 4, 5, 6, 90]
    results = generate_greedy(
        build_llama(), prompts, make_options(end_token_id=99, method=method), limits=limits
    )
    assert [(len(r.token_ids), r.is_complete) for r in results] == [(n, False) for n in limits]


def test_generate_greedy_pauses_the_collector_for_as_long_as_it_runs() -> None:
    seen: list[bool] = []
    options = make_options(max_new_tokens=2)
    assert gc.isenabled()
    generate_greedy(build_llama(), [[5]], options, on_token=lambda *_: seen.append(gc.isenabled()))
    assert seen == [False, False]
    assert gc.isenabled()


@pytest.mark.parametrize("method", ["batch", "slots"])
def test_seeds_draw_tokens_as_likely_as_the_model_finds_them(method: str) -> None:
    model, ids, count = build_llama(), [4, 9, 17, 25], 600
    prompt = make_prompts("llama")[0]
    guides = [ScriptedGuide([ids]) for _ in range(count)]
    drawn = generate_greedy(
        model, [prompt] * count, make_options(method=method, batch_size=64),
        guides=guides, seeds=list(range(count)),
    )  # fmt: skip
    logits = model(torch.tensor([prompt])).logits[0, -1, ids].detach().double()
    expected = logits.softmax(dim=-1)
    tokens = torch.tensor([result.token_ids[0] for result in drawn])
    shares = torch.stack([(tokens == token).double().mean() for token in ids])
    assert (shares - expected).abs().max() < 4 * 0.5 / count**0.5  # four standard deviations
    for result in drawn[:20]:
        place = ids.index(result.token_ids[0])
        assert result.log_probabilities[0] == pytest.approx(float(expected[place].log()), abs=1e-4)


def test_drawn_tokens_do_not_depend_on_batch_method_or_order() -> None:
    model = build_chatglm()
    prompts = make_prompts("chatglm")
    sets = [[5, 6, 7, 8], [9], [10, 11, 12], [13], [14], [5, 15, 20, 25], [7, 8]]

    def draw(order: list[int], **options: Any) -> dict[int, tuple[int, ...]]:
        results = generate_greedy(
            model, [prompts[i] for i in order], make_options(**options),
            guides=[ScriptedGuide(sets) for _ in order], seeds=[1000 + i for i in order],
        )  # fmt: skip
        return {i: result.token_ids for i, result in zip(order, results, strict=True)}

    order = list(range(len(prompts)))
    expected = draw(order, method="batch", batch_size=1)
    assert len(set(expected.values())) > 1
    assert draw(order[::-1], method="batch", batch_size=4) == expected
    assert draw(order, method="slots", batch_size=3) == expected


def test_batches_are_as_large_as_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area, "count_slots", lambda model, places, room: 4)
    # Prompts of 14 tokens: two at a time; of 3 and fewer: four.
    monkeypatch.setattr(area, "count_prompt_tokens", lambda model, slots, places, room: 29)
    model = build_llama()
    sizes: list[int] = []
    plain = BatchReader.read_prompts

    def note(self: BatchReader, **options: Any) -> Any:
        sizes.append(len(self.mask))
        return plain(self, **options)

    monkeypatch.setattr(BatchReader, "read_prompts", note)
    prompts = [[5] * length for length in (3, 14, 2, 14, 1, 3, 2)]
    options = make_options(batch_size=16, method="batch", max_new_tokens=2)
    assert len(generate_greedy(model, prompts, options)) == 7
    assert sizes == [2, 4, 1]


def test_seeds_without_guides_are_refused() -> None:
    with pytest.raises(ConfigError, match="give guides"):
        generate_greedy(build_llama(), [[5]], make_options(), seeds=[1])
