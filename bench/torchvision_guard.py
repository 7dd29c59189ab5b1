"""Makes ``import torchvision`` work beside a CPU-only torch.

The registry's torchvision wheels are built for CUDA. Beside a CPU build of torch their compiled
operators cannot load, and torchvision's import then stops because operators it annotates were never
declared. Nothing here uses those operators, so their schemas are declared before the import; where the
extension does load, nothing is done. Call :func:`ensure_torchvision` before importing open_clip,
clean-fid or torch-fidelity.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# The operators that torchvision annotates unconditionally at import (torchvision/_meta_registrations.py).
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARY = None  # kept alive: a torch.library.Library removes its operators when collected


def ensure_torchvision() -> None:
    """Declares torchvision's operators where its own extension cannot load; safe to call often."""
    global _LIBRARY
    if "torchvision" in sys.modules or _LIBRARY is not None:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    extension = Path(spec.origin).parent / "_C.so"
    try:
        torch.ops.load_library(str(extension))
    except OSError:
        _LIBRARY = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _LIBRARY.define(schema)
