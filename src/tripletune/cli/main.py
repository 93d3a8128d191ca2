"""The `tripletune` command: its sub-commands, and what errors look like to the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from tripletune.errors import TripletuneError

__all__ = ["guarded", "run"]

EXIT_USER = 2
EXIT_INTERRUPTED = 130


def run() -> None:
    """Entry point of the `tripletune` command."""
    guarded(_run_command)


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


def _run_command() -> Any:
    import typer

    app = typer.Typer(
        name="tripletune",
        help="QLoRA 微调 ChatGLM，从中文文本中抽取知识三元组。",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    _register(app)
    return app(standalone_mode=True)


def _register(app: Any) -> None:
    from tripletune.cli import train

    app.command("train")(train.train)
