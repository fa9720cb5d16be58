"""Write docs/tour.md, what the verbs print: python tools/make_tour.py PHOTOGRAPHS RUN [RUN...].

Runs each command of `TOUR` in an empty folder where PHOTOGRAPHS (class folders in `train/` and `test/`) is `flowers`,
and the runs of ResNet-18 on them are `runs/seed0`, `runs/seed1`, ...; fails where one ends in a traceback.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from deepres.records import write_text
from deepres.runtime.environment import describe_environment

DOC = Path(__file__).parents[1] / "docs" / "tour.md"
HEAD = """# A tour

What the verbs print, written by `python tools/make_tour.py` ({cpu}, {threads} threads, torch {torch}; commit {commit}).
The photographs are those of [Photographs](photographs.md), and so are the runs.
"""
TOUR = {
    "Before training": ("data flowers", "data check flowers", "data stats flowers", "info --compare"),
    "Training": (
        "train resnet18 --data flowers --set crop=64 --set sides=73,137 --batch-size 16 --iterations 20 --run runs/b",
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
}
SHOWN = 40  # lines of an output, from its start; where there are more, an ellipsis says so
WIDTH = "110"


def shown(command: str, folder: Path) -> str:
    """The command and what it prints, as a block of code."""
    run = subprocess.run(
        [sys.executable, "-m", "deepres", *command.split()],
        cwd=folder,
        env={**os.environ, "COLUMNS": WIDTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    lines = [line.rstrip() for line in run.stdout.splitlines()]
    if "Traceback (most recent call last):" in lines:
        raise SystemExit(f"deepres {command} broke:\n{run.stdout}")
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], "..."]
    code = [f"(exit code {run.returncode})"] * bool(run.returncode)
    return "\n".join(["```", f"$ deepres {command}", *lines, *code, "```", ""])


def main(photographs: str, *runs: str) -> None:
    environment = describe_environment()
    facts = environment | {"torch": environment["versions"]["torch"]}
    pages = [HEAD.format(**{name: facts[name] for name in ("cpu", "threads", "torch", "commit")})]
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "runs").mkdir()
        (folder / "flowers").symlink_to(Path(photographs).resolve())
        names = [f"runs/seed{number}" for number in range(len(runs))]
        for name, run in zip(names, runs, strict=True):
            (folder / name).symlink_to(Path(run).resolve())
        picture = min((folder / "flowers" / "test").glob("*/*")).relative_to(folder)
        weights = ",".join(["2", *["1"] * (len(runs) - 1)])
        places = {"runs": " ".join(names), "weights": weights, "picture": picture}
        for title, commands in TOUR.items():
            pages.append(f"## {title}\n")
            pages += [shown(command.format(**places), folder) for command in commands]
    write_text(DOC, "\n".join(pages))


main(*sys.argv[1:])
