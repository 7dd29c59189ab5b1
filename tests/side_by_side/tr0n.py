"""Our TR0N beside the public one: its networks and its own sampling loop on the same random weights.

    PYTHONPATH=.:tests python tests/side_by_side/tr0n.py --repo CHECKOUT [--width 96] [--views 0]

CHECKOUT is layer6ai-labs/tr0n (1849089). Its text evaluator runs as it is, one prompt at a time, as it must;
ours takes all prompts as one batch, through the published configuration of ``Tr0n``. Compared after 1 and
after all steps: z (all M bases), y, mixture logits and weights, the latent z' and the final image.
Exit code 1 where one differs by more than 1e-4.

Pinned:

- float64 on both sides (``Tensor.float`` gives float64): Adam turns the rounding error of a gradient near
  zero into a step of full length, so that in float32 (``--float32``) equal algorithms part after some steps;
- noise off (sgld_noise_std 0);
- augmentations off (``--views 0``: the plain cosine); with ``--views A`` both sides get the same A views,
  made by our augmentation in place of DiffAugment, whose draws come from two global generators;
- BigGAN, CLIP ViT-B/32 and translator at random weights, the translator's output layers enlarged;
- ``modules`` is importable only with tr0n/ on the path, as their import of sgld lacks the prefix; their get_G
  reads weights from inside the checkout and is replaced by one that gives the same Generator with the random
  weights; the packages ``clip`` and ``h5py`` are stand-ins.
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

from bench.conditioners.augment import augment
from bench.samplers.base import Problem
from bench.samplers.tr0n import Tr0n
from bench.streams import Streams
from bench.translator.config import Tr0nTranslator
from bench.translator.train import Translator, new_network
from bench.types import Condition

TOLERANCE = 1e-4
CPU = torch.device("cpu")
PROMPTS = [
    "A photo of a blue dog.",
    "a bowl of fruit on a wooden table",
    "Two surfers, one wave",
    "the Eiffel tower at night",
    "a red bus in the snow",
    "portrait of a cat wearing a hat",
]
POLICY = ("color", "translation", "resize", "cutout")
NAMES = {
    "first": "shared1",
    "second": "shared2",
    "means": "z_layer",
    "logits": "z_mixture_logits",
    "auxiliary": "y_layer",
}
State = dict[str, Tensor]


def import_public(repo: Path, clip: nn.Module) -> SimpleNamespace:
    """The modules of the checkout that take part."""
    here = Path(__file__).resolve().parent  # on the path as this script's folder, where 'tr0n' is this file
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    for path in (repo, repo / "tr0n", repo / "tr0n" / "modules" / "BigGAN_utils"):
        sys.path.insert(0, str(path))
    clip_package(clip)
    stand_in("h5py")
    import BigGAN
    import tr0n.modules.models.loss as loss
    import tr0n.modules.models.model_biggan as model
    import tr0n.modules.trainers.text_hybrid_evaluator_synthetic_biggan as evaluator

    return SimpleNamespace(biggan=BigGAN, model=model, loss=loss, evaluator=evaluator)


def public_settings(args: argparse.Namespace, folder: Path) -> SimpleNamespace:
    """What the published evaluation script passes, with noise and augmentations pinned."""
    return SimpleNamespace(
        with_gmm=True, with_open_clip=True, with_caption_model=False, with_covariance=False,
        with_adaptive_noise=False, clip_arch="ViT-B-32", clip_pretrained=None, z_thresh=2.0,
        num_mixtures=10, gumbel_softmax_temp=1.0, clip_noise_scale=0.0, interp_mode="bilinear",
        num_hybrid_iters=args.steps, batch_size=1, times_augment_pred_image=args.views,
        val_loss="aug_cosine_latent" if args.views else "cosine_latent", optim="adam", lr=5e-3,
        optim_latent="sgld", lr_latent=5.0, momentum=0.99, weight_decay=0.0, sgld_noise_std=0.0,
        max_grad_norm=args.max_norm, num_epochs=1, log_step=10, model_path="", load_path="",
        save_image_path=str(folder / "images"), biggan_resolution=args.resolution,
    )  # fmt: skip


def public_model(public: Any, settings: SimpleNamespace, biggan: nn.Module, clip: nn.Module) -> nn.Module:
    public.model.get_G = lambda config, device: biggan
    public.model.open_clip.create_model = lambda *_, **__: clip
    torch.manual_seed(5)
    model = public.model.Model(settings, "cpu")
    with torch.no_grad():
        for layer, factor in (("z_layer", 5), ("z_mixture_logits", 5), ("y_layer", 1)):
            getattr(model.translator, layer).weight.mul_(factor)
        model.translator.z_log_stds.add_(0.1 * torch.randn_like(model.translator.z_log_stds))
    return model


def run_public(
    public: Any, model: nn.Module, settings: SimpleNamespace, prompt: str, streams: Streams
) -> list[State]:
    """State before every step and at the end, with its image; by the public evaluator, for one prompt."""
    parameters: dict[str, Tensor] = {}
    states: list[State] = []
    factory = public.evaluator.OptimizerFactory
    made = factory.get_optimizer

    def get_optimizer(kind: str, params: tuple, *rest: Any, **more: Any) -> Any:
        parameters.update(zip(("y", "logits") if kind == "adam" else ("z",), params))
        return made(kind, params, *rest, **more)

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if kwargs.get("x_type") == "gan_latent":
            state = {name: value.detach().clone() for name, value in parameters.items()}
            states.append({**state, "z'": kwargs["x"][0].detach().clone()})

    def after(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if kwargs.get("x_type") == "gan_latent":
            states[-1]["image"] = output[-1].detach().clone()

    def same_views(copies: Tensor, policy: str) -> Tensor:
        return augment(copies[:1], streams, len(states) - 1, len(copies), POLICY)

    public.model.DiffAugment = same_views
    factory.get_optimizer = staticmethod(get_optimizer)
    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    ]
    loss = public.loss.LossFactory.get_loss(settings.val_loss, settings)
    public.evaluator.Evaluator(model, None, loss, None, settings, None, [[prompt]], "cpu").evaluate()
    for hook in hooks:
        hook.remove()
    factory.get_optimizer = staticmethod(made)
    return states


def our_translator(public: nn.Module, latent: Any) -> Translator:
    """Our network with the weights of theirs."""
    network = new_network(latent, 512, Tr0nTranslator())
    state = {
        f"{ours}.{part}": getattr(public, theirs).get_parameter(part).detach()
        for ours, theirs in NAMES.items()
        for part in ("weight", "bias")
    }
    network.to(public.z_log_stds.dtype)
    network.load_state_dict({**state, "log_std": public.z_log_stds.detach().flatten()})
    return Translator(network, latent, CPU)


def run_ours(sampler: Tr0n, problem: Problem) -> list[State]:
    states: list[State] = []
    with torch.no_grad():
        state = sampler.init(problem)
        for t in range(sampler.steps + 1):
            z = sampler.latent(problem, state)
            image = problem.render(z)
            main = z[:, problem.generator.latent.slices["z"]]
            states.append(
                {"z": state.bases, "y": state.auxiliary, "logits": state.logits, "z'": main, "image": image}
            )
            if t < sampler.steps:
                state = sampler.step(problem, state, t)
    return states


def compare(ours: list[State], theirs: list[list[State]], at: int) -> float:
    """Prints the largest differences over the batch after ``at`` steps and gives the largest of them."""
    worst = {}
    for name in ("z", "y", "logits", "z'", "image"):
        reference = torch.cat([states[at][name] for states in theirs])
        worst[name] = float((ours[at][name] - reference).abs().max())
        if name == "logits":
            worst["weights"] = float((ours[at][name].softmax(1) - reference.softmax(1)).abs().max())
    print(
        f"largest differences after {at:2d} steps: "
        + ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    )
    return max(worst.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=512, choices=[256, 512])
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=4, choices=range(1, len(PROMPTS) + 1))
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--max-norm", type=float, default=1.0, help="of clipping; 1 is the published value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true")
    args = parser.parse_args()
    dtype = torch.float32 if args.float32 else torch.float64
    with float_means(dtype):
        worst = run(args, dtype)
    if worst > TOLERANCE:
        sys.exit(f"they differ by more than {TOLERANCE:g}")


def run(args: argparse.Namespace, dtype: torch.dtype) -> float:
    """Both sides, printed; the largest difference."""
    prompts = PROMPTS[: args.prompts]
    streams = Streams.from_seed(len(prompts), "side-by-side", args.seed)
    clip = public_clip(args.seed).to(dtype)
    public = import_public(args.repo, clip)
    biggan = public_biggan(public.biggan, args.resolution, args.width, args.seed).to(dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = public_settings(args, folder)
        model = public_model(public, settings, biggan, clip).to(dtype)
        generator = our_biggan(biggan, folder, args.resolution, args.width, dtype)
        conditioner = our_clip(clip, folder, views=args.views, dtype=dtype)
        theirs = [
            run_public(public, model, settings, prompt, streams[i : i + 1])
            for i, prompt in enumerate(prompts)
        ]
    condition = conditioner.embed([Condition(id=p, kind="text", text=p) for p in prompts])
    problem = Problem(
        generator, conditioner, condition, streams, our_translator(model.translator, generator.latent)
    )
    sampler = Tr0n(steps=args.steps, noise_std=0.0, clip_norm=args.max_norm)
    ours = run_ours(sampler, problem)
    print(
        f"BigGAN-{args.resolution}, width {args.width}, {len(prompts)} prompts in one batch beside one by "
        f"one, {str(dtype)[6:]}, {args.views or 'no'} views, clipping at {args.max_norm:g}"
    )
    moved = ours[-1]["z"] - ours[0]["z"]
    print(
        f"z moved by up to {float(moved.abs().max()):.2g}, image by up to "
        f"{float((ours[-1]['image'] - ours[0]['image']).abs().max()):.2g}; "
        f"{float((ours[-1]['z'].abs() == 2).float().mean()):.1%} of z lies on the clamp"
    )
    return max(compare(ours, theirs, at) for at in sorted({0, 1, args.steps}))


if __name__ == "__main__":
    main()
