"""Where a number came from: software, hardware, revision. No user names and no paths."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "tr0n-bench", "torch", "torchvision", "torch-fidelity", "clean-fid", "open_clip_torch", "numpy", "scipy",
    "pandas", "scikit-learn", "pillow", "safetensors", "pydantic",
)  # fmt: skip


def utc_now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware(device: torch.device) -> dict[str, Any]:
    """The processor or accelerator that work on ``device`` runs on, and the threads it may use."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "threads": 0}
    return {"device": _cpu_model(), "threads": torch.get_num_threads()}


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Python, packages, processor, threads, memory, accelerator and numerics flags."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages * size / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32) if cuda else False,
        "dtype": "float32",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def git_state(folder: Path) -> dict[str, Any]:
    """``revision`` and ``dirty`` of the checkout that holds ``folder``; both null outside git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    revision = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no") if revision else None
    return {"revision": revision, "dirty": None if status is None else bool(status)}
