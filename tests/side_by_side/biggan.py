"""Our BigGANs beside the public ones: same random weights, every layer's output, image and gradients.

    PYTHONPATH=.:tests python tests/side_by_side/biggan.py --repo CHECKOUT [--resolution 512] [--width 96]

CHECKOUT is one of ajbrock/BigGAN-PyTorch (9845943) or huggingface/pytorch-pretrained-BigGAN (1e18aed). Their
network is built, its weights and statistics are drawn at random, its state dict is saved and loaded with
ours. Exit code 1 where a layer differs by more than 1e-5 of its largest value, or an image by 1e-5.
Gradients are told, not judged: where rounding switches a ReLU whose input is nearly zero, they jump.

Pinned: evaluation mode; float32 on the CPU. Differences of layout that the comparison undoes: our shortcut
convolution comes before the upsampling (they commute), and our last convolution of BigGAN-deep makes only
the three channels that the published code keeps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from side_by_side.harness import our_biggan, public_biggan, randomise
from torch import Tensor, nn

from bench.generators.biggan.deep import BigGanDeep
from bench.generators.biggan.layers import upsample

TOLERANCE = 1e-5
CPU = torch.device("cpu")


def outputs(network: nn.Module, run) -> tuple[dict[str, Tensor], Tensor]:
    """Output of every named layer of the network, and what ``run`` gives."""
    kept: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            kept[name] = output.detach().clone()  # the published ReLU works in place

        return hook

    handles = [
        layer.register_forward_hook(keep(name))
        for name, layer in network.named_modules()
        if name and not isinstance(layer, nn.ModuleList | nn.ReLU | nn.Softmax | nn.MaxPool2d | nn.Tanh)
    ]
    result = run()
    for handle in handles:
        handle.remove()
    return kept, result


def brock(repo: Path, resolution: int, width: int, seed: int, folder: Path):
    """Their network and ours, with z and y: one run each, and the names of our layers."""
    sys.path.insert(0, str(repo))
    import BigGAN

    theirs = public_biggan(BigGAN, resolution, width, seed)
    ours = our_biggan(theirs, folder, resolution, width)
    return theirs, ours, lambda z, y: theirs(z, y), lambda name: name, theirs.shared.weight


def deep(repo: Path, resolution: int, width: int, seed: int, folder: Path):
    sys.path.insert(0, str(repo))
    from pytorch_pretrained_biggan.config import BigGANConfig
    from pytorch_pretrained_biggan.model import BigGAN

    from bench.generators.biggan.deep_network import Architecture, as_json

    architecture = as_json(Architecture.published(resolution)) | {"channel_width": width}
    theirs = BigGAN(BigGANConfig.from_dict(architecture)).eval()
    randomise(theirs, seed)
    for layer in theirs.modules():  # v as their converter prepares it
        if hasattr(layer, "weight_orig"):
            matrix = layer.weight_orig.detach().flatten(1)
            layer.weight_v.copy_(nn.functional.normalize(matrix.T @ layer.weight_u, dim=0, eps=1e-4))
            layer.weight_u.copy_(nn.functional.normalize(matrix @ layer.weight_v, dim=0, eps=1e-4))
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(theirs.config.to_json_string())
    truncation = 0.43  # between two of the 51 rows
    ours = BigGanDeep(
        weights=str(folder / "pytorch_model.bin"),
        config=str(folder / "config.json"),
        resolution=resolution,
        truncation=truncation,
    ).load(CPU)

    def name_of(name: str) -> str:
        for a, b in {"scale": "gain", "offset": "bias"}.items():
            name = name.replace(f".{a}", f".{b}")
        return name.replace("snconv1x1_o_conv", "o").replace("snconv1x1_", "")

    def run(z: Tensor, y: Tensor) -> Tensor:
        return theirs.generator(torch.cat([z, y], 1), truncation)

    return theirs, ours, run, name_of, theirs.embeddings.weight.T


def aligned(mine: Tensor, reference: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Both outputs in one layout."""
    if name.endswith("conv_sc"):
        mine = upsample(mine)
    if mine.shape != reference.shape and name.endswith("conv_to_rgb"):
        reference = reference[:, : mine.shape[1]]
    return mine, reference


def compare(make, args, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours, run, name_of, table = make(args.repo, args.resolution, args.width, seed, Path(folder))
    g = torch.Generator().manual_seed(100 + seed)
    z_dim = ours.latent.slices["z"].stop
    z = torch.randn(args.samples, z_dim, generator=g).clamp(-2, 2).requires_grad_()
    y = table[torch.randint(len(table), (args.samples,), generator=g)].detach().clone().requires_grad_()
    weight = torch.randn(args.samples, 3, args.resolution, args.resolution, generator=g)
    their_layers, their_image = outputs(theirs, lambda: run(z, y))
    our_layers, our_image = outputs(ours.network, lambda: ours.decode(torch.cat([z, y], 1)))
    theirs_g = torch.autograd.grad((their_image * weight).sum(), [z, y])
    ours_g = torch.autograd.grad((our_image * weight).sum(), [z, y])

    worst, at, used, flips = 0.0, "", 0, 0
    for name, reference in their_layers.items():
        name = name_of(name)
        if name not in our_layers:
            continue
        mine, reference = aligned(our_layers[name], reference, name)
        difference = float((mine - reference).abs().max() / reference.abs().max().clamp(min=1e-6))
        used += 1
        if name == "output_layer.0" or name.rpartition(".")[2].startswith("bn"):  # what the ReLUs get
            flips += int(((mine > 0) != (reference > 0)).sum())
        if difference > worst:
            worst, at = difference, name
    unmatched = set(our_layers) - {name_of(name) for name in their_layers}
    image = float((our_image - their_image).detach().abs().max())
    gradient = max(float((a - b).norm() / b.norm()) for a, b in zip(ours_g, theirs_g))
    print(
        f"seed {seed}: {used} layers, largest difference {worst:.2e} of a layer's largest value (in '{at}'); "
        f"image {image:.2e} (its deviation is {float(their_image.detach().std()):.2f}); "
        f"gradients {gradient:.2e} of their norm, {flips} ReLUs switched; "
        f"our layers without a counterpart: {sorted(unmatched) or 'none'}"
    )
    return worst <= TOLERANCE and image <= TOLERANCE and not unmatched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=512, choices=[128, 256, 512])
    parser.add_argument(
        "--width", type=int, help="channel multiplier; that of the published models by default"
    )
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--cases", type=int, default=2)
    args = parser.parse_args()
    make = brock if (args.repo / "BigGAN.py").is_file() else deep
    args.width = args.width or {brock: 96, deep: 128}[make]
    print(f"{make.__name__}, {args.resolution} px, width {args.width}, {args.samples} samples")
    agreed = [compare(make, args, seed) for seed in range(args.cases)]
    if not all(agreed):
        sys.exit("they differ")


if __name__ == "__main__":
    main()
