"""A run folder: the files that a training run writes, and how they are read.

RUN/
  config.json       all settings that the run can be repeated from: network, data, seed, device, precision, recipe
  environment.json  an entry for each start: versions, processor, threads, commit, command
  metrics.jsonl     figures by iteration; the same run gives the same bytes, however often it was interrupted
  timing.jsonl      wall-clock seconds at the same iterations
  checkpoints/      the last two checkpoints, each with the rows up to it (see `deepres.weights.checkpoint`)
  pictures.safetensors   the pictures that it was trained and tested on (see `deepres.workflows.run_pictures`)
  done.json         the final figures, written last: a run with this file is complete
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, get_type_hints

from filelock import FileLock, Timeout

from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.runtime.figures import CLASSIFICATION, REPORTED, Reported, row_of
from deepres.runtime.files import missing, remove_empty, replacing, sweep
from deepres.runtime.untrusted import SHOWN, Meta

Json = dict[str, Any]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
RECORDS: tuple[str, ...] = (METRICS, TIMING)
DONE, DIGEST = "done.json", "metrics_sha256"
RESTORE = "move it away or restore it"


class _Recipe(TypedDict, total=False):
    name: str
    iterations: Count
    batch_size: int
    evaluate_every: int
    crop: Count


class _Config(TypedDict, total=False):
    """The fields of a configuration that other modules than `deepres.training.settings`, which checks all, read."""

    task: str
    network: str
    data: str
    split: str | None
    image_size: Count | None
    skip_bad: bool
    seed: Count
    num_classes: Count
    in_channels: Count | None
    classes: list[str]
    fingerprint: str
    kernels: str
    compile: str
    start: str | None
    data_path: str | None
    start_path: str | None
    division: str
    recipe: _Recipe


class _Row(TypedDict):
    """What a row has besides its figures, which are numbers."""

    iteration: Count


class _Finished(_Row):
    """The same of the final figures."""

    seconds: float
    images_per_second: NotRequired[float | None]
    metrics_sha256: NotRequired[str | None]


@dataclass(frozen=True)
class Run:
    """A run folder, whose files are read on demand. `path` need not exist yet."""

    path: Path

    @property
    def config(self) -> Json:
        """The recorded configuration. Raises `InputError` where the folder is not a run."""
        return read_record(self.path / "config.json", _Config, hint="is it a run folder of `deepres train`?")

    @property
    def task(self) -> str:
        """The kind of task that the run is of. Raises `InputError` for an unknown one, and as `config` does."""
        task = self.config.get("task", CLASSIFICATION)
        if task not in REPORTED:
            known = f"this version knows {', '.join(REPORTED)}"
            raise InputError(f"{self.path} is a run of the task {task!r}, but {known}; update deepres")
        return task

    @property
    def reported(self) -> Reported:
        """The figures that the run records. Raises `InputError` as `task` does."""
        recipe = self.config.get("recipe", {})
        return REPORTED[row_of(self.task, recipe.get("part"))]

    def field(self, name: str) -> Any:
        """A field of the configuration. Raises `InputError` where the configuration lacks it."""
        config = self.config
        if name not in config:
            raise InputError(f"{self.path / 'config.json'} has no field {name!r}; restore it, or leave this run out")
        return config[name]

    @property
    def environment(self) -> list[Json]:
        """An entry for each start of the run, in order."""
        file = self.path / "environment.json"
        return untrusted.read(file, list[Json], RESTORE, own=True) if file.exists() else []

    @property
    def done(self) -> Json | None:
        """The final figures, or None while the run is not complete."""
        file = self.path / DONE
        if not file.exists():
            return None
        done = _figures(read_record(file), _Finished, str(file), RESTORE)
        main = self.reported.main if (self.path / "config.json").exists() else ()
        if lacking := [figure.key for figure in main if figure.key not in done]:
            raise InputError(f"{file}: it lacks {lacking[0]}; {RESTORE}")
        return done

    @property
    def exists(self) -> bool:
        """Whether a run was started here. A config.json alone does not tell: other programs write one, too."""
        file = self.path / "config.json"
        if not file.exists() or any((self.path / name).exists() for name in ("environment.json", "checkpoints")):
            return file.exists()
        return {"network", "data", "recipe"} <= read_record(file).keys()

    @property
    def begun(self) -> bool:
        """Whether the run has trained: it has a checkpoint, or is complete."""
        return self.done is not None or any((self.path / "checkpoints").glob("[0-9]*"))

    @contextmanager
    def locked(self) -> Generator[None]:
        """Make the folder and lock it for this process; the lock of a killed process is free again.

        Half-written files of processes that have ended are removed. If the run is refused, all that was made here is
        removed again. Raises `InputError` where another process holds the lock.
        """
        lock = self.path / ".lock"
        made = missing(lock)
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                sweep(self.path)
                try:
                    yield
                finally:
                    if not (self.path / "environment.json").exists():  # every run that was not refused has it
                        remove_empty(made)
        except Timeout:
            raise InputError(f"another process is at work on {self.path}; wait for it, or give another --run") from None

    def metrics(self) -> list[Json]:
        """Rows of `metrics.jsonl` in order of iteration, without a half-written last line.

        A row has `iteration` (steps done) and either the training figures over the window that ends there (with
        `train_loss` and `lr`) or the test figures: see `runtime.figures`. Raises `InputError` where the file of a
        finished run has been changed.
        """
        file = self.path / METRICS
        known = (self.done or {}).get(DIGEST)
        if known is not None and digest(file) != known:
            raise InputError(
                f"{file} is not what the run wrote; deepres train --run {self.path} takes its rows from the last "
                "checkpoint"
            )
        return read_lines(file)

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of the figure `key`, for example `train_error`."""
        rows = [row for row in self.metrics() if key in row]
        return [row["iteration"] for row in rows], [row[key] for row in rows]

    def timing(self) -> list[Json]:
        """Rows of `timing.jsonl`: `iteration`, and `seconds` of work so far; a second row stands behind its test."""
        return read_lines(self.path / TIMING)


