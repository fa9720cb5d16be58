import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ["COLUMNS"] = "200"  # before the command line makes its consoles
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # test processes side by side share the cores
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as do the threads of those that take two

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # of a job in a shell's background, or under nohup
        signal.signal(number, usual)  # or tests would inherit it

import torch  # after the number of threads is set

import deepres.weights.hub  # so that networks can be saved, as `deepres.build` has it
from deepres import cli
from deepres.runtime.processor import VARIABLE, WIDE, multiplies_bf16
from runs import run_deepres


def pytest_configure(config):
    """Hide the GPU from the tests of the processor, for which `auto` is then what it is on a machine without a GPU."""
    if "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    """Tests marked gpu are skipped where there is none, and in a run that does not ask for them by their mark."""
    if os.environ.get("DEEPRES_TESTED_DEVICE") == "cpu" or torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU, which is shown to the tests by -m gpu alone"))


def pytest_report_header():
    """As which kind of processor this one runs the tests."""
    told = "" if VARIABLE not in os.environ else f" ({VARIABLE}={os.environ[VARIABLE]})"
    kind = "multiplies bf16" if multiplies_bf16() else "does not multiply bf16"
    return f"processor: {kind}{told}, vectors of {512 if WIDE else 256} bits or less"


@pytest.fixture(scope="session", autouse=True)
def kernels(tmp_path_factory):
    """Where the compiled kernels are kept, PyTorch's as well: compiled once, whatever the number of test processes.

    It lies in the cache of what is made before a test has its own.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    (place / "kernels").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPRES_CACHE", str(place))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(place / "inductor"))  # the user's may hold what a kill left broken
        patch.setenv("TRITON_CACHE_DIR", str(place / "triton"))
        yield place / "kernels"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, kernels, monkeypatch):
    """Every test has a cache of its own, but for the kernels, and sees no data but what it names."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "kernels").symlink_to(kernels)
    monkeypatch.setenv("DEEPRES_CACHE", str(cache))


@pytest.fixture
def kills(request):
    """How many times a test kills a run: 20, or 3 where slow tests are left out (`make check`)."""
    return 3 if "not slow" in request.config.option.markexpr else 20


@pytest.fixture
def process(tmp_path):
    """The command line as a process of its own, in `tmp_path`: for what kills it, or counts its threads."""
    started = []
    yield partial(run_deepres, tmp_path, started=started)
    for left in started:  # as of a test that failed
        with left:
            left.kill()


@pytest.fixture
def deepres(tmp_path, monkeypatch, capfd):
    """The command line in this process, in `tmp_path`: the same code as `process`, without seconds of start."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deepres", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.fixture
def here(deepres):
    """As `deepres`, with as many threads as `process` has: the same bits, for runs that began in another process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield deepres
    torch.set_num_threads(threads)


@pytest.fixture
def refused(deepres):
    """The command line must refuse these arguments: exit code 2, one sentence, no traceback. Gives the sentence."""

    def run(*arguments):
        result = deepres(*arguments)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        last = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(last) == 1, result.stderr
        return last[0]

    return run


@pytest.fixture(scope="session")
def checked_types():
    """For tests of the sentences about values of a wrong type."""
    pytest.importorskip("msgspec", reason="types are checked by msgspec, which is not installed")


@pytest.fixture
def real_data():
    """The folder of real data, where there is one."""
    folder = os.environ.get("DEEPRES_DATA")
    if not folder:
        pytest.skip("DEEPRES_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An image folder with train/ and test/: three classes of 32x32 colour noise, 16 and 6 of each."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 6)):
        for label, name in enumerate(("ant", "bee", "cow")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., label] += 120
                Image.fromarray(pixels).save(root / part / name / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """JPEG pictures of different sizes, two classes, 14 and 5 of each: an epoch is not a whole number of batches."""
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for part, count in (("train", 14), ("test", 5)):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(40, 90, 2)
                pixels = random.integers(100 * label, 156 + 100 * label, (height, width, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:02}.jpg")
    return root
