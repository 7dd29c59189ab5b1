"""The memory of a run does not grow with the number of samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faults.processes import TESTS

NUM = 300


def peak_mib(root: Path, num: int) -> float:
    script = Path(__file__).with_name("peak_memory.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(num)],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


def test_ten_times_the_samples_take_no_more_memory(tmp_path: Path):
    few, many = peak_mib(tmp_path / "few", NUM), peak_mib(tmp_path / "many", 10 * NUM)
    print(f"{few:.0f} MiB for {NUM} samples, {many:.0f} MiB for {10 * NUM}")
    # Far below the 15 % that are allowed: images of all samples in memory at once would not pass.
    assert many <= 1.03 * few
