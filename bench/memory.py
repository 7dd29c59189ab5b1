"""Telling out-of-memory from other errors, and giving memory back."""

from __future__ import annotations

import gc

import torch

# What torch says on a CPU whose allocator was refused; on CUDA there is an exception of its own.
_REFUSED = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that device or host had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _REFUSED)


def free_memory(device: torch.device) -> None:
    """Gives back what is no longer used, to the device as well."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
