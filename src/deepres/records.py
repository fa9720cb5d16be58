"""A run folder: everything that one training run writes down, and how it is read back.

RUN/
  config.json       what re-creates the run: network, data, seed, device, precision, recipe
  environment.json  one entry a start: versions, processor, threads, commit, command
  metrics.jsonl     deterministic: the same run gives the same bytes, however often it was interrupted
  timing.jsonl      wall-clock seconds at the same iterations
  checkpoints/      the last two (see `deepres.training.checkpoint`)
  pictures.safetensors   which pictures it was trained and tested on (see `deepres.experiments.pictures`)
  done.json         written last: the final figures; its presence says that the run is complete
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from deepres.errors import InputError
from deepres.files import replacing

Json = dict[str, Any]
VECTORS = {"avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX", "sve": "SVE"}


@dataclass(frozen=True)
class Run:
    """A run folder, read lazily. `path` need not exist yet."""

    path: Path

    @property
    def config(self) -> Json:
        """The recorded configuration. Raises `InputError` where the folder is not a run."""
        return read_record(self.path / "config.json", hint="is it a run folder of `deepres train`?")

    @property
    def environment(self) -> list[Json]:
        """One entry for each start of the run, the first one first."""
        file = self.path / "environment.json"
        return read_json(file) if file.exists() else []

    @property
    def done(self) -> Json | None:
        """The final figures, or None while the run is not complete."""
        file = self.path / "done.json"
        return read_record(file) if file.exists() else None

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.json").exists()

    @property
    def begun(self) -> bool:
        """Whether it has trained: there is a checkpoint, or all of it is done."""
        return self.done is not None or any((self.path / "checkpoints").glob("[0-9]*"))

    @contextmanager
    def locked(self) -> Generator[None]:
        """Make the folder and hold it for this process alone; a killed process lets go of it.

        Raises `InputError` where another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise InputError(f"another process is at work on {self.path}; wait for it, or give another --run") from None

    def metrics(self) -> list[Json]:
        """Rows of `metrics.jsonl`, in order of iteration; a half-written last line is left out.

        A row has `iteration` (steps done) and either the training figures over the window that ends there
        (`train_error` in %, `train_loss`, `lr`) or the test figures (`test_error`, `test_top5_error` in %).
        """
        return read_lines(self.path / "metrics.jsonl")

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one figure, for example `train_error`."""
        rows = [row for row in self.metrics() if key in row]
        return [row["iteration"] for row in rows], [row[key] for row in rows]

    def timing(self) -> list[Json]:
        """Rows of `timing.jsonl`: `iteration` and `seconds` of work so far, at every test."""
        return read_lines(self.path / "timing.jsonl")


def read_lines(file: Path) -> list[Json]:
    """Rows of a JSON-lines file, each with an `iteration`; a last line without its newline (a kill) is left out.

    Raises `InputError` for a damaged line before it.
    """
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [row | {"iteration": int(row["iteration"])} for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); delete the run folder to start it anew") from None


def append_line(file: Path, row: Mapping[str, Any]) -> None:
    """Append one row, flushed to the operating system before returning."""
    with file.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def flush(file: Path) -> None:
    """See that what was appended to `file`, if it is there, is on the disk."""
    if file.exists():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def cut_after(file: Path, iteration: int, untested: bool = False) -> None:
    """Drop the rows past `iteration`, where it is `untested` its test as well, so that a resumed run writes them again.

    The file is replaced at once.
    """

    def is_past(row: Json) -> bool:
        of_test = "test_error" in row or "seconds" in row
        return row["iteration"] > iteration - (untested and of_test)

    rows = [row for row in read_lines(file) if not is_past(row)]
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))


def write_json(file: Path, value: Mapping[str, Any] | Iterable[Any]) -> None:
    """Write JSON atomically: a reader, or a power cut, sees the old file or the whole new one."""
    write_text(file, json.dumps(value, indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write text atomically (write, fsync, rename)."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def describe_environment() -> Json:
    """Versions, processor, threads, commit and command of this process."""
    import psutil
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["deepres", *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {name: metadata.version(name) for name in ("deepres", "torch", "torchvision", "numpy")}
        | {"python": platform.python_version()},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": cuda,
    }


def _commit() -> str | None:
    """The commit of the source tree, `+` where it has changes; None outside a checkout, also within another's."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+")
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    """The processor's name and, since a maker gives one name to several, its widest vectors."""
    import torch

    features = torch.cpu.get_capabilities()
    vectors = [name for feature, name in VECTORS.items() if features.get(feature)]
    return f"{_model_name()} ({', '.join(vectors)})" if vectors else _model_name()


def _model_name() -> str:
    """`platform.processor()` is empty on most Linux machines."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def read_json(file: Path, hint: str = "") -> Any:
    """The JSON value from a file. Raises `InputError`, with `hint`, where it is missing or damaged."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{file.parent} has no {file.name}{': ' + hint if hint else ''}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}); move it away or restore it") from None


def read_record(file: Path, hint: str = "") -> Json:
    """The JSON object from a file. Raises `InputError` as `read_json`, and where the file has another value."""
    value = read_json(file, hint)
    if not isinstance(value, dict):
        raise InputError(f"{file} is no JSON object; move it away or restore it")
    return cast(Json, value)
