"""Checks the cost model on this machine: a pilot of one shard per cell predicts a run of eight times as many
samples, which is then made in a fresh store and timed.

    python tests/cost_check.py [--shard 64] [--times 8] [--folder FOLDER]
    python tests/cost_check.py --suite SUITE [--set PATH.TO.KEY=VALUE ...]

Without ``--suite`` it takes suites/digits.yaml with fewer steps, which is done in minutes on one core. Prints
both by stage and exits with 1 where the prediction is more than 25 % off. Run it on an idle machine: what
another process takes from one of the two runs is an error of the prediction. Wall-clock is that of the run,
in a process of its own; starting Python is not in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LARGEST_ERROR = 0.25
SHORTER = [  # what makes suites/digits.yaml quick
    "samplers.langevin.steps=10",
    "samplers.tr0n.steps=10",
    "curve={steps: [0, 10], num: 64}",
    "metrics.fid={kind: fid, judge: digits, allow_small_n: true}",
]
ROOT = Path(__file__).parents[1]
TIMED = """\
import json, sys, time
from pathlib import Path
import torch
from bench.runner import run
from bench.suite import load_suite
suite, overrides, out, store = json.loads(sys.argv[1])
torch.set_num_threads(1)
suite = load_suite(Path(suite), overrides)
begin = time.perf_counter()
summary = run(suite, Path(out), "cpu", store_url=store)
print(json.dumps({"wall_s": time.perf_counter() - begin, "failed": summary.num_failed}))
"""


def timed_run(suite: Path, overrides: list[str], out: Path, store: Path) -> float:
    """Seconds that a run takes in a fresh process, all of its cells being ok."""
    arguments = json.dumps([str(suite), overrides, str(out), str(store)])
    done = subprocess.run(
        [sys.executable, "-c", TIMED, arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    if result["failed"]:
        raise SystemExit(f"{result['failed']} cells failed: see {out}")
    return result["wall_s"]


def predicted(suite: Path, overrides: list[str], pilot: Path, store: Path) -> dict[str, Any]:
    """What ``plan --gpus 1`` says."""
    command = [sys.executable, "-m", "bench", "plan", str(suite), "--store", str(store), "--json"]
    command += ["--gpus", "1", "--pilot", str(pilot)]
    for override in overrides:
        command += ["--set", override]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["cost"]


def actual_stages(run: Path, wall_s: float) -> dict[str, float]:
    """Seconds by stage, from the journal."""
    stages = dict.fromkeys(("checking", "pairs", "translator", "reference", "samples", "recording"), 0.0)
    for line in (run / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "made":
            kind = event["task"].split("/")[0]
            stages[kind if kind in stages else "samples"] += event["seconds"]
        if event["event"] == "finished":
            stages |= {name: sum(event["seconds"][name]) for name in ("checking", "recording")}
    return stages | {"other": wall_s - sum(stages.values())}


def stored_bytes(store: Path, kinds: list[str]) -> int:
    return sum(path.stat().st_size for kind in kinds for path in (store / kind).rglob("*") if path.is_file())


def check(suite: Path, overrides: list[str], shard: int, times: int, folder: Path) -> float:
    """The relative error of the predicted wall-clock; prints what it is made of."""
    common = [*overrides, f"samples.shard={shard}"]
    pilot = [*common, f"samples.num={shard}"]
    large = [*common, f"samples.num={shard * times}"]
    pilot_s = timed_run(suite, pilot, folder / "pilot", folder / "pilot-store")
    cost = predicted(suite, large, folder / "pilot", folder / "pilot-store")
    if cost["unmeasured"]:
        raise SystemExit(f"cells were not measured: {cost['unmeasured']}")
    whole = cost["whole"]
    actual_s = timed_run(suite, large, folder / "large", folder / "large-store")
    actual = actual_stages(folder / "large", actual_s)
    print(f"pilot of {shard} samples per cell: {pilot_s:.1f} s; then {shard * times} per cell:")
    print(f"{'stage':12}{'predicted':>12}{'actual':>12}")
    for stage, seconds in actual.items():
        print(f"{stage:12}{whole['wall_s'].get(stage, 0.0):10.2f} s{seconds:10.2f} s")
    error = whole["total_s"] / actual_s - 1
    print(f"{'in all':12}{whole['total_s']:10.2f} s{actual_s:10.2f} s   off by {error:+.1%}")
    kinds = list(whole["stored"])
    size, actual_size = sum(whole["stored"].values()), stored_bytes(folder / "large-store", kinds)
    off = size / actual_size - 1
    print(f"{'storage':12}{size / 2**20:8.2f} MiB{actual_size / 2**20:8.2f} MiB   off by {off:+.1%}")
    return error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--shard", type=int, default=64)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument(
        "--folder", type=Path, help="where runs and stores go and stay; a temporary one by default"
    )
    options = parser.parse_args()
    suite, overrides = options.suite, options.overrides
    if suite is None:
        suite, overrides = ROOT / "suites" / "digits.yaml", [*SHORTER, *overrides]
    arguments = (suite.resolve(), overrides, options.shard, options.times)
    if options.folder is not None:
        options.folder.mkdir(parents=True)
        error = check(*arguments, options.folder.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="tr0n-bench-cost-") as folder:
            error = check(*arguments, Path(folder))
    if abs(error) > LARGEST_ERROR:
        print(f"error: more than {LARGEST_ERROR:.0%} off.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
