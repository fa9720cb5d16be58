"""Check and measure deepres on a GPU, from the source tree: PYTHONPATH=src python benchmarks/gpu.py

Parts (--parts, with commas; each prints what it does, and takes less than four minutes on an H100):
  limits     a product of bf16 and a copy in the GPU's memory
  tests      the tests marked gpu
  resnet20, resnet56, resnet110   training at 32 pixels against textbook and tuned
  resnet50   a training step at 224 pixels against tuned, torchvision and timm
  inference  scores of resnet50 in batches of 1, 32 and 256
  contests   all of the last three lines
  pictures   training of resnet50 from a folder of JPEG files (--pictures)
  fast       the recipe fast to the error of the paper's recipe
  resume     a run that was stopped ends with the bits of one that was not
Rows of Table 6 at the paper's full recipe are trained with --table6 MINUTES; the next call goes on.

Figures go to gpu.json in the folder --out, by default $OUT or build/gpu; a table of them comes last.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import gpu_runs

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("resnet20", "resnet56", "resnet110")
CONTESTS = (*SMALL, "resnet50", "inference")
PARTS = ("limits", "tests", *CONTESTS, "pictures", "fast", "resume")
CORE = ("numpy", "PIL", "torchvision", "safetensors", "filelock")
NEEDS = {
    "limits": (),
    "tests": ("pytest", "typer", "rich"),
    "fast": ("typer", "rich", "pyarrow"),
    "resume": ("typer", "rich"),
    "table6": ("typer", "rich", "pyarrow", "jinja2", "matplotlib"),
}
ON_DATA = (*SMALL, "fast", "resume", "table6")  # parts that train on --data
OPTIONAL = ("msgspec", "platformdirs", "huggingface_hub", "psutil", "pyarrow", "timm", "triton")
LEAST = 30.0  # seconds that must be left for another contest to begin
STARTS = 80.0  # seconds that a contest takes beside the compilations of tuned


def say(message: str) -> None:
    """Print a line at once."""
    print(message, flush=True)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, with commas, or none")
    parser.add_argument("--table6", type=float, metavar="MINUTES", help="train rows of Table 6 for so long")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "build/gpu"))
    parser.add_argument("--runs", type=Path, help="the folder of the run folders; default: build/gpu/runs")
    parser.add_argument("--packed", type=Path, help="a folder with the runs of an earlier call as .tar, to go on with")
    parser.add_argument("--data", default="cifar10", help="what is trained on; Table 6 and fast want cifar10")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEG files; default: flowers in $DEEPRES_DATA")
    parser.add_argument("--networks", help="the rows of Table 6, with commas")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds that tuned may spend on compiling")
    parser.add_argument("--no-compile", action="store_true", help="neither ours nor tuned compiles")
    parser.add_argument("--seconds", type=float, default=230.0, help="for each part")
    parser.add_argument("--scale", default="paper", help=argparse.SUPPRESS)  # of Table 6, for tests
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)  # of Table 6, fast and resume, for tests
    options = parser.parse_args(given)
    asked = options.parts.replace("contests", ",".join(CONTESTS)).split(",")
    options.parts = [part for part in asked if part and part != "none"]
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; give some of {', '.join(PARTS)}")
    if options.table6 is not None:
        options.parts.append("table6")
    options.runs = options.runs or ROOT / "build/gpu/runs"
    return options


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of the packages that this Python lacks."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def no_gpu(device: str) -> str | None:
    """Why nothing can be measured here, in a sentence; None where there is a GPU."""
    if missing(("torch",)):
        return "left out: this Python has no PyTorch"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return (
            f"left out: this machine (or its PyTorch {torch.__version__}) has no GPU, so the tests marked gpu, the "
            "contests and Table 6 on it were not run"
        )
    return None


class Part:
    """The time and the rows of one part."""

    def __init__(self, name: str, options: argparse.Namespace, data: str, seconds: float):
        self.name, self.options, self.data = name, options, data
        self.ends = time.monotonic() + seconds
        self.rows: list[tuple[str, str]] = []
        self.records: list[object] = []

    @property
    def left(self) -> float:
        """Seconds until the part must end."""
        return self.ends - time.monotonic()

    def row(self, what: str, found: str) -> None:
        """Note a row of the table, and print it now."""
        self.rows.append((what, found))
        say(f"  {what}: {found}")


def limits(part: Part) -> None:
    """What the GPU can do at most."""
    from deepres.bench.limits import gpu_limits

    found = gpu_limits("bf16")
    part.records.append(found)
    part.row("bf16 product of 8192", f"{2 * found['product_multiply_adds'] / 1e12:.0f} TFLOP/s")
    part.row("copy", f"{found['bytes'] / 1e12:.2f} TB/s")


def small(part: Part) -> None:
    """Training at 32 pixels of the network by whose name the part goes."""
    _contests(part, [("train", part.name, 128)], ["textbook", "tuned"])


def resnet50(part: Part) -> None:
    """A training step at 224 pixels."""
    _contests(part, [("train", "resnet50", 256)], ["tuned", "torchvision", "timm"])


def pictures(part: Part) -> None:
    """Training at 224 pixels from JPEG files."""
    found = part.options.pictures or Path(os.environ.get("DEEPRES_DATA", "")) / "flowers"
    if not found.is_dir():
        part.row("pictures", f"left out: there is no folder {found}; give --pictures")
        return
    part.data = str(found)
    _contests(part, [("train", "resnet50", 256)], ["nvjpeg", "torchvision"])


def inference(part: Part) -> None:
    """Scores of batches."""
    _contests(part, [("infer", "resnet50", size) for size in (1, 32, 256)], ["tuned", "torchvision", "timm"])


def _contests(part: Part, jobs: list[tuple[str, str, int]], rivals: list[str]) -> None:
    from deepres.bench.contest import contest
    from deepres.bench.job import Job
    from deepres.bench.limits import asked, gpu_limits, shares
    from deepres.runtime.errors import InputError

    found, own = gpu_limits("bf16"), [name for name in rivals if name != "timm" or not missing(("timm",))]
    for number, (task, network, size) in enumerate(jobs):
        if part.left < LEAST:
            part.row(f"{task} {network} {size}", "not run: the time of this part was over")
            continue
        compiles, fair = not part.options.no_compile, part.left / (len(jobs) - number)
        patience = max(10.0, min(part.options.patience, fair - STARTS))
        job = Job(task, network, size, part.data, precision="bf16", compile=compiles, device="cuda", patience=patience)
        try:
            records = contest(job, own, part.options.pairs, 1, lambda text: say(f"    {text}"), part.left)
        except InputError as error:
            part.row(f"{task} {network} {size}", f"failed: {error}")
            continue
        need, command = asked(job), f"benchmarks/gpu.py --parts {part.name}"
        for record in records:
            record["environment"]["command"] = command
        records = [shares(record, found, need) for record in records]
        part.records += records
        part.row(*row_of(records))


def row_of(records: list[dict]) -> tuple[str, str]:
    """One contest in a row: our time and speed, the ratios, and the share of the GPU's limits."""
    from deepres.bench.tables import setting

    work, ours = records[0]["work"], records[0]["ours"]
    speed, share = ours["images_per_second"], records[0]["share"]
    ratios = ", ".join(f"{record['ratio']['median']:.2f} {record['rival']['name']}" for record in records)
    step = f"{1000 * work['batch_size'] / speed:.3g} ms, {speed:,.0f} images/s"
    reached = f"{share['multiply_adds']:.0%} of the product, {share['bytes']:.0%} of the copy"
    name = f"{work['task']} {work['network']} {work['batch_size']}"
    return name, f"{step}; times as fast as: {ratios}; {reached}; {setting(ours)}"


