"""The optional packages that exports and engines need."""

import importlib
from collections.abc import Sequence

from deepres.runtime.errors import InputError, install


def require_packages(packages: Sequence[str], int8: bool, what: str) -> None:
    """Raise `InputError` where one of the `packages` that `what` needs is missing; int8 needs ONNX Runtime as well."""
    for package in (*packages, *["onnxruntime"] * int8):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"{what} needs the package {package}: {install('serve')}") from None
