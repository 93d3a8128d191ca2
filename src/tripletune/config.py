"""Every setting of a training run, its presets, and how the guide's upper-case fields map to it.

A run is described by one frozen `TrainingSettings`. Users write settings either as flags or as a
class with upper-case fields (`config/train_config_simple.py`), whose base class `UpperCaseConfig`
checks names and values and gives the settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tripletune.errors import ConfigError

__all__ = [
    "DEFAULT_MODEL",
    "EMBEDDED_MODEL",
    "PRESETS",
    "PRESET_VALUES",
    "Preset",
    "TrainingSettings",
    "UpperCaseConfig",
    "build_settings",
    "choose_preset",
    "find_changed_fields",
]

DEFAULT_MODEL = "THUDM/chatglm-6b"
EMBEDDED_MODEL = "embedded"
Preset = Literal["auto", "small", "medium", "large", "fast"]
Tracker = Literal["tensorboard", "swanlab", "wandb", "mlflow"]
PRESETS: tuple[Preset, ...] = ("auto", "small", "medium", "large", "fast")


class TrainingSettings(BaseModel):
    """What one training run needs to know; frozen and validated.

    Lengths are in tokens, `save_steps` and the like in optimizer steps. The effective batch size is
    `batch_size * gradient_accumulation_steps` on each GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = DEFAULT_MODEL
    revision: str | None = None
    train_file: Path = Path("data/train_triplet.jsonl")
    validation_file: Path = Path("data/val_triplet.jsonl")
    output_dir: Path = Path("output/chatglm-6b-triplet-qlora")

    num_epochs: float = Field(3, gt=0)
    max_steps: int = Field(-1, ge=-1)
    batch_size: int = Field(4, ge=1)
    eval_batch_size: int = Field(4, ge=1)
    gradient_accumulation_steps: int = Field(4, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)

    lora_r: int = Field(8, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    lora_target_modules: tuple[str, ...] | Literal["all-linear"] = ("query_key_value",)

    max_source_length: int = Field(512, ge=8)
    max_target_length: int = Field(256, ge=4)
    long_texts: Literal["drop", "shorten"] = "drop"
    relations_per_prompt: int | None = Field(None, ge=1)
    bidirectional_prompt: bool = False
    cache_dir: Path | None = None

    logging_steps: int = Field(5, ge=1)
    save_steps: int = Field(50, ge=1)
    save_minutes: float = Field(30, gt=0)
    keep_checkpoints: int = Field(2, ge=1)
    eval_steps: int = Field(50, ge=1)
    load_best_model_at_end: bool = True
    early_stopping_patience: int | None = Field(None, ge=1)

    load_in_4bit: bool = True
    compute: Literal["auto", "fp8"] = "auto"
    gradient_checkpointing: bool = True
    offload_activations: bool = False
    fsdp: bool = False
    join_micro_batches: bool = True
    packing: bool | None = None
    save_safetensors: bool = True
    report_to: tuple[Tracker, ...] | None = None
    resume_from_checkpoint: str | None = None
    seed: int = Field(42, ge=0)

    @field_validator("report_to", mode="before")
    @classmethod
    def _read_trackers(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name for name in value.replace(" ", "").split(",") if name not in ("", "none"))

    @model_validator(mode="after")
    def _check_together(self) -> TrainingSettings:
        if isinstance(self.lora_target_modules, tuple) and not self.lora_target_modules:
            raise ValueError("lora_target_modules: () adapts nothing; name at least one module")
        if self.max_steps == 0:
            raise ValueError("max_steps: 0 trains nothing; give -1 (all epochs) or a number")
        if self.load_best_model_at_end and self.save_steps % self.eval_steps:
            raise ValueError(
                f"save_steps: {self.save_steps} is no multiple of eval_steps {self.eval_steps}, so "
                "the best evaluated model could not be loaded at the end; make it one, or set "
                "load_best_model_at_end to False"
            )
        return self

    @property
    def effective_batch_size(self) -> int:
        """Examples that each optimizer step learns from, on one GPU."""
        return self.batch_size * self.gradient_accumulation_steps

    def changed(self, **changes: Any) -> TrainingSettings:
        """A copy with some fields changed, validated again.

        Raises:
            ConfigError: a field is unknown or a value not allowed.
        """
        return build_settings({**self.model_dump(), **changes})


def build_settings(values: Mapping[str, Any]) -> TrainingSettings:
    """Settings from lower-case names and values.

    Raises:
        ConfigError: names every unknown field and every value that is not allowed, at once.
    """
    try:
        return TrainingSettings(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(problem) for problem in error.errors())) from None


