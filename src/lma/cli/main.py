"""`lma <verb>`: the verbs are one file each; errors are told in one line."""

from __future__ import annotations

import os
import sys

import typer
from rich.markup import escape

from lma.cli import (
    bench,
    compare,
    demo,
    drift,
    evaluate,
    inspect,
    predict,
    prepare,
    report,
    signatures,
    train,
)
from lma.cli.console import err, fail
from lma.errors import LmaError
from lma.version import __version__

STOPPED = 130  # the exit status of a program ended by Ctrl-C

app = typer.Typer(
    name="lma",
    help="Embedding tables compressed by letting similar tokens share memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lma {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Embedding tables compressed by letting similar tokens share memory."""


for _verb in (
    demo.demo,
    prepare.prepare,
    signatures.signatures,
    train.train,
    evaluate.evaluate,
    predict.predict,
    compare.compare,
    report.report,
    inspect.inspect,
    drift.drift,
    bench.bench,
):
    app.command()(_verb)


def main() -> None:
    """Entry point: 0 done, 1 an error told in one line, 2 wrong usage, 130 Ctrl-C."""
    try:
        # The verbs return nothing; a number is the exit status of `typer.Exit`.
        status = app(standalone_mode=False)
        status = status if isinstance(status, int) else 0
        if status == STOPPED:  # some versions of Typer turn Ctrl-C into this number
            raise KeyboardInterrupt
        sys.exit(status)
    except (KeyboardInterrupt, typer.Abort):
        err.print("stopped: runs that ended are kept; the same command goes on from there")
        sys.exit(STOPPED)
    except Exception as error:
        if isinstance(error, _USAGE_ERROR):
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        told = (LmaError, ValueError, OSError, KeyError, IndexError)
        if os.environ.get("LMA_TRACEBACK") or not isinstance(error, told):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        fail(escape(str(text) or type(error).__name__))
        sys.exit(1)


# Typer's own usage errors have moved between modules; this one they all derive from.
_USAGE_ERROR = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
