"""JSON and TOML that others wrote: read by a schema, within bounds, refused in one sentence."""

import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from deepres.runtime import untrusted
from deepres.runtime.errors import InputError

msgspec = pytest.importorskip("msgspec", reason="types are checked by msgspec, which is not installed")
DEEP = 100_000


def trouble(content: bytes | str, kind: Any = Any, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        untrusted.decode(content, kind, "the file", "mend it", **how)
    return str(caught.value)


@pytest.mark.parametrize("text", ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * 65 + "]" * 65])
def test_json_nested_too_deep_is_a_sentence(text: str):
    assert "nested more than 64 deep; mend it" in trouble(text)
    assert untrusted.decode("[" * 64 + "]" * 64, list[Any], "the file")


def test_toml_nested_too_deep_is_a_sentence():
    for text in ("a=" + "[" * DEEP + "]" * DEEP, "a" + ".a" * 2_000 + "=1"):
        with pytest.raises(InputError, match="nested more than 64 deep"):
            untrusted.decode_toml(text, dict[str, Any], "the file")


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ('{"recipe": null}', dict[str, dict[str, Any]], "the file, at [...]: expected object, got null; mend it"),
        ("[1, 2.5]", list[int], "the file, at [1]: expected int, got float; mend it"),
        ("[]", dict[str, Any], "the file: expected object, got array; mend it"),
        ("5", Annotated[int, msgspec.Meta(le=4)], "the file: expected int <= 4; mend it"),
        ('{"loss": [1, NaN]}', Any, "the file, at loss[1]: nan is no finite number; mend it"),
        ('{"a": {"b": 1e999}}', Any, "the file, at a.b: inf is no finite number; mend it"),
        ('{"classes": ["\\ud800"]}', Any, "the file, at classes[0]: '\\ud800' holds half a character; mend it"),
        ('{"\\ud800": 1}', Any, "the file, at \\ud800: '\\ud800' holds half a character; mend it"),
        ("9" * 5_000, Any, "the file cannot be read (a number has thousands of digits); mend it"),
        ("", Any, "the file cannot be read (no JSON: Expecting value: line 1 column 1 (char 0)); mend it"),
    ],
)
def test_another_value_than_the_schema_is_named_with_its_place(text: str, kind: Any, sentence: str):
    assert trouble(text, kind) == sentence


def test_utf8_with_and_without_a_byte_order_mark_is_read_as_meant():
    for content in (b'{"a": "\xc3\xa9"}', b'\xef\xbb\xbf{"a": "\xc3\xa9"}', '\ufeff{"a": "é"}'):
        assert untrusted.decode(content, dict[str, str], "the file") == {"a": "é"}
    assert untrusted.decode_toml(b"\xef\xbb\xbfa = 1", dict[str, int], "the file") == {"a": 1}
    assert trouble(b'{"a": "\xe9"}') == "the file is no UTF-8 (byte 7); mend it"


def test_records_of_ours_may_hold_what_older_ones_wrote():
    read = untrusted.decode(b'["\\udce9", Infinity]', list[Any], "the record", own=True)
    assert read == ["\udce9", float("inf")]


def test_a_text_over_the_limit_is_not_parsed(tmp_path: Path):
    assert "more than 10 bytes" in trouble(b"[" * 11, most=10)
    with (tmp_path / "big.json").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(InputError, match=r"big.json has more than 16,777,216 bytes"):
        untrusted.read(tmp_path / "big.json", dict[str, Any])


def test_a_file_is_read_by_its_ending_and_only_where_it_is_a_regular_one(tmp_path: Path):
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "a.toml").write_text("a = 1")
    os.mkfifo(tmp_path / "pipe.json")
    assert untrusted.read(tmp_path / "a.json", list[int]) == [1]
    assert untrusted.read(tmp_path / "a.toml", dict[str, int]) == {"a": 1}
    for name, sentence in (
        ("pipe.json", "a named pipe, not a file"),
        (".", "a folder, not a file"),
        ("no.json", "has no no.json"),
    ):
        with pytest.raises(InputError, match=sentence):
            untrusted.read(tmp_path / name, Any)


@pytest.mark.parametrize("fast", [True, False])
def test_a_large_file_gives_what_its_type_names_and_nothing_else(tmp_path, monkeypatch, fast):
    """With a byte order mark and without; `msgspec` reads it without building the rest, and else `json` does."""
    if not fast:
        monkeypatch.setattr(untrusted, "_decoded", None)

    class Own(TypedDict):
        id: int

    file = tmp_path / "large.json"
    file.write_bytes(b"\xef\xbb\xbf" + b'[{"id": 1, "mask": [[0.5, 1e3]]}, {"id": 2}]')
    assert untrusted.read_large(file, list[Own], most=100) == [{"id": 1}, {"id": 2}]
    for content, reason in (
        (b'[{"id": 1.5}]', "expected int"),
        (b"[", "cannot be read"),
        (b" " * 101, "more than 100"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            untrusted.read_large(file, list[Own], most=100)
