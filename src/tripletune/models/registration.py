"""Makes `transformers`' Auto classes use our ChatGLM classes instead of remote code.

All three ChatGLM generations call themselves `chatglm` in `config.json` and `ChatGLMTokenizer` in
`tokenizer_config.json`; the two dispatchers of `dispatch` tell them apart by what the folder holds.
Classes registered from outside `transformers` take precedence over a folder's own code, so a
snippet with `trust_remote_code=True` runs none of it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

__all__ = ["register_when_imported"]


def register_when_imported() -> None:
    """Registers with each module of Auto classes now if it is loaded, else as soon as it is.

    Importing this package therefore costs no import of torch or transformers.
    """
    waiting = {}
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register()
        else:
            waiting[name] = register
    if waiting:
        sys.meta_path.insert(0, _RegisterAfterImport(waiting))


def _register_configs() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from tripletune.models.dispatch import ChatGLMFamilyConfig

    AutoConfig.register("chatglm", ChatGLMFamilyConfig, exist_ok=True)


def _register_tokenizers() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from tripletune.models.dispatch import ChatGLMFamilyConfig, ChatGLMTokenizer

    # Under the family's config, which no folder ever resolves to: with a folder's own config class
    # as the key, AutoTokenizer would prefer the folder's remote code.
    AutoTokenizer.register(
        ChatGLMFamilyConfig, slow_tokenizer_class=ChatGLMTokenizer, exist_ok=True
    )


def _register_models() -> None:
    from transformers.models.auto.modeling_auto import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
    )

    from tripletune.models.configuration_chatglm import ChatGLMConfig
    from tripletune.models.configuration_chatglm2 import ChatGLM2Config
    from tripletune.models.dispatch import LazyChatGLM, LazyChatGLM2

    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
        auto_class.register(ChatGLMConfig, LazyChatGLM, exist_ok=True)
        auto_class.register(ChatGLM2Config, LazyChatGLM2, exist_ok=True)


_REGISTRATIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.tokenization_auto": _register_tokenizers,
    "transformers.models.auto.modeling_auto": _register_models,
}


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Registers with a module once it has been executed."""

    def __init__(self, waiting: dict[str, Callable[[], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        register = self._waiting.pop(fullname, None)
        if register is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, register)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """A module's own loader, followed by a registration."""

    def __init__(self, loader: Any, register: Callable[[], None]) -> None:
        self._loader = loader
        self._register = register

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._register()
