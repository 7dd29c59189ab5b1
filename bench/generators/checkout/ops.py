"""Compiled operators of NVIDIA's repositories: built where that works, else the reference ones."""

from __future__ import annotations

from bench.generators.checkout.imports import Checkout

OPS = ("bias_act", "upfirdn2d", "filtered_lrelu")


def settle_ops(checkout: Checkout, device_type: str) -> dict[str, str]:
    """Operator → what computes it from now on: "compiled", or "reference" with the reason.

    StyleGAN3 stops where its operators cannot be built, StyleGAN2-ADA tries anew in each call; here each is
    tried once. On a CPU the repositories use their reference operators by themselves.
    """
    found: dict[str, str] = {}
    with checkout.active():
        for name in OPS:
            if not (checkout.root / "torch_utils" / "ops" / f"{name}.py").is_file():
                continue
            module = checkout.load(f"torch_utils.ops.{name}")
            if device_type != "cuda":
                found[name] = f"reference (device: {device_type})"
                continue
            try:
                found[name] = "compiled" if module._init() else "reference (it could not be built)"
            except Exception as error:  # whatever a compiler, a linker or a loader has to say
                found[name] = f"reference ({type(error).__name__}: {_first_line(error)})"
            if found[name] != "compiled":
                module._init = lambda: False
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]
