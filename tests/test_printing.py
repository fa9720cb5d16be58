"""What names of files, folders and classes do to a terminal and to a spreadsheet: nothing."""

import ast
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

import deepres as package
from deepres.runtime.printing import Console, marked, visible

CLASSES = ("=cmd", "b\x1b[31m\u202ex")
PICTURE = "+0\n\t\x9b\x7f.png"
SHOWN = r"+0\n\t\x9b\x7f"
COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SOURCES = sorted(Path(package.__file__).parent.rglob("*.py"))


def put_pictures(root, most=(6, 2)):
    random = np.random.default_rng(0)
    for part, count in zip(("train", "test"), most, strict=True):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (32, 32, 3)) + 120 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{number}{PICTURE}")


@pytest.fixture
def hostile(tmp_path):
    """A folder whose class names and file names command terminals and spreadsheets."""
    root = tmp_path / "da\x1b]0;title\x07ta"
    put_pictures(root)
    return root


def obeyed(result):
    """Every character that a terminal would obey in what was printed."""
    return COMMANDS.findall(result.stdout + result.stderr)


def test_every_character_that_a_terminal_obeys_is_shown_as_an_escape():
    told = "a\x00\t\n\r\x1b[0m\x7f\x9b\u200e\u2028\u202e\u2066\ud83d\udcff é–猫"
    assert visible(told) == r"a\x00\t\n\r\x1b[0m\x7f\x9b\u200e\u2028\u202e\u2066\ud83d\udcff é–猫"
    assert visible(visible(told)) == visible(told)


@pytest.mark.parametrize(
    ("cell", "written"),
    [("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@A1", "'@A1"), ("\t=1", "'\t=1"), ("a=1", "a=1"), ("", "")],
)
def test_a_cell_that_a_spreadsheet_would_compute_has_an_apostrophe(cell, written):
    assert marked(cell) == written


def test_the_console_shows_them_in_strings_texts_tables_and_bars(capsys):
    table = Table("one\x1b[2J", title="of\x07")
    table.add_row(Text("two\x1b[31m", "bold"))
    for printed in ("one\x1b[31m\n", Text.assemble(("two\x1b", "bold"), "\x1b[31m"), table):
        Console().print(printed, markup=False)
    assert not COMMANDS.findall(capsys.readouterr().out)


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_terminal_without_columns_is_shown_all_the_same(monkeypatch, capsys, columns):
    """As of serial lines and programs that play a terminal."""
    table = Table("name")
    table.add_row("resnet20")
    monkeypatch.setenv("COLUMNS", columns)
    Console().print(table)
    assert "resnet20" in capsys.readouterr().out


def test_no_module_prints_in_another_way():
    """The console of `printing` is the only one; what is echoed is JSON, which escapes by itself."""
    for file in SOURCES:
        text = file.read_text(encoding="utf-8")
        if file.name != "printing.py":
            assert "from rich.console import" not in text, file
        assert all("json" in line for line in text.splitlines() if "typer.echo(" in line), file


def test_no_verb_lets_a_name_command_the_terminal(deepres, hostile, tmp_path):
    """Training, tests, predictions, conversions and what is said of the data."""
    (hostile / "train" / CLASSES[1] / "br\x1boken.png").write_bytes(b"no picture")
    run = "ru\x1bn"
    how = ("--iterations", 2, "--batch-size", 4, "--kernels", "off", "--lr", 0.01, "--skip-bad", "--run", run)
    for command in (
        ("train", "resnet8", "--data", hostile, *how),
        ("data", "info", hostile, "--skip-bad"),
        ("data", "check", hostile, "--workers", 0),
        ("eval", run),
        ("predict", run, hostile),
        ("convert", run, "--to", "out\x1b.safetensors"),
        ("report", run),
        ("info", "res\x1bnet"),
        ("info", "resnet20", "more\x1b"),
        ("predict", run, "gone\x1b.png"),
        ("--wrong\x1b",),
    ):
        result = deepres(*command)
        assert not obeyed(result), command
        assert "Traceback" not in result.stderr
        assert r"\x1b" in result.stdout + result.stderr, command


