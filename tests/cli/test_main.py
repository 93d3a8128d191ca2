from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import typer

from tripletune import __version__
from tripletune.cli import main
from tripletune.cli.main import COMMANDS, guarded, run_command
from tripletune.errors import DataError


def run_guarded(action, capsys, monkeypatch, *flags: str) -> tuple[int, str]:
    """Exit code and standard error of a guarded action."""
    monkeypatch.setattr(sys, "argv", ["tripletune", *flags])
    with pytest.raises(SystemExit) as exit_info:
        guarded(action)
    return exit_info.value.code, capsys.readouterr().err


def raise_error(error: BaseException):
    raise error


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_run_command_shows_every_command_in_the_help(argv, capsys):
    assert run_command(argv) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert shown == list(COMMANDS)
    needed = {"train", "extract", "evaluate", "score", "compare", "data", "merge", "doctor"}
    assert needed <= set(shown)


def test_run_command_shows_the_version(capsys):
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"tripletune {__version__}\n"


def test_run_command_needs_neither_torch_nor_typer_for_help():
    code = (
        "import sys; from tripletune.cli.main import run_command; run_command(['--help'])\n"
        "assert not {'torch', 'transformers', 'typer', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_commands_import_no_torch():
    names = [command.module for command in COMMANDS.values()]
    code = (
        f"import sys, importlib\nfor name in {names!r}:\n"
        "    importlib.import_module('tripletune.cli.' + name)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_name_something_that_can_be_called(name):
    command = COMMANDS[name]
    target = getattr(import_module(f"tripletune.cli.{command.module}"), command.name)
    assert isinstance(target, typer.Typer) is (command.kind == "app")
    assert callable(target)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("trian", "(unknown command) 'trian'，是否想用 (did you mean) train？ (全部命令"),
        ("xyz", "(unknown command) 'xyz' (全部命令"),
    ],
)
def test_run_command_names_the_nearest_command(typed, line, capsys):
    assert run_command([typed, "--flag"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"错误 (error): 没有命令 {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [("train", "train", "train"), ("evaluate", "evaluate", "evaluate")],
)
def test_run_command_passes_all_flags_through(name, module, function, monkeypatch):
    given = []
    monkeypatch.setattr(
        f"tripletune.cli.{module}.{function}", lambda arguments: given.append(arguments) or 7
    )
    assert run_command([name, "--help", "--any", "1", "--", "x"]) == 7
    assert given == [["--help", "--any", "1", "--", "x"]]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["score", "gold"], ["Missing argument", "tripletune score --help"]),
        (["score", "a", "b", "--jsno", "x"], ["--jsno", "--json"]),
        (["score", "a", "b", "--seed", "x"], ["--seed", "integer"]),
        (["data", "chek"], ["'chek'", "check", "tripletune data --help"]),
        (["data", "split", "a", "b", "--mode", "x"], ["'x'", "tripletune data split --help"]),
    ],
)
def test_run_command_makes_a_usage_error_one_line(argv, words, capsys):
    assert run_command(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("错误 (error): ")
    assert captured.err.count("\n") == 1
    assert [word for word in words if word not in captured.err] == []


def test_run_command_shows_the_commands_of_data_when_none_is_named(capsys):
    assert run_command(["data"]) == 0
    out = capsys.readouterr().out
    assert [
        name for name in ("convert", "check", "fix", "split", "schema") if name not in out
    ] == []


def test_run_command_runs_a_function_with_its_options(monkeypatch):
    given = []

    def replacement(first: str, number: int = 1) -> None:
        given.append((first, number))
        raise typer.Exit(1)

    monkeypatch.setattr("tripletune.cli.score.score", replacement)
    assert run_command(["score", "a", "--number", "5"]) == 1
    assert given == [("a", 5)]


def test_run_command_lets_an_abort_count_as_interrupted(monkeypatch):
    monkeypatch.setattr("tripletune.cli.score.score", lambda: raise_error(typer.Abort()))
    with pytest.raises(KeyboardInterrupt):
        run_command(["score"])


def test_run_runs_the_flags_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tripletune", "--version"])
    with pytest.raises(SystemExit) as exit_info:
        main.run()
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"tripletune {__version__}\n"


@pytest.mark.parametrize(("result", "code"), [(0, 0), (1, 1), (None, 0), ({"f1": 1.0}, 0)])
def test_guarded_exits_with_the_number_it_gets(result, code, capsys, monkeypatch):
    assert run_guarded(lambda: result, capsys, monkeypatch) == (code, "")


def test_guarded_makes_an_error_one_message(capsys, monkeypatch):
    error = DataError("broken; mend it", path="train.jsonl", line=3)
    assert run_guarded(lambda: raise_error(error), capsys, monkeypatch) == (
        2,
        "错误 (error): train.jsonl:3: broken; mend it\n",
    )


def test_guarded_shows_the_traceback_with_debug(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tripletune", "--debug", "train"])
    with pytest.raises(DataError, match="broken"):
        guarded(lambda: raise_error(DataError("broken")))
    assert sys.argv == ["tripletune", "train"]


def test_guarded_shows_the_traceback_with_the_environment_variable(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tripletune"])
    monkeypatch.setenv("TRIPLETUNE_DEBUG", "1")
    with pytest.raises(DataError, match="broken"):
        guarded(lambda: raise_error(DataError("broken")))


def test_guarded_exits_with_130_when_interrupted(capsys, monkeypatch):
    code, err = run_guarded(lambda: raise_error(KeyboardInterrupt()), capsys, monkeypatch)
    assert (code, err) == (130, "\n已中断 (interrupted)\n")


def test_guarded_names_a_missing_package_and_the_remedy(capsys, monkeypatch):
    def action():
        import_module("package_that_is_not_there")

    code, err = run_guarded(action, capsys, monkeypatch)
    assert code == 2
    assert "package_that_is_not_there" in err
    assert "pip install -r requirements.txt" in err


def test_guarded_hides_no_mistake_of_the_package_itself(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tripletune"])
    with pytest.raises(ModuleNotFoundError):
        guarded(lambda: import_module("tripletune.not_there"))
