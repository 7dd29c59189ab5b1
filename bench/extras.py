"""Optional dependencies: imported where they are used, with an error that names the extra."""

from __future__ import annotations

import importlib
from typing import Any

from bench.errors import BenchError


def optional(module: str, what: str, extra: str | None = None) -> Any:
    """The imported ``module``, which ``what`` needs and the extra of the same name installs.

    Raises BenchError saying how to install it.
    """
    from bench.torchvision_guard import ensure_torchvision

    ensure_torchvision()  # diffusers and transformers import torchvision
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            remedy = f"'{module}' is installed and lacks '{error.name}'. Install that."
        else:
            remedy = f"Install it: pip install 'tr0n-bench[{extra or module}]'."
        raise BenchError(f"{what} needs the package '{module}'. {remedy}") from error
