"""The C++ kernels: compiled for this CPU on first use, and kept in the cache folder."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from deepres.runtime.cache_folder import REMEDY, cache_folder
from deepres.runtime.errors import InputError
from deepres.runtime.processor import WIDE

SOURCES = Path(__file__).parent
# No AVX-512 if PyTorch does not use it, although the CPU may have it.
_NARROW = ("-mno-avx512f",) if platform.machine() == "x86_64" and not WIDE else ()
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared", *_NARROW)
COMPILERS = ("c++", "g++", "clang++")
CHANNELS = 16  # the kernels need a multiple of so many channels

_POINTER, _NUMBER, _DOUBLE, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_int
# fmt: off
SIGNATURES = {
    "winograd_convolve": [_FLAG] + [_POINTER] * 4 + [_NUMBER] * 5 + [_POINTER] * 2,
    "winograd_backward": [_FLAG] + [_POINTER] * 11 + [_FLAG, _POINTER] + [_NUMBER] * 5,
    "sum_rows": [_FLAG, _POINTER] + [_NUMBER] * 2 + [_POINTER] * 2,
    "finish_statistics": [_POINTER] * 2 + [_NUMBER] * 2 + [_POINTER] * 2 + [_DOUBLE] * 2 + [_POINTER] * 6,
    "normalise_add_relu": [_FLAG] + [_POINTER] * 3 + [_NUMBER] * 2 + [_POINTER] * 2 + [_FLAG],
    "differentiate_normalization": [_FLAG] + [_POINTER] * 3 + [_NUMBER] * 2 + [_POINTER] * 8,
    "differentiate_add_relu": [_FLAG] + [_POINTER] * 5 + [_NUMBER] * 2 + [_POINTER] * 3,
    "pool_regions": [_FLAG] + [_POINTER] * 2 + [_DOUBLE] + [_NUMBER] * 5 + [_POINTER] * 2,
    "differentiate_regions": [_FLAG] + [_POINTER] * 3 + [_NUMBER] * 4 + [_POINTER],
}
# fmt: on


class UnavailableError(Exception):
    """The kernels cannot be compiled or loaded here; the message says why."""


@cache
def library() -> ctypes.CDLL:
    """The loaded kernels; they are compiled if the cache folder has none for this CPU and compiler.

    Raises `UnavailableError` without a C++ compiler with OpenMP, and if the cache folder cannot be written.
    """
    compiler = _compiler()
    try:
        file = cache_folder() / "kernels" / f"{_key(compiler)}.so"
    except InputError as error:
        raise UnavailableError(str(error)) from None
    if not file.exists():
        _compile(compiler, file)
    try:
        loaded = ctypes.CDLL(str(file))
    except OSError as error:
        raise UnavailableError(f"the compiled kernels {file} do not load: {error}") from None
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def address(tensor: Tensor | None) -> int | None:
    """The address of a tensor's first value, for a kernel; None (a null pointer) for no tensor."""
    return None if tensor is None else tensor.data_ptr()


def _compiler() -> str:
    """The compiler in the variable `CXX`, or the first C++ compiler on the path."""
    for found in map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS))):
        if found:
            return found
    raise UnavailableError(f"no C++ compiler was found ({', '.join(COMPILERS)}, or CXX)")


def _sources() -> list[Path]:
    return sorted(SOURCES.glob("*.cpp"))


def _key(compiler: str) -> str:
    """The name of the compiled file: a checksum of the sources, compiler, flags and CPU."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    texts = [file.read_text(encoding="utf-8") for file in (*_sources(), *sorted(SOURCES.glob("*.h")))]
    processor = (platform.machine(), sorted(torch.cpu.get_capabilities().items()))
    return hashlib.sha256(repr([texts, version, FLAGS, processor]).encode()).hexdigest()[:32]


def _compile(compiler: str, file: Path) -> None:
    """Compile into a temporary folder and rename, so that two processes do not disturb each other."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            built = Path(folder) / file.name
            command = [compiler, *FLAGS, *map(str, _sources()), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
            if done.returncode:
                cause = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
                raise UnavailableError(f"{compiler} does not compile the kernels: {cause.strip()}")
            built.replace(file)
    except OSError as error:
        raise UnavailableError(f"the kernels cannot be kept in {file.parent}: {error}; {REMEDY}") from None
