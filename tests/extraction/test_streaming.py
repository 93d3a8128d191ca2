from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.extraction.builders import build_sentencepiece, build_small_chatglm
from tripletune.errors import ConfigError, DataError
from tripletune.extraction.extractor import Extractor


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer = build_sentencepiece(tmp_path_factory.mktemp("vocabulary"))
    return build_small_chatglm(tokenizer), tokenizer


def count_threads() -> int:
    return sum(thread.name == "tripletune-stream" for thread in threading.enumerate())


def test_stream_triplets_stops_the_model_when_nobody_listens(parts: Any) -> None:
    extractor = Extractor(
        *parts, relations=["位于"], constrained=True, max_new_tokens=200, batch_size=1
    )
    texts = ["甲公司位于乙市。"] * 200

    async def take_one() -> None:
        stream = extractor.stream(texts)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(take_one())
    deadline = time.monotonic() + 10
    while count_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count_threads() == 0


def test_stream_triplets_passes_errors_on(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = Extractor(*parts, relations=["位于"], constrained=True)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise DataError("the device is gone")

    monkeypatch.setattr("tripletune.extraction.streaming.iter_greedy", fail)

    async def listen() -> None:
        async for _ in extractor.stream(["甲"]):
            pass

    with pytest.raises(DataError, match="the device is gone"):
        asyncio.run(listen())


def test_stream_triplets_refuses_free_output(parts: Any) -> None:
    async def listen() -> None:
        async for _ in Extractor(*parts).stream(["甲"]):
            pass

    with pytest.raises(ConfigError, match="constrained is False"):
        asyncio.run(listen())
