"""Fashion-MNIST from Debian's package, unpacked without root."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "dataset-fashion-mnist"
INSIDE = Path("usr/share/datasets/fashion-mnist")
APT_SECONDS = 600
TIMEOUT = ("-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "Acquire::Retries=1")


def available() -> bool:
    """Whether this system has `apt-get` and `dpkg-deb`."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def unpack(folder: Path) -> None:
    """Put the unpacked idx files of Fashion-MNIST into `folder`. Raises `RuntimeError` where a tool fails."""
    with tempfile.TemporaryDirectory(prefix="deepres-debian-") as temporary:
        place = Path(temporary)
        _apt_download(place)
        package = next(place.glob(f"{PACKAGE}_*.deb"), None)
        if package is None:
            raise RuntimeError(f"apt-get brought no {PACKAGE}")
        _run(place, "dpkg-deb", "-x", package.name, "content")
        files = sorted((place / "content" / INSIDE).glob("*-ubyte.gz"))
        if not files:
            raise RuntimeError(f"the package has no files in {INSIDE}")
        from torchvision.datasets.utils import extract_archive  # here, since torchvision takes seconds to load

        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            extract_archive(str(file), str(folder))


def _apt_download(place: Path) -> None:
    """Download the package into `place`, with the system's package lists or else with lists of our own."""
    try:
        _run(place, "apt-get", *TIMEOUT, "download", PACKAGE)
    except RuntimeError:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (place / name).mkdir(parents=True)
        private = ("-o", f"Dir::State={place / 'state'}", "-o", f"Dir::Cache={place / 'cache'}")
        _run(place, "apt-get", *TIMEOUT, *private, "update")
        _run(place, "apt-get", *TIMEOUT, *private, "download", PACKAGE)


def _run(place: Path, *command: str) -> None:
    try:
        subprocess.run(
            command,
            cwd=place,
            env=os.environ | {"LC_ALL": "C"},
            check=True,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=APT_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{command[0]} failed: {error.stderr.strip()}") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} took longer than {APT_SECONDS} seconds") from None
