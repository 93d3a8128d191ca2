from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.cli.arguments import OneLineParser, build_training_parser, given_settings
from tripletune.config import TrainingSettings, build_settings


def read(*flags: str) -> dict:
    return given_settings(build_training_parser().parse_args(list(flags)))


def complaint(capsys, *flags: str) -> str:
    """The one line on standard error for flags that are not allowed."""
    with pytest.raises(SystemExit) as exit_info:
        build_training_parser().parse_args(list(flags))
    captured = capsys.readouterr()
    assert exit_info.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_training_parser_has_a_flag_for_every_setting():
    flags = {flag for action in build_training_parser()._actions for flag in action.option_strings}
    assert {f"--{name}" for name in TrainingSettings.model_fields} <= flags
    guide = {"--config", "--epochs", "--batch_size", "--lora_r", "--learning_rate", "--output_dir"}
    further = {"--model_name", "--train_file", "--validation_file", "--max_steps", "--seed"}
    assert (guide | further | {"--resume_from_checkpoint"}) <= flags


def test_given_settings_holds_only_what_was_given():
    assert read() == {}
    assert read("--config", "small") == {}
    assert read("--epochs", "5", "--output_dir", "out") == {"num_epochs": 5.0, "output_dir": "out"}


def test_given_settings_are_settings():
    values = read(
        *("--num_train_epochs", "0.5"),
        *("--learning_rate", "1e-4"),
        *("--lora_target_modules", "query_key_value,dense"),
        *("--report_to", "tensorboard"),
        *("--gradient_checkpointing", "false"),
        *("--packing", "true"),
        *("--train_file", "a.jsonl"),
    )
    assert build_settings(values) == TrainingSettings(
        num_epochs=0.5,
        learning_rate=1e-4,
        lora_target_modules=("query_key_value", "dense"),
        report_to=("tensorboard",),
        gradient_checkpointing=False,
        packing=True,
        train_file=Path("a.jsonl"),
    )


def test_given_settings_keeps_all_linear_as_a_word():
    assert read("--lora_target_modules", "all-linear") == {"lora_target_modules": "all-linear"}


def test_training_parser_without_presets_has_no_config(capsys):
    with pytest.raises(SystemExit):
        build_training_parser(with_presets=False).parse_args(["--config", "small"])
    assert "--config" in capsys.readouterr().err


def test_training_parser_names_the_nearest_flag(capsys):
    err = complaint(capsys, "--bach_size", "4")
    assert "--bach_size" in err
    assert "(did you mean) --batch_size" in err


def test_training_parser_takes_no_abbreviation(capsys):
    assert "--lora_alph" in complaint(capsys, "--lora_alph", "4")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--config", "huge"), ("--config", "'huge'", "small", "medium", "large", "fast", "auto")),
        (("--batch_size", "many"), ("--batch_size", "'many'")),
        (("--learning_rate", "x"), ("--learning_rate", "'x'")),
        (("--packing", "perhaps"), ("--packing", "'perhaps'", "true or false")),
        (("--epochs",), ("--epochs",)),
    ],
)
def test_training_parser_names_flag_value_and_choices(flags, words, capsys):
    err = complaint(capsys, *flags)
    assert [word for word in words if word not in err] == []


def test_training_parser_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as exit_info:
        build_training_parser("tripletune train").parse_args(["--help"])
    assert exit_info.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: tripletune train ")
    assert [name for name in TrainingSettings.model_fields if f"--{name}" not in out] == []


def test_one_line_parser_without_a_near_flag_gives_no_hint(capsys):
    with pytest.raises(SystemExit):
        OneLineParser().parse_args(["--zzz"])
    assert "did you mean" not in capsys.readouterr().err