def test_a_line_end_in_a_name_makes_no_new_line(deepres, hostile):
    (hostile / "train" / CLASSES[1] / PICTURE).write_bytes(b"no picture")
    said = deepres("data", "check", hostile, "--workers", 0).stdout.splitlines()
    assert len(said) == 2
    assert rf"b\x1b[31m\u202ex/{SHOWN}.png: " in said[0]


def test_csv_keeps_names_but_for_formulas_and_json_keeps_them_all(deepres, hostile, tmp_path):
    how = ("--iterations", 2, "--batch-size", 4, "--kernels", "off", "--lr", 0.01, "--run", "run")
    assert deepres("train", "resnet8", "--data", hostile, *how).returncode == 0
    (tmp_path / PICTURE).write_bytes((hostile / "test" / CLASSES[0] / f"0{PICTURE}").read_bytes())
    rows = list(csv.reader(deepres("predict", "run", PICTURE, "--format", "csv").stdout.splitlines(keepends=True)))
    assert rows[0] == ["picture", "rank", "class", "score"]
    assert {(row[0], row[2]) for row in rows[1:]} == {(f"'{PICTURE}", "'=cmd"), (f"'{PICTURE}", CLASSES[1])}
    line = json.loads(deepres("predict", "run", PICTURE, "--format", "jsonl").stdout)
    assert line["picture"] == PICTURE
    assert {one["class"] for one in line["top"]} == set(CLASSES)


def test_a_list_of_wrong_images_marks_what_a_spreadsheet_would_compute(deepres, hostile, tmp_path):
    """Tested with the classes exchanged by their names' places, half of all images and more are wrong."""
    how = ("--iterations", 2, "--batch-size", 4, "--kernels", "off", "--lr", 1e-9, "--run", "run")
    assert deepres("train", "resnet8", "--data", hostile, *how).returncode == 0
    assert deepres("eval", "run", "--wrong", "wrong.csv").returncode == 0
    with (tmp_path / "wrong.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert rows
    assert {row["true"] for row in rows} | {row["predicted"] for row in rows} == {"'=cmd", CLASSES[1]}


def test_a_page_shows_control_characters_and_holds_none(deepres, hostile):
    how = ("--iterations", 2, "--batch-size", 4, "--kernels", "off", "--lr", 0.01)
    for seed in (0, 1):
        more = ("--seed", seed, "--run", f"r\x1b\u202e{seed}", "--set", f"momentum=0.{seed + 1}")
        assert deepres("train", "resnet8", "--data", hostile, *how, *more).returncode == 0
    assert deepres("report", "r\x1b\u202e0", "r\x1b\u202e1", "--out", "page.html").returncode == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert not COMMANDS.findall(page)
    assert page.count(r"r\x1b\u202e0") >= 2  # of the curve and in the table


def opens_text(call):
    name = ast.unparse(call.func)
    modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    files = (name == "open" or name.endswith(".open")) and name not in ("os.open", "Image.open", "tarfile.open")
    return name.endswith((".read_text", ".write_text", ".fdopen")) or (files and not any("b" in mode for mode in modes))


def test_every_text_file_is_opened_in_an_encoding_that_is_named():
    """Whatever the locale, a page, a configuration and a list are UTF-8, and what programs say is read as such."""
    unnamed, seen = [], 0
    for file in SOURCES:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                given = {keyword.arg for keyword in call.keywords}
                asks = opens_text(call) or ("text" in given and ast.unparse(call.func).startswith("subprocess"))
                seen += asks
                if asks and "encoding" not in given:
                    unnamed.append(f"{file.name}:{call.lineno}")
    assert seen > 10 and unnamed == []
