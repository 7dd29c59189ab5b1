"""How often ``tr0n-bench check`` cries wolf, and how often it sees a slow-down: on real runs, and resampled.

    python tests/benchmarks/check_power.py --out FOLDER [--live 100] [--planted 40]
    python tests/benchmarks/check_power.py --resample FOLDER

Live: base and head are two processes that draw real samples (digits-vae, 2 Langevin steps on a tile of 4),
measured as ``check`` does at its defaults. For A/A both run this code; for a planted slow-down the head runs
a copy in which every Langevin step works longer by that share of its own processor time. Every series is
kept.

Resampled: 2,000 checks whose pairs of processes are drawn from all live A/A ones, with the head multiplied by
1.00, 1.05 or 1.10. Figures: bench/docs/check.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.check.machine import snapshot
from bench.check.rank import judge
from bench.check.settings import CheckSettings
from bench.check.sides import HEAD, Side, at_once, sharing
from bench.check.speed import by_process, measure

SUITE = """\
name: power
data: {digits: {kind: digits}}
generators: {vae: {kind: vae, model: digits-vae}}
conditioners: {class: {kind: classifier, model: digits-classifier-guide, heads: [digit]}}
samplers: {langevin: {kind: langevin, steps: 2, step_size: 0.1, momentum: 0.5}}
samples: {num: 4, tile: 4}
variants: {matrix: {data: digits, generator: vae, conditioner: class, sampler: langevin}}
"""
PER_PROCESS = 5


def slowed(folder: Path, share: float) -> Path:
    """A copy of this code in which a Langevin step takes ``share`` longer."""
    shutil.copytree(HEAD / "bench", folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "bench" / "samplers" / "langevin.py"
    text = path.read_text(encoding="utf-8")
    head = "    def step(self, problem: Problem, state: LangevinState, t: int) -> LangevinState:\n"
    assert text.count(head) == 1, "the step to slow down is not where it was"
    spin = f"""\
    def step(self, problem: Problem, state: LangevinState, t: int) -> LangevinState:
        import time

        begin = time.thread_time()
        new = self._step(problem, state, t)
        end = time.thread_time()
        while time.thread_time() - end < {share} * (end - begin):
            pass
        return new

"""
    path.write_text(text.replace(head, spin + head.replace("def step", "def _step")), encoding="utf-8")
    return folder


def live(out: Path, name: str, head_code: Path, num: int) -> None:
    if not num:
        return
    suite = out / "power.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    settings, log = CheckSettings(), out / f"{name}.jsonl"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    while done < num:
        with Side("base") as base, Side("head", head_code) as head:
            cells = [
                side.load(suite=str(suite), overrides=[], device="cpu", store=str(out / "store"))
                for side in (base, head)
            ]
            cell = cells[0]["cells"][0]["id"]

            def renew(
                order: Sequence[int] = (0, 1), sides: tuple[Side, Side] = (base, head), cell: str = cell
            ) -> None:
                at_once(*(side.renew for side in sides))
                for k in order:
                    sides[k].ask("prepare", cell=cell, unit_s=CheckSettings().unit_s, max_steps=2)

            def run(side: Side, cell: str = cell) -> tuple[float, float]:
                answer = side.ask("time", cell=cell)
                return answer["wall"], answer["cpu"]

            for _ in range(min(PER_PROCESS, num - done)):
                begin = time.perf_counter()
                renew()
                with sharing([base, head]) as place:
                    found = measure(
                        lambda: run(base), lambda: run(head), settings, seed=done, place=place, renew=renew
                    )
                line = {
                    "verdict": found.speed.verdict, "ratio": found.speed.ratio, "rounds": found.speed.rounds,
                    "more_rounds": found.speed.more_rounds, "noise": found.noise,
                    "seconds": time.perf_counter() - begin, "load": snapshot().load,
                    "notices": found.notices, "base_s": found.base_s, "head_s": found.head_s,
                    "base_cpu_s": found.base_cpu_s, "head_cpu_s": found.head_cpu_s, "clock": found.clock,
                }  # fmt: skip
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                done += 1
    show(log)


def show(log: Path) -> None:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    counts = Counter(line["verdict"] for line in lines)
    ratios, rounds, noise, load = (
        [line[key] for line in lines] for key in ("ratio", "rounds", "noise", "load")
    )
    print(
        f"live {log.stem}: {len(lines)} checks, {dict(counts)}; ratio {np.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), rounds {np.mean(rounds):.0f}, "
        f"A/A spread {np.median(noise):.3f}, load {np.median(load):.1f}, "
        f"clocks {dict(Counter(line['clock'] for line in lines))}"
    )


def resample(out: Path, num: int = 2000) -> None:
    lines = [json.loads(line) for line in (out / "aa.jsonl").read_text(encoding="utf-8").splitlines()]
    settings, rng = CheckSettings(), np.random.default_rng(0)
    series = []
    for line in lines:
        ending = "cpu_s" if line["clock"] == "processor" else "s"
        d = np.log(line[f"head_{ending}"]) - np.log(line[f"base_{ending}"])
        series.append(by_process(d, settings.per_process))
    values, most = np.concatenate(series), settings.max_rounds // settings.per_process
    for effect in (0.0, 0.05, 0.10):
        counts: Counter[str] = Counter()
        for _ in range(num):
            # Whichever ran first is drawn by chance, so each pair's sign may be turned.
            d = rng.choice(values, most) * rng.choice([-1.0, 1.0], most) + np.log1p(effect)
            for look in settings.looks:
                found = judge(d[: look // settings.per_process], settings, per=settings.per_process)
                if found.verdict != "inconclusive":
                    break
            counts[found.verdict] += 1
        shares = {name: round(100 * count / num, 2) for name, count in counts.items()}
        print(f"resampled, head {100 * effect:.0f} % slower: {num} checks, per cent {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--live", type=int, default=100)
    parser.add_argument("--planted", type=int, default=40)
    parser.add_argument("--resample", type=Path)
    given = parser.parse_args()
    if given.resample:
        for log in sorted(given.resample.glob("*.jsonl")):
            show(log)
        resample(given.resample)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for name, share in (("slow10", 0.10), ("slow05", 0.05)):
        if not (given.out / name).exists():
            slowed(given.out / name, share)
    live(given.out, "aa", HEAD, given.live)
    for name in ("slow10", "slow05"):
        live(given.out, name, given.out / name, given.planted)
    resample(given.out)


if __name__ == "__main__":
    main()
