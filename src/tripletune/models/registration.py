"""Makes `transformers`' Auto classes use our ChatGLM classes instead of remote code.

All three ChatGLM generations call themselves `chatglm` in `config.json` and `ChatGLMTokenizer` in
`tokenizer_config.json`; the two dispatchers here tell them apart by what the folder holds. Classes
registered from outside `transformers` take precedence over a folder's own code, so a snippet with
`trust_remote_code=True` runs none of it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["register", "register_when_imported"]

_TRIGGER = "transformers.models.auto.modeling_auto"
_registered = False


def register() -> None:
    """Registers every ChatGLM class with the Auto classes; repeated calls do nothing."""
    global _registered
    if _registered:
        return
    _registered = True
    from transformers.models.auto.configuration_auto import AutoConfig
    from transformers.models.auto.modeling_auto import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
    )
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.dispatch import ChatGLMFamilyConfig, ChatGLMTokenizer

    AutoConfig.register("chatglm", ChatGLMFamilyConfig, exist_ok=True)
    # Registered under the family's config, which no folder ever resolves to: with the folder's own
    # config as the key, AutoTokenizer would prefer the folder's remote code.
    AutoTokenizer.register(
        ChatGLMFamilyConfig, slow_tokenizer_class=ChatGLMTokenizer, exist_ok=True
    )
    for model_class in (ChatGLMForConditionalGeneration,):
        for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
            auto_class.register(model_class.config_class, model_class, exist_ok=True)


def register_when_imported() -> None:
    """Registers now if `transformers`' Auto classes are loaded, else as soon as they are.

    Importing this package therefore costs no import of torch.
    """
    if _TRIGGER in sys.modules:
        register()
    elif not any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Calls `register` once the module that defines the Auto classes has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TRIGGER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """The module's own loader, followed by `register`."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        register()
