"""The parts of gpu.py that run other programs: pytest, and the command line of deepres."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MOST = 15 * 2**20  # bytes of the files in a .tar
POLL = 0.1  # seconds between two looks at a run
GRACE = 45.0  # seconds that a run has to end with a checkpoint after it was told to
ROWS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")  # of Table 6, the shortest first
STEPS, STOPPED_AT, WINDOW = 3_000, 1_000, 100  # of the runs that show an exact resume


def generated(folder: Path) -> str:
    """A folder of 6,000 images of 32 pixels in ten classes, which differ in colour; made where it is not there yet."""
    from PIL import Image

    random = np.random.default_rng(0)
    for part, count in (("train", 500), ("test", 100)):
        for label in range(10):
            place = folder / part / f"class{label}"
            if place.is_dir() and len(list(place.iterdir())) == count:
                continue
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(0, 156, (32, 32, 3), dtype=np.uint8)
                pixels[..., label % 3] += 10 * label
                Image.fromarray(pixels).save(place / f"{number:03}.png")
    return str(folder)


def started(*arguments: object, **more: object) -> subprocess.Popen:
    """The command line of deepres as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "deepres", *map(str, arguments)], encoding="utf-8", **more)


def finished(seconds: float, *arguments: object) -> tuple[float, str]:
    """Run the command line to its end; return its seconds and its standard output. Raises `RuntimeError`."""
    begun = time.monotonic()
    process = started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=max(1, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"not done within {seconds:.0f} s: deepres {' '.join(map(str, arguments))}") from None
    if process.returncode:
        raise RuntimeError((errors.strip().splitlines() or ["no message"])[-1])
    return time.monotonic() - begun, output


def stop(process: subprocess.Popen) -> int:
    """Tell a run to stop with a checkpoint, as Ctrl-C does; return its exit code."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tests(part) -> None:
    """The tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests", "--durations=5"]
    log = part.options.out / "tests.txt"
    with log.open("w", encoding="utf-8") as text:
        process = subprocess.Popen(command, cwd=ROOT, stdout=text, stderr=subprocess.STDOUT)
        try:
            process.wait(max(1, part.left))
        except subprocess.TimeoutExpired:
            stop(process)  # as by Ctrl-C: pytest tells the failures so far
            part.row("tests", f"not all were done within {part.options.seconds:.0f} s")
    # The failures, each in a line, and the counts.
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR", "SKIPPED")):
            part.row("test", line)
    ends = [line for line in lines if re.search(r" in \d+\.\d+s", line)]
    part.row("tests marked gpu", ends[-1].strip("= ") if ends else "pytest told no end")


def table6(part) -> None:
    """Rows of Table 6 at the paper's recipe, one after another, until the time is over; the next call goes on."""
    options = part.options
    if options.packed is not None:
        unpack(options.packed, options.runs)
    networks = options.networks or ",".join(ROWS)
    where = ("--scale", options.scale, "--data", part.data, "--out", options.runs, "--device", options.device)
    process = started("reproduce", "table6", "--networks", networks, "--seeds", 1, *where)
    # Stop where the time is over: a run writes a checkpoint, and one that has not begun just ends.
    while process.poll() is None and part.left > 0:
        time.sleep(POLL)
    code = process.returncode if process.poll() is not None else stop(process)
    told = {0: "complete", 130: "stopped with a checkpoint", -signal.SIGINT: "stopped before a run had begun"}
    part.row("table6", told.get(code, f"ended with exit code {code}"))
    plan = next(options.runs.glob(f"table6-{options.scale}-*"), None)
    if plan is None:
        return
    findings(part, plan, networks.split(","))
    pack(options.runs, options.out)


def findings(part, plan: Path, networks: list[str]) -> None:
    """A row for each run, the verdicts, and the page."""
    from deepres.paper.cifar import PRINTED
    from deepres.paper.plan import read_plan
    from deepres.paper.reproduce import as_json, findings_of_plan
    from deepres.report import page

    read = read_plan(plan)
    for network in networks:
        run = read.run(network, 0)
        if run.done is not None:
            took = (run.path / "done.json").stat().st_mtime - (run.path / "config.json").stat().st_mtime
            step, printed = 1000 * run.done["seconds"] / run.done["iteration"], PRINTED.get(network, (None, None))[1]
            part.row(
                f"table6 {network}",
                f"{run.done['test_error']:.2f} % (paper {printed}), {run.done['seconds']:.0f} s at "
                f"{step:.3g} ms a step, {took:.0f} s with start and pauses, {len(run.environment)} starts",
            )
        elif kept := sorted((run.path / "checkpoints").glob("[0-9]*")):
            part.row(f"table6 {network}", f"stopped at iteration {int(kept[-1].name)}")
        else:
            part.row(f"table6 {network}", "not run")
    if any(run.done is not None for runs in read.runs().values() for run in runs):
        found = findings_of_plan(read)
        part.records.append(as_json(found))
        for verdict in found.verdicts:
            part.row(f"verdict: {verdict.status}", verdict.claim)
        page.write(found, part.options.out / "table6.html")


