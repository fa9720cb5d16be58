"""Prints text safely: no name of a file, folder or class can control a terminal or a spreadsheet."""

import codecs
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, cast

import typer
from rich.console import Console as RichConsole
from rich.console import ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

# Control characters (C0, DEL, C1), marks of text direction, line separators, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BUT_LINE_ENDS = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins with one of these is a formula for a spreadsheet
_PLAIN = {"–": "-", "×": "x", "✓": "+", "✗": "x", "…": "..."}  # for terminals that know only ASCII
_ERRORS = "deepres.printed"
_FEWEST_COLUMNS = 20
_LONGEST = 20_000  # characters of a sentence: room for two lists of classes, but not for hundreds of screens
UsageError = cast(Any, typer.BadParameter.__base__)  # typer does not export it


def visible(text: str) -> str:
    r"""`text` in one line, with control characters and the like as escapes: \x1b, \n, \u202e, \udcff."""
    return _UNSAFE.sub(_escape, text)


def brief(text: str) -> str:
    """`visible(text)`, without its middle if it has more than 20,000 characters."""
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"


def marked(cell: str) -> str:
    """A cell of a CSV file. One that a spreadsheet would compute as a formula gets an apostrophe in front."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


class Console(RichConsole):
    """A console that prints control characters as escapes, in text, tables and bars alike.

    A string or a `Text` is printed in one line, with its line ends as escapes. If standard error cannot be written, as
    after the terminal was closed, messages are dropped and the work goes on.
    """

    @property
    def file(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The stream that rich writes to; for standard error, one that drops what cannot be written."""
        return _Untold(super().file) if self.stderr else super().file

    @file.setter
    def file(self, new_file: Any) -> None:
        self._file = new_file

    @property
    def size(self) -> ConsoleDimensions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The size that rich finds; 80 columns if it finds fewer than 20, which would show nothing."""
        found = super().size
        return found if found.width >= _FEWEST_COLUMNS else ConsoleDimensions(80, found.height)

    def render_str(self, text: str, **how: Any) -> Text:
        """Rich's, applied to the visible text."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
        """Rich's, with escapes for unsafe characters, which are not counted in the width of a table or bar."""
        if isinstance(renderable, Text) and _UNSAFE.search(renderable.plain):
            renderable = _visible_text(renderable)
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_BUT_LINE_ENDS.sub(_escape, segment.text), segment.style)


class _Untold:
    """A stream that drops what it cannot write."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class CommandGroup(TyperGroup):
    """The verbs of the command line. Usage errors show unsafe characters of the arguments as escapes."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Typer's, with visible usage errors."""
        with _visible_complaints():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Typer's, with visible usage errors: a verb parses its own arguments here."""
        with _visible_complaints():
            return super().invoke(ctx)


@contextmanager
def standard_streams() -> Generator[None]:
    """Make the three standard streams usable, and flush standard output at the end.

    A closed stream is replaced by the null device. Otherwise the next file that is opened would get its number, and
    printed text would be written into that file. Characters that the encoding cannot express are printed as a similar
    one or as an escape; bytes of a file name that are not valid text are printed as they are. Raises `OSError` if the
    output cannot be written.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _reopen_closed(number, name)
    codecs.register_error(_ERRORS, _replace)
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, _ERRORS), (sys.stderr, _ERRORS)):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            with open(os.devnull, "w", encoding="utf-8") as null:  # noqa: PTH123
                os.dup2(null.fileno(), 1)  # else Python would try again when it exits
            raise


def _reopen_closed(number: int, name: str) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is usually this one
        if null != number:
            os.dup2(null, number)
            os.close(null)
    if getattr(sys, name) is None:
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextmanager
def _visible_complaints() -> Generator[None]:
    try:
        yield
    except UsageError as error:
        error.message = visible(error.message)
        raise


def _escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _visible_text(text: Text) -> Text:
    """The same text and styles, with unsafe characters as escapes."""
    cuts = sorted({place for found in _UNSAFE.finditer(text.plain) for place in found.span()})
    shown = text.blank_copy()
    for piece in text.divide(cuts):
        plain = visible(piece.plain)
        shown.append_text(piece if plain == piece.plain else Text(plain, piece.spans[0].style if piece.spans else ""))
    return shown


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """The replacement of one character that cannot be encoded: its byte, a similar character, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    one = error.object[error.start]
    if "\udc80" <= one <= "\udcff":
        return bytes([ord(one) - 0xDC00]), error.start + 1
    return _PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode(), error.start + 1
