"""Where a program runs: versions, processor, threads, commit and command, as records keep them."""

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deepres.runtime.versions import version

VECTORS = {"avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX", "sve": "SVE"}


def describe_environment() -> dict[str, Any]:
    """Versions, processor, threads, commit and command of this process."""
    import torch

    try:
        import psutil
    except ModuleNotFoundError:  # in a bare source tree
        psutil = None
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["deepres", *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {name: version(name) for name in ("deepres", "torch", "torchvision", "numpy")}
        | {"python": platform.python_version()},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": None if psutil is None else psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_gib": None if psutil is None else round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """The commit of the source tree, with `+` if it has changes; None outside a checkout of this project."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+")
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    """The processor's name and its vector extensions, since processors of one name differ in them."""
    import torch

    features = torch.cpu.get_capabilities()
    vectors = [name for feature, name in VECTORS.items() if features.get(feature)]
    return f"{_model_name()} ({', '.join(vectors)})" if vectors else _model_name()


def _model_name() -> str:
    """The processor's name; on Linux from /proc, since `platform.processor()` is mostly empty there."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
