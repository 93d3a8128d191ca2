from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import tripletune.extraction.generate_in_slots as area
from tests.extraction.builders import build_llama
from tests.extraction.scripted_guide import ScriptedGuide
from tripletune.extraction.generate import generate_greedy
from tripletune.extraction.generation_rows import GenerationOptions
from tripletune.extraction.slot_cache import SlotCache
from tripletune.extraction.slot_reader import SlotReader

PROMPTS = [[4 + index % 25] * (1 + index % 3) for index in range(20)]


def generate(lengths: list[int], method: str, *, batch_size: int) -> list[tuple[int, ...]]:
    """Tokens of answers of such lengths."""
    guides = [ScriptedGuide([list(range(4, 29))] * length) for length in lengths]
    options = GenerationOptions(
        end_token_id=33, pad_token_id=3, batch_size=batch_size, method=method
    )
    prompts = PROMPTS[: len(lengths)]
    answers = generate_greedy(build_llama(), prompts, options, guides=guides)
    return [answer.token_ids for answer in answers]


def note_sizes(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """How many slots each call of a method of the reader is for."""
    sizes: list[int] = []
    plain = getattr(SlotReader, name)

    def noted(self: SlotReader, slots: Any, *args: Any) -> Any:
        sizes.append(len(slots))
        return plain(self, slots, *args)

    monkeypatch.setattr(SlotReader, name, noted)
    return sizes


def test_free_slots_are_dropped_when_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = note_sizes(monkeypatch, "select")
    lengths = [2 + 4 * (index % 2) for index in range(20)]
    written = generate(lengths, "slots", batch_size=20)
    assert kept == [10]
    assert written == generate(lengths, "batch", batch_size=20)


def test_prompts_wait_for_half_of_the_slots_where_answers_are_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = note_sizes(monkeypatch, "read_prompts")
    lengths = [1 + index % 4 for index in range(20)]
    written = generate(lengths, "slots", batch_size=8)
    assert (read[0], sum(read)) == (8, 20)
    assert all(size >= 4 for size in read[1:-1])
    assert written == generate(lengths, "batch", batch_size=8)


def test_prompts_do_not_wait_for_more_slots_than_there_are_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = note_sizes(monkeypatch, "read_prompts")
    generate([1, 9, 9, 9, 9, 9, 9, 9, 9], "slots", batch_size=8)
    assert read == [8, 1]


def test_keys_and_values_are_let_go_without_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the next rows: those would find the memory of these still taken."""
    made: list[weakref.ref[Any]] = []
    plain = SlotCache.__init__

    def note(self: SlotCache, *args: Any) -> None:
        plain(self, *args)
        made.append(weakref.ref(self))

    monkeypatch.setattr(SlotCache, "__init__", note)
    gc.disable()
    try:
        generate([2, 3, 1], "slots", batch_size=2)
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()


def test_rows_of_about_the_same_length_are_taken_together_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms: list[tuple[int, int | None]] = []

    def count(model: Any, num_places: int, room: int | None) -> int:
        rooms.append((num_places, room))
        return 2 if num_places > 128 else 4

    monkeypatch.setattr(area, "count_slots", count)
    monkeypatch.setattr("tripletune.extraction.generate.find_room", lambda model: 10**9)
    read = note_sizes(monkeypatch, "read_prompts")
    guides = [ScriptedGuide([[5]] * 2) for _ in range(6)]
    options = GenerationOptions(end_token_id=33, pad_token_id=3, batch_size=8, method="slots")
    limits = [250, 3, 3, 3, 250, 3]
    generate_greedy(build_llama(), PROMPTS[:6], options, guides=guides, limits=limits)
    assert read == [2, 4]
    assert rooms == [(256, 10**9), (64, 10**9)]