def choose_preset(memory_gib: float | None) -> tuple[Preset, str]:
    """The preset for a GPU with this much memory, and why, in one Chinese sentence.

    Args:
        memory_gib: Total memory of the GPU; None when there is none.
    """
    if memory_gib is None:
        return "fast", "没有检测到CUDA GPU"
    if memory_gib < 11.5:
        return "small", f"GPU显存 {memory_gib:.1f} GB，小于 12 GB"
    if memory_gib < 23:
        return "medium", f"GPU显存 {memory_gib:.1f} GB，在 12-24 GB 之间"
    return "large", f"GPU显存 {memory_gib:.1f} GB，不小于 24 GB"


PRESET_VALUES: dict[str, dict[str, Any]] = {
    "small": {
        "batch_size": 1,
        "eval_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "lora_r": 4,
        "lora_alpha": 16,
        "max_source_length": 256,
        "max_target_length": 128,
    },
    "medium": {"batch_size": 4, "gradient_accumulation_steps": 4, "lora_r": 8},
    "large": {
        "batch_size": 8,
        "eval_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "lora_r": 16,
        "lora_alpha": 64,
    },
    "fast": {"num_epochs": 1, "batch_size": 2, "eval_batch_size": 2, "warmup_steps": 5},
}
"""What each preset changes of the defaults; the classes of `config/train_config_simple.py` say the
same in upper case, where users edit it."""


def find_changed_fields(settings: TrainingSettings) -> set[str]:
    """Names of the fields whose value is not the default."""
    defaults = {name: field.default for name, field in TrainingSettings.model_fields.items()}
    return {name for name, value in settings.model_dump().items() if value != defaults[name]}


class UpperCaseConfig:
    """Base of the guide's configuration classes: upper-case fields, checked by name.

    A subclass lists fields as class attributes; an instance may set any of them, in upper or lower
    case (`config.resume_from_checkpoint = ...`). A misspelt one is an error that names the nearest.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if not name.startswith("_") and not callable(vars(cls)[name]):
                _field_name(name, cls.__name__)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(_field_name(name, type(self).__name__).upper(), value)

    def __getattr__(self, name: str) -> Any:
        if name.islower() and not name.startswith("_"):
            return getattr(self, _field_name(name, type(self).__name__).upper())
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def fields(self) -> dict[str, Any]:
        """Every field that has a value, by lower-case name."""
        values: dict[str, Any] = {}
        for owner in reversed(type(self).__mro__):
            values.update({k.lower(): v for k, v in vars(owner).items() if k.isupper()})
        values.update({k.lower(): v for k, v in vars(self).items() if k.isupper()})
        return values

    def changed_fields(self) -> set[str]:
        """Lower-case names of the fields whose value is not the default of `TrainingSettings`."""
        return find_changed_fields(self.settings())

    def settings(self) -> TrainingSettings:
        """The run these fields describe.

        Raises:
            ConfigError: a value is not allowed.
        """
        return build_settings(self.fields())


def _field_name(name: str, owner: str) -> str:
    lower = name.lower()
    if lower in TrainingSettings.model_fields:
        return lower
    nearest = difflib.get_close_matches(lower, TrainingSettings.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0].upper()}?" if nearest else ""
    raise ConfigError(f"{owner}: there is no field {name!r}{hint}")


def _describe(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        try:
            _field_name(name, "settings")
        except ConfigError as error:
            return str(error)
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return str(message)
    return f"{name}: {problem['input']!r} is not allowed: {message[0].lower()}{message[1:]}"
