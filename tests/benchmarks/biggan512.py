"""How fast TR0N refines BigGAN-512 under CLIP ViT-B/32 here, at real size and random weights.

    PYTHONPATH=.:tests python tests/benchmarks/biggan512.py [--samples 8] [--steps 5] [--views 50] [--tf32]

Files of the published formats are written with random weights and loaded as a suite loads them; the sampler
is ``Tr0n`` as published. The first step warms up and is not timed. Printed: seconds a step and an image of
100 steps, images a second, peak memory, FLOPs of a step as torch counts them (convolutions and matrix
products, forwards and backwards; a multiplication with its addition is two), and what share that is of two
peaks: the nominal one of the device, where it is known, and the fastest of some large matrix products
measured here.

One core of a shared 2-core x86 machine, torch 2.13, ``--steps 1``: 1.52 TFLOP a step and sample, 82 s a step,
4.4 GiB, 77 % of the measured peak of 24 GFLOP/s.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import torch
from generators.biggan_files import brock_file
from side_by_side.harness import our_clip, public_clip
from torch.utils.flop_counter import FlopCounterMode

from bench.generators.biggan.brock import BigGan
from bench.samplers.base import Problem
from bench.samplers.tr0n import Tr0n
from bench.streams import Streams
from bench.timing import peak_memory_gib, synchronise
from bench.translator.config import Tr0nTranslator
from bench.translator.train import Translator, new_network
from bench.types import Condition

# Dense peaks in TFLOP/s, (float32, TF32), from NVIDIA's data sheets.
NOMINAL = {
    "H200": (67.0, 494.5),
    "H100 80GB HBM3": (67.0, 494.5),  # SXM
    "H100 PCIe": (51.2, 378.0),
    "A100": (19.5, 156.0),
    "L4": (30.3, 60.0),
}
STEPS = 100  # of the paper


def load_problem(folder: Path, args: argparse.Namespace, device: torch.device) -> Problem:
    path = brock_file(folder, resolution=512, width=96, num_classes=1000)
    generator = BigGan(weights=str(path)).load(device)
    conditioner = our_clip(public_clip(0), folder, views=args.views, device=device)
    torch.manual_seed(0)
    network = new_network(generator.latent, conditioner.dim, Tr0nTranslator())
    texts = [f"a photo of {i} dogs" for i in range(args.samples)]
    condition = conditioner.embed([Condition(id=text, kind="text", text=text) for text in texts])
    streams = Streams.from_seed(args.samples, "biggan512", device=device)
    translator = Translator(network, generator.latent, device)
    return Problem(generator, conditioner, condition, streams, translator)


def nominal_tflops(device: torch.device, tf32: bool) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peaks[tf32] for key, peaks in NOMINAL.items() if key in name), None)


def measured_tflops(device: torch.device) -> float:
    """TFLOP/s of the fastest of a few float32 matrix products."""
    size = 8192 if device.type == "cuda" else 1536
    a = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(6):
        synchronise(device)
        begin = time.perf_counter()
        a @ a
        synchronise(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e12


def measure(problem: Problem, args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    sampler = Tr0n(steps=STEPS)
    with torch.no_grad():
        state = sampler.init(problem)
        with FlopCounterMode(display=False) as counter:
            state = sampler.step(problem, state, 0)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = []
        for t in range(1, args.steps + 1):
            synchronise(device)
            begin = time.perf_counter()
            state = sampler.step(problem, state, t)
            synchronise(device)
            seconds.append(time.perf_counter() - begin)
    assert torch.isfinite(state.energy_N).all()
    step = sorted(seconds)[len(seconds) // 2]
    flops = counter.get_total_flops()
    found = {
        "seconds_per_step": step,
        "seconds_per_step_fastest": min(seconds),
        "seconds_per_image": step * STEPS / args.samples,
        "images_per_second": args.samples / (step * STEPS),
        "peak_memory_gib": peak_memory_gib(device),
        "tflop_per_step_and_sample": flops / args.samples / 1e12,
        "tflops": flops / step / 1e12,
        "measured_peak_tflops": measured_tflops(device),
    }
    found["share_of_measured_peak"] = found["tflops"] / found["measured_peak_tflops"]
    nominal = nominal_tflops(device, args.tf32)
    if nominal is not None:
        found |= {"nominal_peak_tflops": nominal, "share_of_nominal_peak": found["tflops"] / nominal}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1, help="in one tile")
    parser.add_argument("--steps", type=int, default=5, help="timed")
    parser.add_argument("--views", type=int, default=50, help="of a sample in a step; the paper takes 50")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in convolutions and matrix products")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    with tempfile.TemporaryDirectory() as folder:
        problem = load_problem(Path(folder), args, device)
    found = measure(problem, args, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    about = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**vars(args), **about, **found}, indent=2))


if __name__ == "__main__":
    main()
