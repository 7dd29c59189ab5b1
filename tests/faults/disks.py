"""A disk that is full: a small tmpfs where this user may mount one, else a limit on the size of files."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMITED_BYTES = 3000  # below the largest artifact, table and image of a run


@dataclass
class Disk:
    """``limits`` are to be a process's, ``reason`` is what it then meets, until :meth:`grow`."""

    folder: Path
    limits: dict[str, Any] = field(default_factory=dict)
    reason: str = "No space left on device. Free some space"
    mounted: bool = True

    def grow(self) -> None:
        """There is room now."""
        self.limits = {}
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of ``size`` bytes at ``folder``, for the block."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        limits = {"file_bytes": LIMITED_BYTES}
        yield Disk(folder, limits, "File too large. Raise the limit", mounted=False)
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
