"""The deterministic DDIM map from noise to images (Song, Meng, Ermon 2021, arXiv:2010.02502)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def ddim(
    denoise: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    noise_NCHW: Tensor,
    steps: int,
    *,
    checkpointed: bool = True,
) -> Tensor:
    """Images (N, C, H, W), not clamped, from noise by ``steps`` DDIM steps with eta 0; differentiable.

    ``denoise(x, t)`` gives what the ``scheduler`` (diffusers' DDIMScheduler) expects of the network,
    timesteps int64 (N,). With ``checkpointed`` each step is computed again for its gradient, so that memory
    does not grow with their number. Source: Song, Meng, Ermon, arXiv:2010.02502, equation 12 with sigma 0.
    """
    scheduler.set_timesteps(steps, device=noise_NCHW.device)
    x = noise_NCHW * scheduler.init_noise_sigma

    def step(x: Tensor, t: Tensor) -> Tensor:
        output = denoise(scheduler.scale_model_input(x, t), t.expand(len(x)))
        return scheduler.step(output, t, x, eta=0.0).prev_sample

    for t in scheduler.timesteps:
        if checkpointed and torch.is_grad_enabled() and x.requires_grad:
            x = checkpoint(step, x, t, use_reentrant=False)
        else:
            x = step(x, t)
    return x
