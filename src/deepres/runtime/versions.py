"""The versions of packages."""

from importlib import metadata


def version(package: str) -> str:
    """The version of an installed package; that of a bare source tree is not known."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
