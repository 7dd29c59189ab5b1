"""Whether a judge sees today what it saw when it was shipped, and the same on every device.

A judge of the zoo has a fixture: its readout of fixed pictures, stored with the hash of its weights. A judge
of public weights has none unless one is put in the folder, as those weights cannot be shipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import payload
from bench.errors import BenchError
from bench.guards.canaries import Finding
from bench.guards.pictures import fixed_pictures
from bench.identity import component
from bench.keys import content_key
from bench.suite import Named

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-4  # of an array's largest value: other processors round otherwise
DEVICE_TOLERANCE = 1e-3
SIDE = 32


def fixture_path(judge: Named[Any]) -> Path:
    """Where a judge's fixture lies: named by all that determines what it sees."""
    return FIXTURES / f"{judge.kind}-{content_key(component(judge))}.safetensors"


def write_fixture(judge: Named[Any], device: torch.device) -> Path:
    """Stores what a judge sees in the fixed pictures as known answer, and returns the file."""
    path = fixture_path(judge)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload.pack(readouts(judge, device), {"side": SIDE, "judge": component(judge)}))
    return path


def readouts(judge: Named[Any], device: torch.device) -> dict[str, np.ndarray]:
    """Every array of a judge's readout of the fixed pictures."""
    return payload.readout_arrays(judge.config.load(device).readout(fixed_pictures(SIDE)))[0]


def largest_difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    """The largest difference of any array, relative to the array's largest value; infinite where shapes or
    names differ."""
    if expected.keys() != found.keys() or any(expected[k].shape != found[k].shape for k in expected):
        return float("inf")
    differences = [
        float(np.abs(expected[k].astype(np.float64) - found[k]).max() / max(np.abs(expected[k]).max(), 1e-30))
        for k in expected
    ]
    return max(differences, default=float("inf"))


def known_answer(judge: Named[Any], device: torch.device) -> Finding:
    """A judge's readout of the fixed pictures against its fixture."""
    check = "known answer"
    try:
        path = fixture_path(judge)
        if not path.is_file():
            text = f"no fixture ships for it; put one at {path.name} to have it checked"
            return Finding(check=check, subject=judge.name, status="skipped", text=text)
        expected = payload.unpack(path.read_bytes())[0]
        difference = largest_difference(expected, readouts(judge, device))
    except BenchError as error:
        return Finding(check=check, subject=judge.name, status="skipped", text=str(error))
    text = f"largest difference {difference:.2g} of the largest value, allowed {TOLERANCE:g}"
    status = "passed" if difference <= TOLERANCE else "failed"
    return Finding(check=check, subject=judge.name, status=status, text=text, values=(difference,))  # type: ignore[arg-type]


def same_on_devices(judge: Named[Any]) -> Finding:
    """A judge's readout on the CPU against that on the GPU; skipped without one."""
    check = "CPU = GPU"
    if not torch.cuda.is_available():
        return Finding(check=check, subject=judge.name, status="skipped", text="no GPU is here")
    try:
        found = [readouts(judge, torch.device(name)) for name in ("cpu", "cuda")]
    except BenchError as error:
        return Finding(check=check, subject=judge.name, status="skipped", text=str(error))
    difference = largest_difference(*found)
    text = f"largest difference {difference:.2g} of the largest value, allowed {DEVICE_TOLERANCE:g}"
    status = "passed" if difference <= DEVICE_TOLERANCE else "failed"
    return Finding(check=check, subject=judge.name, status=status, text=text, values=(difference,))  # type: ignore[arg-type]


def precision() -> Iterator[Finding]:
    """The number formats that networks run in; TF32 rounds to 10 bits, and results are not what they say."""
    matmul = torch.get_float32_matmul_precision()
    tf32 = torch.backends.cuda.matmul.allow_tf32 or matmul != "highest"
    text = (
        f"dtype {torch.get_default_dtype()}, matmul precision {matmul}, TF32 in matmul "
        f"{'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'}, in cuDNN "
        f"{'on' if torch.backends.cudnn.allow_tf32 else 'off'}"
    )
    sound = torch.get_default_dtype() == torch.float32 and not tf32
    yield Finding(check="number formats", subject="torch", status="passed" if sound else "failed", text=text)
