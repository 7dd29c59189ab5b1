"""StyleGAN adapters beside the official forward passes, at random weights.

Needs a checkout of the official repository::

    python tests/side_by_side/stylegan.py --repo stylegan2-ada-pytorch --kind stylegan2
    python tests/side_by_side/stylegan.py --repo stylegan3 --kind stylegan3
    python tests/side_by_side/stylegan.py --repo stylegan-xl --kind stylegan-xl
    python tests/side_by_side/stylegan.py --repo stylegan-xl --kind stylegan-xl-superres

A small network is made by the repository's own classes, pickled in the official format by its persistence
code in one process, and loaded and compared in another. What is compared: images of the prior's w with its
truncation, the gradient with respect to w, and images one by one with a batch. StyleGAN-XL's networks are
built without the files that the constructor reads (class embeddings), which the script makes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

RESOLUTION = 32
KINDS = ("stylegan2", "stylegan3", "stylegan-xl", "stylegan-xl-superres")


def stand_in() -> None:
    """setuptools has dropped pkg_resources, from which stylegan3 takes one function."""
    try:
        import pkg_resources  # noqa: F401
    except ModuleNotFoundError:
        import types

        from packaging.version import parse

        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        sys.modules["pkg_resources"].parse_version = parse


def make(repo: Path, kind: str, path: Path, classes: int) -> None:
    """Pickles a small network with random weights, class centres and noise strengths."""
    sys.path.insert(0, str(repo))
    os.chdir(path.parent)
    torch.manual_seed(7)
    common = {"z_dim": 16, "w_dim": 24, "img_resolution": RESOLUTION, "img_channels": 3, "c_dim": classes}
    if kind == "stylegan2":
        from training.networks import Discriminator, Generator

        synthesis = {"channel_base": 512, "channel_max": 32, "num_fp16_res": 2, "conv_clamp": 256}
        network = Generator(**common, mapping_kwargs={"num_layers": 3}, synthesis_kwargs=synthesis)
    elif kind == "stylegan3":
        from training.networks_stylegan2 import Discriminator
        from training.networks_stylegan3 import Generator

        network = Generator(**common, channel_base=512, channel_max=32, num_layers=6)
    else:
        embedding = torch.nn.Embedding(classes, 20)
        Path("in_embeddings").mkdir(exist_ok=True)
        with open("in_embeddings/tf_efficientnet_lite0.pkl", "wb") as file:
            pickle.dump({"embed": embedding}, file)
        from training.networks_stylegan2 import Discriminator
        from training.networks_stylegan3_resetting import Generator

        kernel = {"conv_kernel": 3, "use_radial_filters": False}
        grown = kind == "stylegan-xl-superres"
        stem_sizes = {**common, "img_resolution": RESOLUTION // 2} if grown else common
        network = Generator(**stem_sizes, channel_base=512, channel_max=32, num_layers=6, **kernel)
        if grown:
            from training.networks_stylegan3_resetting import SuperresGenerator

            stem = path.with_name("stem.pkl")
            with stem.open("wb") as file:
                pickle.dump({"G": network, "D": None, "G_ema": network}, file)
            network = SuperresGenerator(RESOLUTION, str(stem), head_layers=4, up_factor=2)
    critic = Discriminator(classes, RESOLUTION, 3, channel_base=512, channel_max=32)
    with torch.no_grad():
        network.mapping.w_avg.normal_()
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    network = network.eval().requires_grad_(False)
    with path.open("wb") as file:
        pickle.dump(
            {"G": network, "D": critic.requires_grad_(False), "G_ema": network, "training_set_kwargs": {}},
            file,
        )


def official(repo: Path, path: Path, out: Path) -> None:
    """The repository's own images and gradients for 4 latents, through its loader."""
    sys.path.insert(0, str(repo))
    os.chdir(path.parent)
    import legacy

    with path.open("rb") as file:
        network = legacy.load_network_pkl(file)["G_ema"]
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 2, 1, 2])
    onehot = torch.nn.functional.one_hot(label, network.c_dim).float() if network.c_dim else None
    found: dict[str, torch.Tensor] = {"z": z, "label": label}
    for psi in (1.0, 0.6):
        ws = network.mapping(z, onehot, truncation_psi=psi)
        found[f"w {psi}"] = ws[:, 0]
        images = network.synthesis(ws, noise_mode="const", force_fp32=True)
        found[f"images {psi}"] = images.clamp(-1, 1)
    # One sample after the other, as a batch of one is what the official scripts run.
    gradients = []
    for w in found["w 1.0"]:
        w = w[None].clone().requires_grad_()
        images = network.synthesis(
            w[:, None].repeat(1, network.num_ws, 1), noise_mode="const", force_fp32=True
        )
        gradients.append(torch.autograd.grad(images.clamp(-1, 1).square().sum(), w)[0])
    found["gradient"] = torch.cat(gradients)
    torch.save({name: value.detach() for name, value in found.items()}, out)


def compare(repo: Path, path: Path, out: Path, classes: int) -> None:
    from bench.generators.checkout.stylegan import StyleGan

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    theirs = torch.load(out, weights_only=True)
    label = theirs["label"] if classes else None
    for psi in (1.0, 0.6):
        config = StyleGan(
            weights=str(path),
            repo=str(repo),
            resolution=RESOLUTION,
            sha256=sha256,
            trust=True,
            truncation=psi,
        )
        ours = config.load(torch.device("cpu"))
        with torch.no_grad():
            w = ours.mapped(theirs["z"], label)
            images = ours.decode(w)
        print(f"psi {psi}: w {(w - theirs[f'w {psi}']).abs().max():.2e}, images ", end="")
        print(f"{(images - theirs[f'images {psi}']).abs().max():.2e} of {images.abs().max():.2f}")
        if psi == 1.0:
            w = theirs["w 1.0"].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(ours.decode(w).square().sum(), w)
            off = (gradient - theirs["gradient"]).abs().max() / theirs["gradient"].abs().max()
            print(f"gradient: {off:.2e} of its largest coordinate")
            with torch.no_grad():
                alone = torch.cat([ours.decode(row[None]) for row in theirs["w 1.0"]])
            print(f"one by one: {(alone - images).abs().max():.2e}")
            print("notes:", ours.notes)
    foreign = [
        name for name in sys.modules if name.partition(".")[0] in ("torch_utils", "dnnlib", "training")
    ]
    print("left in the process:", foreign or "nothing", [p for p in sys.path if str(repo) in p])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--stage", choices=["make", "official"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--classes", type=int, default=0)
    asked = parser.parse_args()
    repo = asked.repo.resolve()
    if asked.stage:
        path = asked.folder / "network.pkl"
        stand_in()
        if asked.stage == "make":
            make(repo, asked.kind, path, asked.classes)
        else:
            official(repo, path, asked.folder / "official.pt")
        return
    for classes in (3,) if asked.kind.startswith("stylegan-xl") else (0, 3):
        with tempfile.TemporaryDirectory() as folder:
            for stage in ("make", "official"):
                options = ["--repo", str(repo), "--kind", asked.kind, "--stage", stage]
                options += ["--folder", folder, "--classes", str(classes)]
                subprocess.run([sys.executable, __file__, *options], check=True)
            print(f"== {asked.kind}, {classes or 'no'} classes")
            compare(repo, Path(folder) / "network.pkl", Path(folder) / "official.pt", classes)


if __name__ == "__main__":
    main()
