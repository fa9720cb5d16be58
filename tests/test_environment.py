"""Closed streams, narrow encodings, users without a home: a sentence or another character, never a traceback."""

import os
import pwd
import shlex
import subprocess
import sys

import pytest

from deepres import cli
from deepres.commands.console import sayer
from deepres.runtime.printing import Console

DEEPRES = f"{shlex.quote(sys.executable)} -m deepres"
# The locale as of old systems: Python would turn to UTF-8 by itself, if it were not told to leave it.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STRANGER = """
import pwd, sys
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
from deepres.cli import main
main()
"""
TRAINING = ("--iterations", "2", "--batch-size", "4", "--lr", "0.01")

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="shells and /dev are not such here")]


@pytest.fixture
def shell(tmp_path):
    """A line of a shell, in which `deepres` is the command line."""

    def run(line, **environment):
        text = f'set -o pipefail; deepres() {{ {DEEPRES} "$@"; }}; {line}'
        env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=env, capture_output=True, timeout=240)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, done.stderr.decode()
        return done

    return run


@pytest.fixture
def stranger(tmp_path):
    """The command line of a user whom the system does not know, without HOME but for what is given."""

    def run(*arguments, **environment):
        left = {name: value for name, value in os.environ.items() if name not in ("HOME", "DEEPRES_CACHE")}
        command = [sys.executable, "-c", STRANGER, *map(str, arguments)]
        env = left | {"OMP_NUM_THREADS": "1"} | environment
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def stranger_refused(refused, monkeypatch):
    """What such a user is told in one sentence; in this process, since what is refused has no start of its own."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    def run(*arguments, **environment):
        with monkeypatch.context() as patch:
            patch.setattr(pwd, "getpwuid", unknown)
            patch.delenv("HOME", raising=False)
            patch.delenv("DEEPRES_CACHE")
            for name, value in environment.items():
                patch.setenv(name, value)
            return refused(*arguments)

    return run


def test_what_is_printed_to_a_closed_output_is_not_written_into_a_file(shell, folder, tmp_path):
    """Files that are opened take the numbers of streams that are closed."""
    line = f"deepres train resnet8 --data {folder} {' '.join(TRAINING)} --kernels off --run run >&- 2>&- <&-"
    assert shell(line).returncode == 0
    assert (tmp_path / "run" / "done.json").read_text().startswith("{")
    written = [file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(written) > 5 and not any(b"resnet8 after" in content for content in written)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("deepres info resnet20 >&-", 0, b""),
        ("deepres info nothing 2>&-", 2, b""),
        ("deepres info nothing >&- 2>&-", 2, b""),
        ("deepres info >/dev/full", 2, b"error: the disk is full: [Errno 28] No space left"),
        ("deepres info nothing 2>/dev/full", 2, b""),
        ("deepres info | true", 1, b""),
        ("deepres info --json | true", 1, b""),
    ],
)
def test_a_stream_that_takes_nothing_is_no_traceback(shell, line, code, said):
    done = shell(line)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(said) and bool(said) == bool(done.stderr)


def test_training_goes_on_where_nobody_can_be_told(shell, folder, tmp_path):
    """As of a terminal that is gone, whose lines cannot be written."""
    line = f"deepres train resnet8 --data {folder} {' '.join(TRAINING)} --kernels off --run run 2>/dev/full"
    done = shell(line)
    assert done.returncode == 0 and b"resnet8 after 2 iterations" in done.stdout
    assert (tmp_path / "run" / "done.json").exists()


def test_a_name_that_fills_screens_is_cut_in_its_middle(refused, capfd):
    message = refused("info", "a" * 100_000 + "z")
    assert len(message) < 20_100 and "aaa ... aaa" in message
    sayer(Console(stderr=True))("\0" * 100_000)
    assert capfd.readouterr().err == rf"{chr(92)}x00" * 2_500 + " ... " + rf"{chr(92)}x00" * 2_500 + "\n"


def test_names_from_a_closed_input_are_none(shell, deepres, folder):
    assert deepres("train", "resnet8", "--data", folder, *TRAINING, "--kernels", "off", "--run", "run").returncode == 0
    done = shell("deepres predict run - <&-")
    assert done.returncode == 2
    assert done.stderr == b"error: - takes file names from standard input, a line each, and none came\n"


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "latin-1"}])
def test_info_is_readable_in_a_narrow_encoding(shell, environment):
    told = shell("deepres info", **environment).stdout.decode("latin-1")
    assert "Table 1" in told and "6n+2" in told
    assert "\\u" not in told and "?" not in told


def test_a_run_and_its_page_are_utf_8_in_an_ascii_locale(shell, folder, tmp_path):
    """Names of files that are not in the locale's encoding are given back as the bytes that they are."""
    (tmp_path / "blüte").symlink_to(folder)
    (tmp_path / "ä.png").write_bytes(next((folder / "test" / "ant").iterdir()).read_bytes())
    train = f"deepres train resnet8 --data blüte {' '.join(TRAINING)} --kernels off --run läufe/1"
    done = shell(f"{train} && deepres report läufe/1 && deepres predict läufe/1 ä.png --format csv", **ASCII)
    assert done.returncode == 0, done.stderr
    assert "ä.png,1,".encode() in done.stdout
    assert "–" in (tmp_path / "läufe" / "1" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "läufe" / "1" / "config.json").read_bytes().decode("ascii")


def test_a_name_that_the_locale_cannot_write_is_one_sentence():
    """Recorded in another locale, and opened here; the error is Python's own."""
    with pytest.raises(UnicodeEncodeError) as error:
        "blüte".encode("ascii")
    told = cli._sentence(error.value)
    assert told == r"'bl\xfcte' is no name of a file in this environment (ascii); set LC_ALL=C.UTF-8"


def test_without_a_home_the_place_of_the_cache_is_asked_for(stranger, stranger_refused, folder):
    train = ("train", "resnet8", "--data", folder, *TRAINING, "--run", "run")
    told = stranger_refused(*train)
    assert "error: this user has no home folder" in told and "set DEEPRES_CACHE to" in told
    done = stranger(*train, DEEPRES_CACHE=os.environ["DEEPRES_CACHE"])
    assert done.returncode == 0, done.stderr
    assert stranger("report", "run").returncode == 0


def test_a_home_that_cannot_be_written_costs_what_is_kept_and_is_told(stranger, stranger_refused, folder):
    """/proc takes no folder, not even of root, whom permissions do not stop."""
    done = stranger("train", "resnet8", "--data", folder, *TRAINING, "--run", "run", HOME="/proc")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("set DEEPRES_CACHE to a folder that can be written") == 2  # for kernels and for images
    for verb, data in (("check", folder), ("stats", folder)):
        assert "set DEEPRES_CACHE to" in stranger_refused("data", verb, data, HOME="/proc")


def test_a_home_that_is_the_root_is_a_home(stranger_refused):
    assert "there-is-no-such-data" in stranger_refused(
        "train", "resnet8", "--data", "~/there-is-no-such-data", HOME="/"
    )


@pytest.mark.parametrize("data", ["~/data", "~nobody-of-this-name/data"])
def test_a_path_from_a_home_that_is_not_known_is_one_sentence(stranger_refused, data):
    assert "error: the home folder is not known" in stranger_refused("data", "info", data)
