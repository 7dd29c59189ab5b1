"""pytest's fixture ``tr0n_bench``: a sampler of one's own is checked from one's own tests.

::

    def test_my_sampler_is_as_fast_and_good(tr0n_bench):
        tr0n_bench.check(head=MySampler(steps=20), base=Langevin(steps=20, step_size=0.1))

Installed with the package; nothing heavy is imported before the fixture is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.check.gate import CellCheck, Check
    from bench.check.speed import Measured


class SamplerCheck:
    """What the fixture gives. Settings are those of :class:`bench.check.settings.CheckSettings`.

    An inconclusive verdict is no failure unless ``strict``: noise of the machine is not the sampler's fault.
    """

    def speed(self, head: Callable[[], Any], base: Callable[[], Any], **settings: Any) -> Measured:
        """Measures two functions in turns, each called once per run; synchronised on CUDA."""
        import torch

        from bench.check.settings import CheckSettings
        from bench.check.speed import measure

        def timed(function: Callable[[], Any]) -> Callable[[], tuple[float, float]]:
            def run() -> tuple[float, float]:
                wall, cpu = time.perf_counter(), time.process_time()
                function()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                return time.perf_counter() - wall, time.process_time() - cpu

            return run

        for function in (base, head):
            function()
        return measure(timed(base), timed(head), CheckSettings(**settings))

    def check(
        self, head: Any, base: Any, *, num: int = 64, tile: int = 16, strict: bool = False, **settings: Any
    ) -> CellCheck:  # fmt: skip
        """Two samplers (their dataclasses) on handwritten digits: VAE, classifier as guide, another as judge.

        ``num`` samples each, the same classes and seeds; a run of the measurement is one tile. Fails the test
        where head is slower or worse. Samplers that need a translator are checked by :meth:`check_suite`.
        """
        from bench.check.gate import CellCheck
        from bench.check.settings import CheckSettings

        asked = CheckSettings(**settings)
        for sampler in (head, base):
            if getattr(sampler, "uses_translator", False):
                raise ValueError(f"{type(sampler).__name__} needs a translator: use check_suite.")
        bed = _TestBed(num, tile)
        measured = self.speed(lambda: bed.draw(head, tile), lambda: bed.draw(base, tile), **settings)
        found = CellCheck(
            name=type(head).__name__,
            unit=f"{tile} samples",
            measured=measured,
            quality=tuple(bed.quality(base, head, asked)),
        )
        _fail_if(found.verdict, _cell_text(found), strict)
        return found

    def check_suite(
        self, suite: Path | str, base_variant: str, head_variant: str, *, device: str = "auto",
        strict: bool = False, **settings: Any,
    ) -> Check:  # fmt: skip
        """Two variants of a suite, as ``tr0n-bench check --base-variant … --head-variant …`` does."""
        from bench.check.gate import check_variants
        from bench.check.outputs import markdown
        from bench.check.settings import CheckSettings

        found = check_variants(
            Path(suite), (), base_variant, head_variant, CheckSettings(**settings), device=device
        )
        _fail_if(found.verdict, markdown(found), strict)
        return found


class _TestBed:
    """The digits world, loaded once per check."""

    def __init__(self, num: int, tile: int):
        import torch

        from bench.conditioners.classifier import Classifier
        from bench.conditions import assign, class_conditions
        from bench.generators.vae import Vae
        from bench.judges.classifier import ClassifierJudge

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tile, self.device = tile, device
        self.generator = Vae(model="digits-vae").load(device)
        self.conditioner = Classifier(model="digits-classifier-guide", heads=("digit",)).load(device)
        self.judge = ClassifierJudge(model="digits-classifier-judge").load(device)
        digits = {"digit": tuple(str(k) for k in range(10))}
        self.assignment = assign(class_conditions(digits, ["digit"]), num, 0)

    def draw(self, sampler: Any, num: int) -> Any:
        from bench.samplers.base import Problem
        from bench.samplers.draw import draw_tiled

        num = min(num, len(self.assignment))
        streams = self.assignment.streams(0, num, self.device)
        conditions = self.conditioner.embed(self.assignment.conditions[:num])
        problem = Problem(self.generator, self.conditioner, conditions, streams)
        return draw_tiled(sampler, problem, tile=self.tile)

    def quality(self, base: Any, head: Any, settings: Any) -> list[Any]:
        import pandas as pd

        from bench.check.quality import judged
        from bench.metrics.accuracy import ClassAccuracy
        from bench.samplers.draw import to_uint8
        from bench.statistics.paired import Side, compare_paired
        from bench.types import Evidence

        sides = []
        for name, sampler in (("base", base), ("head", head)):
            drawn = self.draw(sampler, len(self.assignment))
            images = to_uint8(drawn.images).cpu().numpy()
            conditions = self.assignment.conditions
            readout = self.judge.readout(images, conditions)
            evidence = Evidence(conditions=conditions, readouts={"judge": readout}, reference={})
            result = ClassAccuracy(judge="judge").compute(evidence)
            table = pd.DataFrame(
                {
                    "condition_id": [c.id for c in conditions],
                    "kind": "class",
                    "replicate": self.assignment.replicates,
                    "seed": self.assignment.seeds,
                    "failed_step": drawn.failed_step.cpu().numpy(),
                    **result.per_sample,
                }
            )
            sides.append(Side(name=name, scores=result.scores, samples=table))
        compared = {item.metric: item for item in compare_paired(sides[0], sides[1])}
        return [
            judged(old, new, compared.get(old.metric), settings)
            for old, new in zip(sides[0].scores, sides[1].scores)
        ]


def _cell_text(found: CellCheck) -> str:
    from bench.check.outputs import quality_text, speed_text

    lines = [f"{found.name}: {found.verdict}", f"  time {speed_text(found)}"]
    lines += [f"  {item.metric} {item.verdict}: {quality_text(item)}" for item in found.quality]
    if found.measured is not None:
        lines += [f"  noticed: {text}" for text in found.measured.notices]
    return "\n".join(lines)


def _fail_if(verdict: str, text: str, strict: bool) -> None:
    if verdict in ("slower", "quality lost") or (strict and verdict == "inconclusive"):
        pytest.fail(text, pytrace=False)


@pytest.fixture(scope="session")
def tr0n_bench() -> SamplerCheck:
    """Checks of a sampler against another, on speed and quality."""
    return SamplerCheck()