def data_set(data: str, folder: Path) -> str:
    """`data`, where it is found; else generated images of 32 pixels in `folder`, and so it is said."""
    from deepres.data.sources import load_data_set
    from deepres.runtime.errors import InputError

    try:
        load_data_set(data, progress=say)
    except InputError as error:
        say(f"{data} was not found ({error}); contests are on generated images, and Table 6 and fast are left out")
        return gpu_runs.generated(folder)
    return data


DO = {
    "limits": limits,
    **dict.fromkeys(SMALL, small),
    "resnet50": resnet50,
    "pictures": pictures,
    "inference": inference,
    "tests": gpu_runs.tests,
    "fast": gpu_runs.fast,
    "resume": gpu_runs.resume,
    "table6": gpu_runs.table6,
}


def carry_out(name: str, options: argparse.Namespace, data: str) -> dict:
    """Do one part; a part that fails says so, and the others go on."""
    lacking = missing((*(CORE if name != "limits" else ()), *NEEDS.get(name, ())))
    begun = time.monotonic()
    part = Part(name, options, data, 60 * options.table6 if name == "table6" else options.seconds)
    say(f"{name}:")
    if lacking:
        part.row(name, f"left out: this Python lacks {', '.join(lacking)}")
    elif data != options.data and name in ("fast", "table6"):
        part.row(name, f"left out: {options.data} was not found")
    else:
        try:
            DO[name](part)
        except Exception as error:  # the figures of the other parts must not be lost
            part.row(name, f"failed: {type(error).__name__}: {error}")
    seconds = time.monotonic() - begun
    part.row(f"{name} took", f"{seconds:.0f} s")
    return {"name": name, "seconds": seconds, "rows": part.rows, "records": part.records}


def main(given: list[str] | None = None) -> None:
    """Do the parts one after the other, and print their rows as a table."""
    options = arguments(given)
    if reason := no_gpu(options.device):
        say(reason)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DEEPRES_CACHE", str(ROOT / "build/gpu/cache"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(ROOT / "src"))
    if lacking := missing(OPTIONAL):
        say(f"not installed, and what needs them is left out: {', '.join(lacking)}")
    from deepres.runtime.environment import describe_environment

    needs_data = not missing(CORE) and any(part in ON_DATA for part in options.parts)
    data = data_set(options.data, ROOT / "build/gpu/generated") if needs_data else ""
    found = {"environment": describe_environment(), "data": data, "parts": []}
    for name in options.parts:
        found["parts"].append(carry_out(name, options, data))
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    env = found["environment"]
    say(f"\n{env['gpu']}, PyTorch {env['versions']['torch']}, {env['started'][:16]}")
    for part in found["parts"]:
        for what, value in part["rows"]:
            say(f"{what:24} {value}")


if __name__ == "__main__":
    main()
