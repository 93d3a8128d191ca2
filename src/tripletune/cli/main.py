"""The `tripletune` command: its sub-commands, and what errors look like to the user.

A command's module is imported when the command is called, so that help, mistakes and the commands
that need no model answer at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from tripletune.errors import TripletuneError

__all__ = ["COMMANDS", "Command", "guarded", "run", "run_command"]

EXIT_USER = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is and how it takes its arguments.

    Attributes:
        module: Module under `tripletune.cli`.
        name: What to call in it.
        kind: `arguments`: a function of the list of arguments, which parses them itself and gives
            the exit code; `function`: a function with typer's annotations; `app`: a typer
            application with commands of its own.
        help: One line for `tripletune --help`.
    """

    module: str
    name: str
    kind: Literal["arguments", "function", "app"]
    help: str


COMMANDS: dict[str, Command] = {
    "train": Command("train", "train", "arguments", "训练：每个设置都是一个参数"),
    "plan": Command("plan", "plan", "arguments", "训练需要多少显存和时间，不训练"),
    "extract": Command("extract", "extract", "function", "从文件中的每条文本抽取三元组"),
    "calibrate": Command("extract", "calibrate", "function", "在验证数据上校准置信度"),
    "evaluate": Command("evaluate", "evaluate", "arguments", "评估一个适配器"),
    "score": Command(
        "score", "score", "function", "给预测文件打分，不需要模型：精确率、召回率、F1、错误类型"
    ),
    "compare": Command(
        "score", "compare", "function", "比较两个预测文件：F1 之差 (B 减 A)、置信区间、p 值"
    ),
    "data": Command(
        "data", "data_app", "app", "数据：convert, check, fix, split, generate, schema"
    ),
    "merge": Command("merge", "merge", "function", "把适配器合并进基础模型"),
    "runs": Command("runs", "runs", "function", "列出并比较训练记录"),
    "doctor": Command("doctor", "doctor", "function", "检查依赖包、GPU、磁盘与模型文件夹"),
}


def run() -> None:
    """Entry point of the `tripletune` command."""
    guarded(lambda: run_command(sys.argv[1:]))


def guarded(action: Callable[[], Any]) -> None:
    """Runs `action` and exits: a user's mistake is one message on standard error, no traceback.

    `--debug` on the command line (or `TRIPLETUNE_DEBUG=1`) shows the traceback. The exit code is 0,
    what `action` returns when that is a number, 2 for a `TripletuneError`, 130 when interrupted.
    """
    debug = "--debug" in sys.argv or os.environ.get("TRIPLETUNE_DEBUG") == "1"
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
    try:
        code = action()
    except TripletuneError as error:
        if debug:
            raise
        print(f"错误 (error): {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    except KeyboardInterrupt:
        print("\n已中断 (interrupted)", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except ModuleNotFoundError as error:
        if debug or (error.name or "").startswith("tripletune"):
            raise
        print(
            f"错误 (error): 缺少依赖包 {error.name}；请运行 (run): pip install -r requirements.txt",
            file=sys.stderr,
        )
        sys.exit(EXIT_USER)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def run_command(argv: Sequence[str]) -> int:
    """Runs the command that the arguments name; returns its exit code.

    Raises:
        TripletuneError: what the command raises.
        KeyboardInterrupt: the user interrupted it.
    """
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(render_help())
        return 0
    if argv[0] == "--version":
        from tripletune import __version__

        print(f"tripletune {__version__}")
        return 0
    name, *arguments = argv
    command = COMMANDS.get(name)
    if command is None:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"，是否想用 (did you mean) {nearest[0]}？" if nearest else ""
        known = f"全部命令 / commands: {', '.join(COMMANDS)}"
        return _complain(f"没有命令 (unknown command) {name!r}{hint} ({known})")
    target = getattr(import_module(f"tripletune.cli.{command.module}"), command.name)
    if command.kind == "arguments":
        return int(target(arguments))
    return _run_typer(target, name, arguments)


def render_help() -> str:
    """What `tripletune --help` prints."""
    lines = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "用法 (usage): tripletune COMMAND [OPTIONS]",
            "",
            "QLoRA 微调 ChatGLM，从中文文本中抽取知识三元组。",
            "",
            "命令 (commands):",
            *lines,
            "",
            "tripletune COMMAND --help 说明一个命令的全部参数；--version 显示版本；",
            "--debug 在出错时显示完整的调用栈。",
        ]
    )


def _run_typer(target: Any, name: str, arguments: list[str]) -> int:
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    prog = f"tripletune {name}"
    if COMMANDS[name].kind == "function":
        app.command(help=f"{COMMANDS[name].help}。")(target)
    else:
        app.add_typer(target, name=name)
        prog, arguments = "tripletune", [name, *(arguments or ["--help"])]
    # Releases of typer differ in where click's exceptions are; this one is its own in all of them.
    usage_error: Any = typer.BadParameter.__base__
    try:
        code = app(arguments, prog_name=prog, standalone_mode=False)
    except usage_error as error:
        message = " ".join(error.format_message().split())
        path = prog if error.ctx is None else error.ctx.command_path
        return _complain(f"{message} (全部参数 / all options: {path} --help)")
    except typer.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0


def _complain(message: str) -> int:
    print(f"错误 (error): {message}", file=sys.stderr)
    return EXIT_USER
