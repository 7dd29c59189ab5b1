"""TR0N's evaluation geometry beside ours: the same files, the same random Inception, the features compared.

    python tests/side_by_side/tr0n_fid.py --repo CHECKOUT [--num 12] [--size 512]

CHECKOUT is layer6ai-labs/tr0n (1849089) or mseitzer/pytorch-fid (b9c1811). A folder like val2014 (JPEG files
of odd and even sizes) and a folder of generated images (Pillow's JPEG of default quality) go through their
transform and Inception wrapper, and through our ``tr0n-2023`` (or ``pytorch-fid``) protocol: the COCO reader,
the codec and the inception judge. Exit code 1 where a feature differs by more than 1e-5 of the largest.

Pinned: the weight file (random, under the published names; their download is replaced by it), float32 on the
CPU, one thread, no worker processes. Their modules import each other under names that resolve in no single
folder, and h5py: the script adds those folders to the path and an empty h5py.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from inception_files import write_weights

from bench.judges.inception import InceptionJudge
from bench.protocols import Protocol
from bench.protocols.images import presented
from bench.protocols.shipped import SHIPPED
from bench.protocols.sources import load_under
from bench.samplers.draw import to_uint8
from bench.torchvision_guard import ensure_torchvision
from bench.worlds.coco import Coco, write_coco

LARGEST = 1e-5
SIZES = ((640, 427), (500, 375), (427, 640), (640, 425), (333, 500), (612, 612), (640, 479), (251, 640))


def photograph(width: int, height: int, seed: int) -> np.ndarray:
    """uint8 (height, width, 3): waves, edges and noise, so that every filter leaves its own mark."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [
        127 + 90 * np.sin(x / draws.uniform(2, 40) + y / draws.uniform(2, 40) + draws.uniform(0, 6))
        for _ in range(3)
    ]
    image = np.stack(waves, -1) + draws.normal(0, 20, (height, width, 3))
    image[(x // 37 + y // 23) % 5 == 0] = draws.uniform(0, 255, 3)
    return image.clip(0, 255).astype(np.uint8)


def val2014(root: Path, num: int) -> list[Path]:
    """A folder in MS-COCO's layout with photographs of COCO's sizes; their paths, ids ascending."""
    blank = np.zeros((num, 3, 2, 2), np.uint8)
    write_coco(root, "val2014", blank, [(f"photograph {i}",) for i in range(num)], codec="jpg")
    annotations = root / "annotations" / "captions_val2014.json"
    text = annotations.read_text().replace('"width": 2, "height": 2, ', "")
    annotations.write_text(text)
    paths = sorted((root / "val2014").iterdir())
    for i, path in enumerate(paths):
        Image.fromarray(photograph(*SIZES[i % len(SIZES)], seed=i)).save(path, quality=90)
    return paths


def their_modules(repo: Path):
    """(their get_activations on files, their Inception module) of either checkout."""
    ensure_torchvision()
    if (repo / "src" / "pytorch_fid").is_dir():
        sys.path.insert(0, str(repo / "src"))
        scores = importlib.import_module("pytorch_fid.fid_score")
        return scores, importlib.import_module("pytorch_fid.inception"), False
    # Their package has no __init__ and would lose to tr0n.py beside this script.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    for folder in (repo, repo / "tr0n" / "modules" / "BigGAN_utils"):
        sys.path.insert(0, str(folder))
    sys.modules.setdefault("h5py", types.ModuleType("h5py"))
    scores = importlib.import_module("tr0n.modules.metrics.pytorch_fid.fid_score")
    return scores, importlib.import_module("tr0n.modules.metrics.pytorch_fid.inception"), True


def compare(repo: Path, num: int, size: int, folder: Path) -> dict[str, float]:
    """Largest difference over largest feature: of real images, of generated ones; and of bytes."""
    weights = write_weights(folder)
    scores, inception, is_tr0n = their_modules(repo)
    state = torch.load(weights, weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        model = inception.InceptionV3([3])
    name = "tr0n-2023" if is_tr0n else "pytorch-fid"
    protocol = Protocol(**{**SHIPPED[name], "name": name, "resolution": size, "num_samples": num})
    if is_tr0n:
        protocol = Protocol(**{**vars(protocol), "eval_size": size})
    judge = InceptionJudge(
        weights=str(weights),
        resize=protocol.extractor_resize,
        scale=protocol.extractor_scale,
        batch_size=4,
    ).load(torch.device("cpu"))
    found: dict[str, float] = {}

    floats = torch.from_numpy(
        np.stack([photograph(size, size, 100 + i) for i in range(num)]).transpose(0, 3, 1, 2) / 127.5 - 1
    ).float() + 0.003 * torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(1))
    floats = floats.clamp(-1, 1)
    generated = folder / "generated"
    generated.mkdir()
    from torchvision.transforms import ToPILImage

    for i, image in enumerate((floats + 1.0) / 2.0):
        picture = ToPILImage()(image)  # as the evaluator does
        picture.save(generated / f"image_{i:04d}.{'jpg' if is_tr0n else 'png'}")
    stored = to_uint8(floats, protocol.quantise if is_tr0n else "floor").numpy()
    files = sorted(generated.iterdir())
    decoded = np.stack([np.asarray(Image.open(path)) for path in files]).transpose(0, 3, 1, 2)
    ours_bytes = presented(stored, protocol)
    found["bytes of generated images"] = float(np.abs(decoded.astype(int) - ours_bytes).max())

    def theirs(paths: list[Path]) -> np.ndarray:
        own = {"image_size": size} if is_tr0n else {}
        return scores.get_activations(paths, model, batch_size=1, num_workers=0, **own)

    pairs = {"generated": (theirs(files), judge.readout(ours_bytes).features)}
    if is_tr0n:  # pytorch-fid itself crops nothing, and stacks images of one size only
        paths = val2014(folder / "coco", num)
        images = load_under(Coco(root=str(folder / "coco"), resolution=size), folder, protocol)
        pairs["real"] = (theirs(paths), judge.readout(images.images(range(num))).features)
    for what, (a, b) in pairs.items():
        found[what] = float(np.abs(a - b).max() / np.abs(a).max())
        spread = float(a.std(axis=0).mean() / np.abs(a).mean())
        print(f"  {what}: features to {np.abs(a).max():.3f}, spread between images {spread:.3f} of the mean")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--num", type=int, default=12)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = compare(args.repo.resolve(), args.num, args.size, Path(folder))
    for what, value in found.items():
        print(f"{what}: {value:.2e}")
    return int(max(found.values()) > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
