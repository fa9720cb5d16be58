"""Reads JSON and TOML that strangers may have written: checked against a schema, with limits on size and depth.

A schema is a type as `msgspec` knows them: `dict[str, float]`, `list[str]`, a dataclass, a `TypedDict`, with bounds by
`Annotated[int, Meta(ge=1, le=1000)]`. A value that does not fit raises one `InputError`. Every installation has
`msgspec`. A bare source tree may lack it: size, depth and numbers are then checked, but types are not.
"""

import codecs
import dataclasses
import json
import math
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepres.runtime import files
from deepres.runtime.errors import InputError

if TYPE_CHECKING or find_spec("msgspec"):
    from msgspec import DecodeError, Meta, Raw, ValidationError  # pyright: ignore[reportUnusedImport]  (others take Meta from here)
    from msgspec import convert as _converted
    from msgspec.json import decode as _decoded
else:
    _decoded, Raw = None, Any

    class DecodeError(Exception):
        """Never raised."""

    class ValidationError(Exception):
        """Never raised: without `msgspec` types are not checked."""

    class Meta:
        """Bounds of a type, which are not checked without `msgspec`."""

        def __init__(self, **bounds: float):
            self.bounds = bounds

    def _converted(value, kind):
        """`value` as it is, but an object as the dataclass `kind`, if it is one."""
        if not dataclasses.is_dataclass(kind):
            return value
        return kind(**{own.name: value[own.name] for own in dataclasses.fields(kind) if own.name in value})


MOST_BYTES = 2**24  # of a text; its parsed value takes about thirty times the memory
DEEPEST = 64  # levels of nested lists and objects, since a parser calls itself for each
SHOWN = 80  # characters of a name in an error message
MEND = "mend it, or write it anew"
T = TypeVar("T")


def decode(
    content: bytes | str, kind: type[T], what: str, mend: str = MEND, *, own: bool = False, most: int = MOST_BYTES
) -> T:
    """The value of a JSON text, in UTF-8 with or without a byte order mark, as the type `kind`.

    Error messages call the text `what`, and end with `mend`, which says how to mend it. NaN, infinity and lone
    surrogates are refused. With `own` they are allowed, since older records of this program hold them. Raises
    `InputError` if the text is not JSON, does not fit `kind`, has more than `most` bytes, or is nested deeper than
    `DEEPEST`.
    """
    return _read(content, _parse_json, kind, (what, mend), own, most)


def decode_toml(content: bytes | str, kind: type[T], what: str, mend: str = MEND, *, most: int = MOST_BYTES) -> T:
    """The table of a TOML text as the type `kind`; otherwise as `decode`."""
    return _read(content, _parse_toml, kind, (what, mend), False, most)


def read(
    file: Path, kind: type[T], mend: str = MEND, *, hint: str = "", own: bool = False, most: int = MOST_BYTES
) -> T:
    """The value of a JSON file, or of a TOML file (by its suffix), as the type `kind`; see `decode`.

    Raises `InputError` as `decode` does, if the file is missing (the message ends with `hint`), and if it is not a
    regular file.
    """
    content = read_bytes(file, mend, hint=hint, most=most)
    if file.suffix.lower() == ".toml":
        return decode_toml(content, kind, str(file), mend, most=most)
    return decode(content, kind, str(file), mend, own=own, most=most)


def read_large(file: Path, kind: type[T], mend: str = MEND, *, most: int) -> T:
    """The value of a large JSON file, of which only that is built which `kind` (a `TypedDict`) names; else as `read`.

    A gigabyte takes seconds. What is not named is only checked for its syntax.
    """
    content = read_bytes(file, mend, most=most)
    if _decoded is None:
        return decode(content, kind, str(file), mend, most=most)
    try:
        return _decoded(memoryview(content)[3 * content.startswith(codecs.BOM_UTF8) :], type=kind)
    except ValidationError as error:
        raise InputError(_sentence(str(file), *_plain(str(error)), mend)) from None
    except RecursionError:
        raise InputError(f"{file} is nested too deep; {mend}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read (no JSON: {error}); {mend}") from None


