"""The trackers that `--log` names: TensorBoard, Weights & Biases, Trackio. Each is one run of one log."""

import contextlib
import hashlib
import importlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from deepres.records import Json, Run
from deepres.runtime.errors import InputError, Say, install, reason_of

PROJECT = "deepres"  # in Weights & Biases and Trackio
PACKAGES = {
    "tensorboard": ("tensorboard", install("log")),
    "wandb": ("wandb", "pip install wandb"),
    "trackio": ("trackio", "pip install trackio"),
}


class Tracker(Protocol):
    """Where the figures of a run go to. It gets rows in the order of their iterations, from the first one on."""

    def write(self, iteration: int, figures: Mapping[str, float], age: float) -> None:
        """Write the figures of an iteration, which were recorded `age` seconds ago."""

    def close(self, failed: bool) -> None:
        """Write what is left; `failed` is true where the run has not come to its end."""


def require_trackers(names: Iterable[str]) -> None:
    """Raise `InputError` for a name that is no tracker, and where its package is missing."""
    for name in names:
        if name not in PACKAGES:
            raise InputError(f"--log is {name!r}, but must be one of {', '.join(PACKAGES)}")
        package, command = PACKAGES[name]
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"--log {name} needs the package {package}: {command}") from None


class TensorBoard:
    """Event files in RUN/tensorboard. A resumed run purges the log and writes all its rows anew."""

    def __init__(self, run: Run, say: Say):
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        self.writer = SummaryWriter(str(folder), purge_step=0)
        self.writer.add_text("configuration", as_markdown(run.config), 0)
        say(f"figures go to {folder}; look at them by: tensorboard --logdir {shlex.quote(str(run.path.parent))}")

    def write(self, iteration: int, figures: Mapping[str, float], age: float) -> None:
        """Write the figures and flush them: a kill loses nothing that a checkpoint knows of."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, iteration, time.time() - age)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Close the event file."""
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, whose files lie in RUN/wandb; `WANDB_PROJECT` and the like are heeded.

    A resumed run goes on in the same run: steps that it has are not written again. Offline (`WANDB_MODE=offline`) each
    start writes a whole run of the same name, the last of which is to be synced.
    """

    def __init__(self, run: Run, say: Say):
        wandb: Any = importlib.import_module("wandb")
        try:
            self.run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                dir=str(run.path),
                id=identity(run),
                name=run.path.resolve().name,
                config=run.config,
                resume="allow",
                allow_val_change=True,  # data may lie elsewhere now
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            told = "log in by `wandb login`, or set WANDB_MODE=offline"
            raise InputError(f"Weights & Biases refuses this run ({reason_of(error)}); {told}") from None
        kept = shlex.quote(str(Path(self.run.dir).parent))
        say(f"figures go to {kept}; wandb sync {kept} sends them" if self.run.offline else f"figures: {self.run.url}")

    def write(self, iteration: int, figures: Mapping[str, float], age: float) -> None:
        """Write the figures of a step that the run does not have yet."""
        if iteration >= self.run.step:
            self.run.log(dict(figures), step=iteration)

    def close(self, failed: bool) -> None:
        """Send what is left, and mark a run that has not come to its end."""
        self.run.finish(exit_code=int(failed))


class Trackio:
    """A run of Trackio's local store (`TRACKIO_DIR`). A resumed run is written anew in the place of the old one."""

    def __init__(self, run: Run, say: Say):
        trackio: Any = importlib.import_module("trackio")
        name = f"{run.path.resolve().name}-{identity(run)[:6]}"
        with contextlib.redirect_stdout(sys.stderr):  # it prints, and standard output is for results
            with contextlib.suppress(ValueError):  # there is no such project yet
                for old in trackio.Api().runs(PROJECT):
                    if old.name == name:
                        old.delete()
            self.run = trackio.init(PROJECT, name, config=run.config)
        say(f"figures go to Trackio as {name}; look at them by: trackio show --project {PROJECT}")

    def write(self, iteration: int, figures: Mapping[str, float], age: float) -> None:
        """Write the figures of a step."""
        self.run.log(dict(figures), step=iteration)

    def close(self, failed: bool) -> None:
        """Store what is left."""
        with contextlib.redirect_stdout(sys.stderr):
            self.run.finish()


TRACKERS: dict[str, Callable[[Run, Say], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def identity(run: Run) -> str:
    """A name of 16 letters for a run: the same after a resume, and another where its folder is begun anew."""
    begun = json.dumps([str(run.path.resolve()), run.config, run.environment[:1]], sort_keys=True)
    return hashlib.sha256(begun.encode()).hexdigest()[:16]


def as_markdown(config: Json) -> str:
    """The configuration as a table in Markdown, with the recipe's fields below the others."""
    fields = {name: value for name, value in config.items() if name != "recipe"}
    fields |= {f"recipe.{name}": value for name, value in config.get("recipe", {}).items()}
    rows = (f"| {name} | {json.dumps(value).replace('|', chr(92) + '|')} |" for name, value in fields.items())
    return "\n".join(["| field | value |", "| --- | --- |", *rows])