def pack(runs: Path, out: Path) -> None:
    """The plans and runs, each with its newest checkpoint alone, as .tar files in `out`, of which few may come back."""
    for file in out.glob("table6-*.tar"):
        file.unlink()
    # What a run needs to go on.
    kept = list[Path]()
    for folder in sorted(runs.glob("*-*")):
        if (folder / "plan.json").exists():
            kept.append(folder / "plan.json")
            continue
        for run in sorted(folder.iterdir()):
            newest = sorted((run / "checkpoints").glob("[0-9]*"))[-1:]
            kept += [file for file in run.iterdir() if file.is_file() and not file.name.startswith(".")]
            kept += [file for checkpoint in newest for file in sorted(checkpoint.iterdir())]
    # A new .tar where the one before would become too large.
    number, size = 0, MOST
    for file in kept:
        size += file.stat().st_size
        if size > MOST:
            number, size = number + 1, file.stat().st_size
        with tarfile.open(out / f"table6-{number}.tar", "a") as archive:
            archive.add(file, file.relative_to(runs))


def unpack(packed: Path, runs: Path) -> None:
    """The runs of an earlier call, where they are not there yet."""
    runs.mkdir(parents=True, exist_ok=True)
    for file in sorted(packed.glob("table6-*.tar")):
        with tarfile.open(file) as archive:
            archive.extractall(runs, filter="data")


def fast(part) -> None:
    """The recipe fast, twice: the first start compiles, the second finds what was compiled."""
    from deepres.paper.cifar import PRINTED

    paper = PRINTED["resnet20"][1]
    done = next(part.options.runs.glob(f"*-{part.options.scale}/resnet20-seed0/done.json"), None)
    if done is not None:
        paper = json.loads(done.read_text(encoding="utf-8"))["test_error"]
    for start in ("first", "second"):
        run = part.options.runs / f"fast-{start}-{os.getpid()}"
        more = ("--recipe", "fast", "--data", part.data, "--device", part.options.device, "--run", run, "--json")
        whole, output = finished(part.left, "train", "resnet20", *more)
        found = json.loads(output)
        part.records.append(found | {"whole": whole})
        part.row(
            f"fast, {start} start",
            f"{found['test_error']:.2f} % (recipe of the paper: {paper:.2f} %), {found['seconds']:.1f} s of training, "
            f"{whole:.1f} s from the command line to the last checkpoint",
        )


def resume(part) -> None:
    """A run that was stopped and went on has the bits of one that was not, and what deterministic algorithms cost."""
    folder = part.options.runs / f"resume-{os.getpid()}"
    for deterministic in ("true", "false") if has_deterministic() else ("",):
        own = ("--set", f"deterministic={deterministic}") if deterministic else ()
        name = f"deterministic={deterministic}" if deterministic else "as it is"
        marks = ("--iterations", STEPS, "--set", f"window={WINDOW}", "--set", f"evaluate_every={STEPS // 3}")
        common = ("train", "resnet20", "--data", part.data, "--device", part.options.device, *marks, *own)
        whole, output = finished(part.left, *common, "--run", folder / f"whole{deterministic}", "--json")
        told = json.loads(output)
        step = 1000 * told["seconds"] / STEPS
        same = _stopped(part, common, folder / f"stopped{deterministic}", folder / f"whole{deterministic}")
        part.records.append({"deterministic": deterministic, "step_ms": step, "same": same, "whole": whole})
        part.row(f"resume, {name}", f"{same}; {step:.3g} ms a step with tests")


def _stopped(part, common: tuple, stopped: Path, whole: Path) -> str:
    """Train to a middle, stop, and go on; say whether the weights are those of the run in `whole`."""
    process = started(*common, "--run", stopped, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows, wanted = stopped / "metrics.jsonl", STOPPED_AT // WINDOW
    while (
        process.poll() is None and part.left > GRACE and not (rows.exists() and rows.read_text().count("\n") >= wanted)
    ):
        time.sleep(POLL)
    code = stop(process)
    if code != 130:
        return f"was not stopped in its middle (exit code {code})"
    finished(part.left, *common, "--run", stopped)
    weights = [max((run / "checkpoints").glob("[0-9]*/weights.safetensors")).read_bytes() for run in (stopped, whole)]
    equal = (stopped / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    return f"weights {'equal' if weights[0] == weights[1] else 'DIFFER'}, rows {'equal' if equal else 'DIFFER'}"


def has_deterministic() -> bool:
    """Whether runs can do without deterministic algorithms."""
    import dataclasses

    from deepres.classification.recipe import ClassificationConfig

    fields = dataclasses.fields(ClassificationConfig)
    names = [field.name for field in fields] + [field.name for field in dataclasses.fields(ClassificationConfig.recipe)]
    return "deterministic" in names
