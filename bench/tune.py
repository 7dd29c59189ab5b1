"""A small search over each sampler's declared hyperparameters, with the same budget for all (Optuna).

Trials draw from seeds and, for texts, prompts that the suite's own run never uses: the seed is another, and
prompts come from another split. What is found is a file that the suite takes in with its key ``tuned``.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import SuiteError, nearest
from bench.extras import optional
from bench.runner import run
from bench.store import RunStore
from bench.streams import hash64
from bench.suite import Suite, suite_from_plain
from bench.suite.yaml import dump_yaml


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every sampler gets: ``trials`` of ``num`` samples per variant, prompts of ``split``."""

    trials: int = 12
    num: int = 64
    split: str = "train"
    metric: str = "class-accuracy"
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """A sampler's best ``settings``, its value there and with the suite's own settings (the first trial)."""

    settings: Mapping[str, float]
    value: float
    before: float
    failed: int = 0
    history: tuple[float, ...] = field(default=())


Told = Callable[[str, int, int], None]


def searchable(suite: Suite) -> dict[str, Mapping[str, Any]]:
    """Name of each sampler that variants use → its declared ranges; those without any are left out."""
    used = dict.fromkeys(variant.sampler for variant in suite.variants)
    spaces = {name: getattr(suite.samplers[name].config, "tunable", {}) for name in used}
    return {name: space for name, space in spaces.items() if space}


def trial_suite(suite: Suite, sampler: str, settings: Mapping[str, float], budget: Budget) -> Suite:
    """The suite with this sampler's variants alone, its settings changed, on tuning seeds and prompts.

    Raises SuiteError where the prompts would be those of the suite's own run.
    """
    if budget.split == suite.protocol.reference_split:
        raise SuiteError(
            f"tune: split '{budget.split}' is the suite's own, whose prompts its run uses. Name another."
        )
    plain = copy.deepcopy(suite.resolved())
    plain["seed"] = hash64("tune", suite.seed, budget.seed)
    plain["samplers"][sampler] |= dict(settings)
    plain["samples"] |= {"num": budget.num, "max_failed_share": 1.0}
    plain["protocol"]["reference_split"] = budget.split
    plain.pop("curve", None)
    plain["variants"] = {"include": [v for v in plain["variants"]["include"] if v["sampler"] == sampler]}
    return suite_from_plain(plain, suite.source)


def objective(folder: Path, metric: str) -> tuple[float, bool]:
    """Mean of a metric over a run's cells, and whether higher is better; NaN where a cell lacks it.

    Raises SuiteError where no cell has such a metric and none failed.
    """
    values, higher, failed = [], True, False
    known: set[str] = set()
    for record in RunStore(folder).records():
        found = [score for score in record.scores if score.step is None and score.metric == metric]
        known |= {score.metric for score in record.scores}
        failed |= record.status != "ok"
        if found:
            higher = found[0].better == "higher"
        values.append(found[0].value if found else math.nan)
    if all(math.isnan(value) for value in values) and not failed:
        raise SuiteError(f"tune: no cell has metric '{metric}'.{nearest(metric, known)}")
    return (sum(values) / len(values) if values else math.nan), higher


def tune(
    suite: Suite, budget: Budget, device: str = "auto", store_url: str | None = None, told: Told | None = None
) -> dict[str, Tuned]:
    """Searches every sampler that declares ranges; the suite's own settings are each one's first trial.

    A trial whose cells fail counts as the worst. Set-ups are made once, in the artifact store.
    """
    optuna = optional("optuna", "tr0n-bench tune", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, Tuned] = {}
    with tempfile.TemporaryDirectory(prefix="tr0n-bench-tune-") as scratch:
        for name, space in searchable(suite).items():
            found[name] = _search(suite, name, space, budget, device, store_url, told, Path(scratch), optuna)
    return found


def _search(
    suite: Suite, name: str, space: Mapping[str, Any], budget: Budget, device: str, store_url: str | None,
    told: Told | None, scratch: Path, optuna: Any,
) -> Tuned:  # fmt: skip
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=budget.seed))
    own = {key: getattr(suite.samplers[name].config, key) for key in space}
    study.enqueue_trial(own, skip_if_exists=True)
    history: list[float] = []
    direction = 1.0
    for k in range(budget.trials):
        trial = study.ask()
        settings = {key: item.suggest(trial, key) for key, item in space.items()}
        folder = scratch / f"{name}-{k}"
        run(trial_suite(suite, name, settings, budget), folder, device, store_url=store_url)
        value, higher = objective(folder, budget.metric)
        direction = -1.0 if higher else 1.0
        study.tell(trial, direction * value if math.isfinite(value) else 1e9)
        history.append(value)
        if told is not None:
            told(name, k + 1, budget.trials)
    best = study.best_trial
    return Tuned(
        settings={key: float(f"{value:.4g}") for key, value in best.params.items()},
        value=history[best.number],
        before=history[0],
        failed=sum(not math.isfinite(value) for value in history),
        history=tuple(history),
    )


def tuned_yaml(suite: Suite, budget: Budget, found: Mapping[str, Tuned]) -> str:
    """The file that ``tuned`` takes in: how it came about as comments, then the samplers' settings."""
    lines = [
        f"# Written by: tr0n-bench tune {Path(suite.source).name} --trials {budget.trials} "
        f"--num {budget.num} --metric {budget.metric} --split {budget.split} --seed {budget.seed}",
        f"# {budget.trials} trials of {budget.num} samples per variant for each sampler; tuning seed "
        f"{hash64('tune', suite.seed, budget.seed)}, prompts of split '{budget.split}'.",
    ]
    for name, item in found.items():
        lines.append(f"# {name}: {budget.metric} {item.before:.4g} before, {item.value:.4g} after.")
    samplers = {name: {"kind": suite.samplers[name].kind, **item.settings} for name, item in found.items()}
    return "\n".join(lines) + "\n" + dump_yaml({"samplers": samplers})
