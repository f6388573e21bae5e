"""``fastness``: the verbs, and how errors end a command."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from fastness import __version__
from fastness.cli import (
    adopt,
    bench,
    ci,
    classify,
    compare,
    demo,
    drift,
    drill,
    embed,
    evaluate,
    export,
    features,
    fit,
    incident,
    index,
    key,
    labels,
    methods,
    mine,
    monitor,
    narrow,
    prune,
    registry,
    schema,
    search,
    serve,
    sign,
    sketch,
    train,
    verify,
    watch,
)
from fastness.core.errors import FastnessError

# typer carries its own copy of click and exports only this child of the class that all usage errors share.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Unlabelled data becomes an encoder that holds: train, measure, search.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fastness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that every verb has."""


_VERBS = (
    train,
    schema,
    methods,
    adopt,
    embed,
    evaluate,
    compare,
    drift,
    search,
    mine,
    prune,
    narrow,
    fit,
    classify,
    export,
    bench,
    key,
    sign,
    verify,
    sketch,
    serve,
    monitor,
    drill,
    ci,
    demo,
)
for _verb in _VERBS:
    app.command()(getattr(_verb, _verb.__name__.rpartition(".")[2]))
app.add_typer(index.index, name="index")
app.add_typer(registry.registry, name="registry")
app.add_typer(watch.watch, name="watch")
app.add_typer(labels.labels, name="labels")
app.add_typer(incident.incident, name="incident")
app.add_typer(features.features, name="features")


def main() -> None:
    """Run the command line; exit 2 for bad input, 1 for a failure, 3 for a gate that said no."""
    debug = "--debug" in sys.argv or bool(os.environ.get("FASTNESS_DEBUG"))
    if debug and "--debug" in sys.argv:
        sys.argv = [sys.argv[0], "--debug", *(a for a in sys.argv[1:] if a != "--debug")]
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except FastnessError as error:
        if debug:
            raise
        _end(str(error), error.exit_code)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            sys.exit(2)
        where = error.ctx.command_path if error.ctx else "fastness"
        _end(f"{error.format_message()} (see {where} --help)", 2)
    except (typer.Abort, KeyboardInterrupt):
        _end("stopped", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if debug or error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}:
            raise
        _end(f"{error.filename or 'disk'}: {error.strerror}; free some space or choose another folder", 1)


def _end(message: str, code: int) -> None:
    print("fastness: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
