"""Stands in for the compiler's backend, to look at what is compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def compile_with(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `torch.compile` use a backend, whatever it is asked for."""
    compile_plainly: Any = torch.compile

    def compile_so(function: Any, **options: Any) -> Any:
        return compile_plainly(function, **{**options, "backend": backend})

    monkeypatch.setattr(torch, "compile", compile_so)


def collect_graphs() -> tuple[Any, list[Any]]:
    """A backend that runs graphs as they are, and the list into which it puts them."""
    graphs: list[Any] = []

    def collect(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return collect, graphs
