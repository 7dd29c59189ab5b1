"""``python tests/faults/peak_memory.py FOLDER NUM``: peak resident memory, in MiB, of a run of NUM samples.

Draws from the prior of the digits VAE; a judge reads all of them, for FID and accuracy.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


def main(root: Path, num: int) -> None:
    from faults.processes import Place, quick_suite

    from bench.runner import run
    from bench.suite import load_suite

    torch.set_num_threads(1)
    suite = quick_suite(samples={"num": num, "shard": 256, "tile": 32, "batch_size": 64})
    suite["protocol"]["num_reference"] = 500
    suite["judges"]["digits"]["batch_size"] = 64
    del suite["curve"]
    suite["variants"]["matrix"]["sampler"] = ["prior"]
    place = Place(root, suite)
    summary = run(load_suite(place.root / "suite.yaml"), place.run_dir, "cpu", store_url=str(place.store_dir))
    assert summary.num_ok == 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