def digest(file: Path) -> str | None:
    """The SHA-256 of the content of a file, in hexadecimal; None where there is no file."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def read_lines(file: Path) -> list[Json]:
    """Rows of a JSON-lines file, each with an `iteration`, without a last line that a kill has cut short.

    Raises `InputError` for any other damaged line.
    """
    if not file.exists():
        return []
    content = untrusted.read_bytes(file, RESTORE)
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    mend, rows = "delete the run folder to start it anew", list[Json]()
    for number, line in enumerate(lines, 1):
        what = f"{file} is damaged: line {number}"
        rows.append(_figures(_known(line, what, mend), _Row, what, mend))
    return rows


def _figures(record: Json, kind: type, what: str, mend: str) -> Json:
    """`record`, whose fields are those of `kind` and figures. Raises `InputError` for another value than a number."""
    for name in record.keys() - get_type_hints(kind).keys():
        untrusted.convert(record[name], float, f"{what}, at {name[:SHOWN]}", mend)
    untrusted.convert(record, kind, what, mend)
    return record


def _known(content: bytes, what: str, mend: str, *kinds: type) -> Json:
    """A JSON object with checked fields of `kinds`. Raises `InputError`: `what` is damaged, and how to `mend` it."""
    record = untrusted.decode(content, Json, what, mend, own=True)
    for kind in kinds:
        untrusted.convert(record, kind, what, mend)
    return record


def append_line(file: Path, row: Mapping[str, Any]) -> None:
    """Append one row; it has reached the operating system when this returns."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def flush(file: Path) -> None:
    """Write the rows of `file`, if it exists, through to the disk."""
    if file.exists():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def cut_after(file: Path, iteration: int) -> None:
    """Drop the rows after `iteration` atomically; a resumed run writes them again."""
    rows = [row for row in read_lines(file) if row["iteration"] <= iteration]
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))


def write_json(file: Path, value: Mapping[str, Any] | Iterable[Any]) -> None:
    """Write JSON atomically: after a power cut the file is the old one or the whole new one."""
    write_text(file, json.dumps(value, indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write text atomically, by a file beside it that takes its name."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def read_record(file: Path, *kinds: type, hint: str = "", mend: str = RESTORE) -> Json:
    """The JSON object in a file. Raises `InputError` where it is missing (with `hint`), damaged or unlike `kinds`."""
    return _known(untrusted.read_bytes(file, mend, hint=hint), str(file), mend, *kinds)
