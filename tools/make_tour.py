"""Write the pages docs/tour*.md, what the verbs print.

    python tools/make_tour.py photographs|boxes|masks|objects FOLDER RUN [RUN...]

Runs each command of a tour in an empty folder where FOLDER is called as in the tour, and the runs on it are
`runs/seed0`, `runs/seed1`, ...; fails where one ends in a traceback.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from deepres.records import write_text
from deepres.runtime.environment import describe_environment

DOCS = Path(__file__).parents[1] / "docs"
MADE = "What the verbs print, written by `python tools/make_tour.py` ({machine}; commit {commit})."


@dataclass(frozen=True)
class Tour:
    """A page: its file, its title and what it says first, what FOLDER is called, where a picture lies, its commands."""

    file: str
    title: str
    about: str
    data: str
    picture: str
    commands: Mapping[str, tuple[str, ...]]


TOURS = {
    "photographs": Tour(
        "tour.md",
        "A tour",
        "The photographs are those of [Photographs](photographs.md), and so are the runs.",
        "flowers",
        "test/*/*",
        {
            "Before training": ("data flowers", "data check flowers", "data stats flowers", "info --compare"),
            "Training": (
                "train resnet18 --data flowers --set crop=64 --set sides=73,137 --batch-size 16 --iterations 20 "
                "--run runs/b",
            ),
            "Testing": (
                "eval runs/seed0 --data flowers",
                "eval {runs} --data flowers --save-scores together.safetensors",
                "eval together.safetensors --member-weights {weights}",
                "eval runs/seed0 --data flowers --protocol 10-crop",
                "eval runs/seed0 --data flowers --protocol dense --wrong wrong.csv",
                "reproduce table2 --scale smoke --data flowers",
                "bench infer resnet18 --against torchvision --against onnxruntime --pairs 3",
            ),
            "Using": (
                "predict runs/seed0 {picture} --protocol dense",
                "predict runs/seed0 flowers/test --top 2 --format csv",
                "convert runs/seed0 --to mine.safetensors",
                "convert mine.safetensors --to torchvision.pth",
                "export mine.safetensors --out mine.onnx --preprocess",
                "export mine.safetensors --out mine.pt2",
                "export mine.safetensors --out small.xml --preprocess --int8 --calibrate flowers/train",
                "eval small.xml mine.safetensors --data flowers",
                "finetune mine.safetensors --data flowers --freeze conv1,conv2_x --iterations 20 --run runs/finetuned",
            ),
            "Errors": ("predict mine.safetensors nowhere.jpg", "train resnet50x --data flowers"),
        },
    ),
    "boxes": Tour(
        "tour-detection.md",
        "A tour of detection",
        "The pictures are the blood cells of [Detection](detection.md), and the run is the first one there.",
        "cells",
        "JPEGImages/*",
        {
            "Before training": ("data info cells", "data check cells"),
            "Training": ("train detector --data cells --backbone resnet18 --iterations 20 --run runs/brief",),
            "Testing": ("eval runs/seed0", "eval runs/seed0 --refine --wrong mistakes", "report runs/seed0"),
            "Using": (
                "detect runs/seed0 {picture} --draw drawn",
                "detect runs/seed0 {picture} --format csv",
                "detect runs/seed0 {picture} --format coco --threshold 0.9",
                "export runs/seed0 --out cells.onnx --calibrate drawn",
                "eval cells.onnx --data cells",
                "finetune runs/seed0 --data cells --iterations 20 --run runs/finetuned",
                "reproduce table9 --scale smoke --data cells",
            ),
            "Errors": (
                "predict runs/seed0 {picture}",
                "train resnet18 --data cells",
                "train detector --data cells",
            ),
        },
    ),
    "masks": Tour(
        "tour-segmentation.md",
        "A tour of segmentation",
        "The pictures are the eight of [Segmentation](segmentation.md#photographs-of-coco), and so is the run.",
        "eight",
        "val2017/*",
        {
            "Before training": ("data check eight",),
            "Training": ("train segmenter --data eight --backbone resnet18 --iterations 10 --run runs/brief",),
            "Testing": ("eval runs/seed0 --wrong mistakes", "report runs/seed0"),
            "Using": (
                "detect runs/seed0 {picture} --draw drawn",
                "detect runs/seed0 {picture} --format coco --threshold 0.9",
                "export runs/seed0 --out masks.onnx --calibrate drawn",
                "eval masks.onnx --data eight",
                "reproduce masks --scale smoke --data eight",
            ),
            "Errors": ("predict runs/seed0 {picture}", "train segmenter --data eight"),
        },
    ),
    "objects": Tour(
        "tour-localization.md",
        "A tour of localization",
        "The pictures are the single cells of [Localization](localization.md), and so are the runs.",
        "cells",
        "JPEGImages/*",
        {
            "Before training": ("data info cells",),
            "Training": (
                "train localizer --data cells --backbone resnet18 --set crop=128 --iterations 20 --run runs/brief",
                "train localizer --data cells --backbone resnet18 --set crop=128 --set rpn=runs/brief --iterations 20 "
                "--run runs/brief-rcnn",
            ),
            "Testing": (
                "eval runs/seed0 --protocol center",
                "eval {runs} --protocol center",
                "report runs/seed1",
                "reproduce table13 --scale smoke --data cells",
            ),
            "Errors": (
                "detect runs/seed0 {picture}",
                "train localizer --data cells",
                "export runs/seed0 --out rpn.onnx",
            ),
        },
    ),
}
SHOWN = 40  # lines of an output, from its start; where there are more, an ellipsis says so
WIDTH = "110"


def shown(command: str, folder: Path, names: Mapping[str, str]) -> str:
    """The command and what it prints, as a block of code. `names` has what is shown in place of folders elsewhere."""
    run = subprocess.run(
        [sys.executable, "-m", "deepres", *command.split()],
        cwd=folder,
        env={**os.environ, "COLUMNS": WIDTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    # Runs record the data by the resolved path, which holds on this machine alone.
    told = run.stdout
    for place, name in names.items():
        told = told.replace(place, name)
    lines = [line.rstrip() for line in told.splitlines()]
    if "Traceback (most recent call last):" in lines:
        raise SystemExit(f"deepres {command} broke:\n{run.stdout}")
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], "..."]
    code = [f"(exit code {run.returncode})"] * bool(run.returncode)
    return "\n".join(["```", f"$ deepres {command}", *lines, *code, "```", ""])


def main(name: str, data: str, *runs: str) -> None:
    tour, environment = TOURS[name], describe_environment()
    threads = environment["threads"]
    used = f"{threads} thread{'s' if threads > 1 else ''}"
    machine = f"{environment['cpu']}, {used}, torch {environment['versions']['torch']}"
    made = MADE.format(machine=machine, commit=environment["commit"])
    pages = [f"# {tour.title}\n\n{made}\n{tour.about}\n"]
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "runs").mkdir()
        (folder / tour.data).symlink_to(Path(data).resolve())
        names = [f"runs/seed{number}" for number in range(len(runs))]
        resolved = {str(Path(data).resolve()): tour.data, f"{folder}/": ""}
        if cache := os.environ.get("DEEPRES_CACHE"):
            resolved[cache] = "~/.cache/deepres"
        for own, run in zip(names, runs, strict=True):
            (folder / own).symlink_to(Path(run).resolve())
            resolved[str(Path(run).resolve())] = own
        picture = min((folder / tour.data).glob(tour.picture)).relative_to(folder)
        weights = ",".join(["2", *["1"] * (len(runs) - 1)])
        places = {"runs": " ".join(names), "weights": weights, "picture": picture}
        for title, commands in tour.commands.items():
            pages.append(f"## {title}\n")
            pages += [shown(command.format(**places), folder, resolved) for command in commands]
    write_text(DOCS / tour.file, "\n".join(pages))


main(*sys.argv[1:])
