"""A small search over declared hyperparameters, with the same budget for every row of a suite (Optuna).

Each sampler that declares ranges gets one search; where it declares none (a feed-forward pass), the set-up
that it draws from gets one. Trials draw from seeds and, for texts, prompts that the suite's own run never
uses: the seed is another, and prompts come from another split. What is found is a file that the suite takes
in with its key ``tuned``.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.errors import SuiteError, nearest
from bench.extras import optional
from bench.ranges import Range
from bench.runner import run
from bench.store import RunStore, atomic_write
from bench.streams import hash64
from bench.suite import Suite, suite_from_plain
from bench.suite.tuned import SECTIONS, read_tuned
from bench.suite.yaml import dump_yaml


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every search gets: ``trials`` of ``num`` samples per variant, prompts of ``split``."""

    trials: int = 12
    num: int = 64
    split: str = "train"
    metric: str = "class-accuracy"
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """What one search is about: a sampler or a set-up (``section`` samplers or translators), the ranges that
    it declares, and the names of the variants by which a trial is judged."""

    section: str
    name: str
    space: Mapping[str, Range]
    variants: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class Tuned:
    """The best ``settings`` of a subject, its value there and with the suite's own settings (the first
    trial)."""

    subject: Subject
    settings: Mapping[str, float]
    value: float
    before: float
    failed: int = 0
    history: tuple[float, ...] = field(default=())


Told = Callable[[str, int, int], None]


def searchable(suite: Suite, only: str = "*", variants: str = "*") -> list[Subject]:
    """What is to be searched, in the order of the suite's variants: of those whose names match ``variants``,
    what is called like ``only`` ("samplers.*"). Raises SuiteError where there is none.
    """
    chosen = [variant for variant in suite.variants if fnmatchcase(variant.label, variants)]
    if not chosen:
        names = [variant.label for variant in suite.variants]
        raise SuiteError(f"tune: no variant is named '{variants}'.{nearest(variants, names)}")
    found: dict[tuple[str, str], list[str]] = {}
    spaces: dict[tuple[str, str], Mapping[str, Range]] = {}
    for variant in chosen:
        section, name = "samplers", variant.sampler
        space = getattr(suite.samplers[name].config, "tunable", {})
        if not space and variant.translator is not None:
            section, name = "translators", variant.translator
            space = getattr(suite.translators[name].config, "tunable", {})
        if space:
            spaces[section, name] = space
            found.setdefault((section, name), []).append(variant.label)
    subjects = [Subject(*key, spaces[key], tuple(names)) for key, names in found.items()]
    wanted = [subject for subject in subjects if fnmatchcase(subject.label, only)]
    if subjects and not wanted:
        labels = [subject.label for subject in subjects]
        raise SuiteError(f"tune: nothing to search is named '{only}'.{nearest(only, labels)}")
    return wanted


def trial_suite(suite: Suite, subject: Subject, settings: Mapping[str, float], budget: Budget) -> Suite:
    """The suite with the subject's variants alone, its settings changed, on tuning seeds and prompts.

    Raises SuiteError where the prompts would be those of the suite's own run.
    """
    if budget.split == suite.protocol.reference_split:
        raise SuiteError(
            f"tune: split '{budget.split}' is the suite's own, whose prompts its run uses. Name another."
        )
    plain = copy.deepcopy(suite.resolved())
    plain["seed"] = tuning_seed(suite, budget)
    plain[subject.section][subject.name] |= dict(settings)
    plain["samples"] |= {"num": budget.num, "max_failed_share": 1.0}
    plain["protocol"]["reference_split"] = budget.split
    plain.pop("curve", None)
    kept = [
        item
        for item, variant in zip(plain["variants"]["include"], suite.variants, strict=True)
        if variant.label in subject.variants
    ]
    for item in kept:
        if item.get("num_samples") is not None:
            item["num_samples"] = budget.num
    plain["variants"] = {"include": kept}
    return suite_from_plain(plain, suite.source)


def tuning_seed(suite: Suite, budget: Budget) -> int:
    """The seed of all trials, which is not the suite's."""
    return hash64("tune", suite.seed, budget.seed)


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
    suite: Suite,
    budget: Budget,
    device: str = "auto",
    store_url: str | None = None,
    told: Told | None = None,
    *,
    only: str = "*",
    variants: str = "*",
    found: Callable[[Tuned], None] | None = None,
) -> list[Tuned]:
    """Searches every subject of :func:`searchable`; the suite's own settings are each one's first trial.

    A trial whose cells fail counts as the worst. All that is drawn and trained lies in the artifact store,
    so that a search that was interrupted goes through its first trials quickly when it is started again.
    ``found`` is told of each search that has ended.
    """
    optuna = optional("optuna", "tr0n-bench tune", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results: list[Tuned] = []
    with tempfile.TemporaryDirectory(prefix="tr0n-bench-tune-") as scratch:
        for subject in searchable(suite, only, variants):
            results.append(_search(suite, subject, budget, device, store_url, told, Path(scratch), optuna))
            if found is not None:
                found(results[-1])
    return results


def _search(
    suite: Suite, subject: Subject, budget: Budget, device: str, store_url: str | None, told: Told | None,
    scratch: Path, optuna: Any,
) -> Tuned:  # fmt: skip
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=budget.seed))
    config = getattr(suite, subject.section)[subject.name].config
    study.enqueue_trial({key: getattr(config, key) for key in subject.space}, skip_if_exists=True)
    history: list[float] = []
    direction = 1.0
    for k in range(budget.trials):
        trial = study.ask()
        settings = {key: item.suggest(trial, key) for key, item in subject.space.items()}
        folder = scratch / f"{subject.label}-{k}"
        run(trial_suite(suite, subject, settings, budget), folder, device, store_url=store_url)
        value, higher = objective(folder, budget.metric)
        direction = -1.0 if higher else 1.0
        study.tell(trial, direction * value if math.isfinite(value) else 1e9)
        history.append(value)
        if told is not None:
            told(subject.label, k + 1, budget.trials)
    best = study.best_trial
    return Tuned(
        subject,
        settings={key: float(f"{value:.4g}") for key, value in best.params.items()},
        value=history[best.number],
        before=history[0],
        failed=sum(not math.isfinite(value) for value in history),
        history=tuple(history),
    )


def write_tuned(path: Path, suite: Suite, budget: Budget, found: Sequence[Tuned]) -> None:
    """Writes the file that ``tuned`` takes in: settings, and under ``searches`` how they came about.

    What the file says of samplers and set-ups that were not searched now stays.
    """
    content: dict[str, Any] = read_tuned(path) if path.exists() else {}
    searches = {item["of"]: item for item in content.get("searches", [])}
    for item in found:
        subject = item.subject
        own = getattr(suite, subject.section)[subject.name]
        content.setdefault(subject.section, {})[subject.name] = {"kind": own.kind, **item.settings}
        searches[subject.label] = {
            "of": subject.label,
            "before": _rounded(item.before),
            "after": _rounded(item.value),
            **{name: vars(budget)[name] for name in ("metric", "trials", "num", "split", "seed")},
            "suite_seed": tuning_seed(suite, budget),
            "failed_trials": item.failed,
            "variants": list(subject.variants),
        }
    ordered = {name: content[name] for name in SECTIONS if name in content}
    head = f"# Written by tr0n-bench tune; {suite.name}'s key 'tuned' takes it in.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (head + dump_yaml({**ordered, "searches": list(searches.values())})).encode())


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
