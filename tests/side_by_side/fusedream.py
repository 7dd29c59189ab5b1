"""Our FuseDream beside the public one: candidates chosen, first gradients, and the optimisation's path.

    PYTHONPATH=.:tests python tests/side_by_side/fusedream.py --repo CHECKOUT [--width 8] [--candidates 20]

CHECKOUT is gnobitab/FuseDream (3fe28b8). Its FuseDreamBaseGenerator runs as it is, one text at a time; ours
takes all texts as one batch. Compared: the basis chosen, the gradients of the first step, and z, y and image
after 0, 1 and ``--steps`` updates. Exit code 1 where one differs by more than 1e-4.

Pinned:

- float64 on both sides; BigGAN and CLIP ViT-B/32 at random weights, loaded by ours from their state dicts;
- the random draws: candidates (z and class) and the first mixing weights are ours on both sides;
- augmentations and latent noise off in the optimisation;
- the CPU in place of CUDA: their module moves two constants there on import; the packages ``clip``, ``h5py``
  and ``lpips`` are stand-ins.

Measured with ``--steps 3``: the same basis to the bit; first gradients within 4.1e-8 of their norm; z and y
within 1.1e-7, 2.0e-7 and 1.2e-5 after 0, 1 and 3 updates, images within 1.0e-6. What is left is our mixing
weights, which start in float32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from side_by_side.harness import (
    clip_package,
    float_means,
    our_biggan,
    our_clip,
    public_biggan,
    public_clip,
    stand_in,
)
from torch import Tensor, nn

from bench.samplers.base import Problem
from bench.samplers.fusedream import FuseDream, FuseDreamState
from bench.streams import Streams
from bench.types import Condition

TOLERANCE = 1e-4
TEXTS = ["A photo of a blue dog.", "a bowl of fruit on a wooden table", "Two surfers, one wave"]
CLASSES = 1000


def import_public(repo: Path, clip: nn.Module) -> SimpleNamespace:
    """``fusedream_utils`` and the BigGAN that it uses."""
    for path in (repo, repo / "BigGAN_utils"):
        sys.path.insert(0, str(path))
    clip_package(clip)
    stand_in("h5py")
    stand_in("lpips")
    to_cuda = Tensor.cuda
    Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        import BigGAN
        import fusedream_utils
    finally:
        Tensor.cuda = to_cuda  # type: ignore[method-assign]
    return SimpleNamespace(biggan=BigGAN, utils=fusedream_utils)


class PublicRun:
    """The public generator for one text, with our draws in place of its own."""

    def __init__(self, public: SimpleNamespace, biggan: nn.Module, batch: int):
        self.public = public
        config = {"n_classes": CLASSES, "device": "cpu", "G_fp16": False, "z_var": 1.0}
        self.generator = public.utils.FuseDreamBaseGenerator(biggan, config, batch)

    def basis(self, text: str, z_KZ: Tensor, label_K: Tensor, num: int) -> tuple[list[Tensor], list[Tensor]]:
        """z and y of the ``num`` best of K candidates."""
        batch = len(self.generator.z_)
        z, y = torch.zeros_like(z_KZ[:batch]), torch.zeros_like(label_K[:batch])
        z_batches, y_batches = iter(z_KZ.split(batch)), iter(label_K.split(batch))

        def draw_z() -> None:
            z.data = next(z_batches).clone()

        def draw_y() -> None:
            y.data = next(y_batches).clone()

        z.sample_, y.sample_ = draw_z, draw_y  # type: ignore[attr-defined]
        self.generator.z_, self.generator.y_ = z, y
        return self.generator.generate_basis(text, init_iters=len(z_KZ) // batch, num_basis=num)

    def optimise(self, text: str, basis: Any, weights: list[Tensor], iterations: int) -> dict[str, Any]:
        """What comes out, and the gradients of the first iteration."""
        pending, gradients = iter(weights), []
        randn, adam = torch.randn, torch.optim.Adam

        class Recording(adam):
            def step(self, *args: Any) -> Any:
                if not gradients:
                    gradients.extend(p.grad.clone() for group in self.param_groups for p in group["params"])
                return super().step(*args)

        torch.randn = lambda *_, **__: next(pending).clone()
        torch.optim.Adam = Recording  # type: ignore[misc]
        try:
            image, z, y = self.generator.optimize_clip_score(
                *basis, text, latent_noise=False, augment=False, opt_iters=iterations, optimize_y=True
            )
        finally:
            torch.randn, torch.optim.Adam = randn, adam  # type: ignore[misc]
        w_z, w_y, g_y, g_z = gradients  # in the order in which it gives them to Adam
        first = {"bases": torch.cat([g_z, g_y], 1), "weights": torch.cat([w_z, w_y], 1)}
        return {"image": image.detach(), "z": z, "y": y, "first": first}


def run_ours(sampler: FuseDream, problem: Problem, state: FuseDreamState, updates: int) -> FuseDreamState:
    """The state whose ``latent_ND`` was evaluated after that many updates."""
    with torch.no_grad():
        for t in range(updates + 1):
            state = sampler.step(problem, state, t)
    return state


def candidates(problem: Problem, num: int) -> tuple[Tensor, Tensor]:
    """Our draws: z (N, K, Z) and class (N, K)."""
    latent, streams = problem.generator.latent, problem.streams
    z = torch.stack([latent.prior(streams.split(k))[:, latent.slices["z"]] for k in range(num)], 1)
    return z, torch.stack([streams.split(k).integers("prior:y", CLASSES) for k in range(num)], 1)


def run(args: argparse.Namespace) -> float:
    dtype = torch.float64
    clip = public_clip(0).to(dtype)
    public = import_public(args.repo, clip)
    biggan = public_biggan(public.biggan, args.resolution, args.width, 0).to(dtype)
    with tempfile.TemporaryDirectory() as name:
        generator = our_biggan(biggan, Path(name), args.resolution, args.width, dtype)
        conditioner = our_clip(clip, Path(name), views=0, dtype=dtype)
    condition = conditioner.embed([Condition(id=text, kind="text", text=text) for text in TEXTS])
    problem = Problem(generator, conditioner, condition, Streams.from_seed(len(TEXTS), "fusedream"))
    sampler = FuseDream(candidates=args.candidates, bases=5, steps=args.steps, latent_noise=0.0)
    with torch.no_grad():
        start = sampler.init(problem)
    reached = {updates: run_ours(sampler, problem, start, updates) for updates in {0, 1, args.steps}}
    z_NKZ, label_NK = candidates(problem, args.candidates)
    split = generator.latent.slices["z"].stop
    worst: dict[str, float] = {}

    def note(name: str, mine: Tensor, reference: Tensor) -> None:
        worst[name] = max(worst.get(name, 0.0), float((mine - reference).abs().max()))

    for i, text in enumerate(TEXTS):
        theirs = PublicRun(public, biggan, batch=args.batch)
        basis = theirs.basis(text, z_NKZ[i].to(dtype), label_NK[i], num=5)
        note("basis", start.bases[i], torch.cat([basis[0][0], basis[1][0]], 1))
        weights = [start.logits[i, :, :split].to(dtype), start.logits[i, :, split:].to(dtype)]
        for updates, state in reached.items():
            result = theirs.optimise(text, basis, weights, iterations=updates + 1)
            note(f"z, y after {updates}", state.latent_ND[i], torch.cat([result["z"], result["y"]], 1)[0])
            image = generator.decode(state.latent_ND[i : i + 1])
            note(f"image after {updates}", image, result["image"])
            if updates == 0:
                for name, mine in zip(("bases", "weights"), state.adam_first):
                    gradient, scale = result["first"][name], result["first"][name].norm()
                    note(f"first gradient of {name}, by its norm", 10 * mine[i] / scale, gradient / scale)
    print(
        f"BigGAN-{args.resolution}, width {args.width}, {len(TEXTS)} texts in one batch beside one by one, "
        f"{args.candidates} candidates; largest differences:"
    )
    for name, value in worst.items():
        print(f"  {name}: {value:.1e}")
    moved = reached[args.steps].latent_ND - reached[0].latent_ND
    print(f"  (z, y moved by up to {float(moved.abs().max()):.2g})")
    return max(worst.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=512, choices=[256, 512])
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=20, help="a multiple of the batch")
    parser.add_argument("--batch", type=int, default=5, help="of their search")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    with float_means(torch.float64):
        worst = run(args)
    if worst > TOLERANCE:
        sys.exit(f"they differ by more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