def read_raw(value: Raw, kind: type[T], what: str, mend: str = MEND) -> T:
    """A part of a large JSON file that was left as it is there (a field of type `Raw`), as the type `kind`.

    Raises `InputError` if it does not fit.
    """
    if _decoded is None:
        return convert(value, kind, what, mend)
    try:
        return _decoded(value, type=kind)
    except (ValidationError, DecodeError) as error:
        raise InputError(_sentence(what, *_plain(str(error)), mend)) from None


def read_bytes(file: Path, mend: str = MEND, *, hint: str = "", most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises `InputError` for any other file.

    Reading a pipe could wait for ever, and a device may have no end.
    """
    try:
        files.require_regular(file)
        with file.open("rb") as stream:
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{file.parent} has no {file.name}{': ' + hint if hint else ''}") from None
    except (OSError, ValueError) as error:  # `ValueError` for a name with a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{file} cannot be read ({reason}); {mend}") from None
    if len(content) > most:
        raise InputError(f"{file} has more than {most:,} bytes; {mend}")
    return content


def convert(value: Any, kind: type[T], what: str, mend: str = MEND) -> T:
    """`value` (plain dicts, lists, texts and numbers) as the type `kind`. Raises `InputError` if it does not fit."""
    try:
        return _converted(value, kind)
    except ValidationError as error:
        raise InputError(_sentence(what, *_plain(str(error)), mend)) from None


def _read(
    content: bytes | str, parse: Callable[[str], Any], kind: type[T], told: tuple[str, str], own: bool, most: int
) -> T:
    """Parse a text and check it: its size, depth and numbers first, then its type."""
    what, mend = told
    if len(content) > most:
        raise InputError(f"{what} has more than {most:,} bytes; {mend}")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        value = parse(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is no UTF-8 (byte {error.start}); {mend}") from None
    except RecursionError:
        raise InputError(f"{what} is nested more than {DEEPEST} deep; {mend}") from None
    except ValueError as error:
        raise InputError(f"{what} cannot be read ({error}); {mend}") from None
    fault = _fault(value, own, DEEPEST)
    if fault is not None:
        raise InputError(_sentence(what, *fault, mend))
    return convert(value, kind, what, mend)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from None
    except ValueError:  # Python's own message is advice to programmers
        raise ValueError("a number has thousands of digits") from None


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"no TOML: {error}") from None


def _fault(value: Any, own: bool, depth: int) -> tuple[str, str] | None:
    """The place and the kind of the first fault in `value` that a schema cannot express; None if there is none."""
    if isinstance(value, str):
        return None if own or is_unicode(value) else ("", f"{value[:SHOWN]!a} holds half a character")
    if isinstance(value, float):
        return None if own or math.isfinite(value) else ("", f"{value} is no finite number")
    if not isinstance(value, dict | list):
        return None
    if not depth:
        return "", f"nested more than {DEEPEST} deep"
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        fault = _fault(name, own, depth) or _fault(part, own, depth - 1)
        if fault is not None:
            return (f".{name}" if isinstance(name, str) else f"[{name}]") + fault[0], fault[1]
    return None


def is_unicode(text: str) -> bool:
    """Whether `text` can be encoded as UTF-8, that is, holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sentence(what: str, place: str, trouble: str, mend: str) -> str:
    shown = place.removeprefix(".").encode("utf-8", "backslashreplace").decode()[:SHOWN]
    return f"{what}{f', at {shown}' if shown else ''}: {trouble}; {mend}"


def _plain(message: str) -> tuple[str, str]:
    """Place and fault from a message of `msgspec`, such as "Expected `int`, got `null` - at `$.crop`"."""
    message, _, place = message.partition(" - at ")
    plain = message.replace("`", "")
    return place.replace("`", "").removeprefix("$"), plain[0].lower() + plain[1:]
