"""The terminal and the files behind the commands: what is printed where, read and written.

Results go to stdout, progress and errors to stderr. Names from outside may hold anything: control
characters do not reach the terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hil.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

MAX_MODEL_BYTES = 256 << 20  # a .tflite for a microcontroller is a thousandth of this
PIPE_WIDTH = 120  # columns of a table that goes into a file or a pipe
LEAST_WIDTH = 80  # on a narrower terminal, lines wrap: cutting columns would cut digits


def read_model(path: Path) -> bytes:
    """The bytes of a model file; raises UsageError when there is none of a sensible size."""
    must_be_file(path)
    with _reading(path):
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise UsageError(
                f"{printable(str(path))} has {path.stat().st_size:,} B; no model for a "
                f"microcontroller has more than {MAX_MODEL_BYTES:,} B"
            )
        return path.read_bytes()


def must_be_file(path: Path) -> None:
    """Raises UsageError unless there is a file."""
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        what = "is a folder" if path.is_dir() else what
        raise UsageError(f"{printable(str(path))} {what}; expected a file")


def must_be_writable(path: Path | None, *others: Path) -> None:
    """Raises UsageError now rather than after minutes of work.

    Args:
        path: to be written, if anything.
        others: files that the command reads or writes besides; they must not be overwritten.
    """
    if path is None:
        return
    if path.resolve() in [other.resolve() for other in others]:
        raise UsageError(
            f"{printable(str(path))} is another file of this command; it would be overwritten"
        )
    if path.is_dir():
        raise UsageError(f"{printable(str(path))} is a folder; expected a file to write")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{printable(str(path))} cannot be written: no such folder, or read-only")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{printable(str(path))} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says about a file into a UsageError."""
    try:
        yield
    except OSError as error:
        where = error.filename or str(path)
        raise UsageError(f"{printable(str(where))} cannot be written: {error.strerror}") from None


def split_names(text: str, option: str) -> list[str]:
    """Comma-separated names, each once; raises UsageError that names the option."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise UsageError(f"{option} {text!r}: should be names with commas between them, each once")
    return names


def stdout_console() -> Console:
    """Where results go: as wide as the terminal, but for LEAST_WIDTH, or PIPE_WIDTH."""
    from rich.console import Console

    if not sys.stdout.isatty():
        return Console(width=PIPE_WIDTH)
    console = Console()
    return console if console.width >= LEAST_WIDTH else Console(width=LEAST_WIDTH)


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """A line at the bottom of a terminal that says what is under way; nothing elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(text))


def say(text: str) -> None:
    """One line on stderr; control characters of names from outside do not reach the terminal."""
    print(printable(text), file=sys.stderr, flush=True)  # what status_line puts its line below


def printable(text: str) -> str:
    """The text with a question mark for everything that is no character to print."""
    return "".join(c if c.isprintable() else "?" for c in text)


def mend_streams() -> None:
    """Makes stdout and stderr take every text: closed ones, and those that lack a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_bytes(data: bytes) -> None:
    """What a board prints, as it is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=2))
