"""Suite → plan: the cells to run, the artifacts they share and the work they take. No weight is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.errors import SuiteError
from bench.keys import content_key, slug
from bench.suite import Suite, Variant
from bench.suite.checks import applies, condition_kind
from bench.types import ConditionKind

ArtifactKind = Literal["pairs", "translator", "reference", "samples", "scores"]
# What of a TR0N translator's configuration its pairs depend on; other kinds' pairs depend on all of it.
PAIR_FIELDS = {"tr0n": ("route", "captioner", "num_pairs", "seed")}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One variant on one data set: what the runner draws, scores and records.

    ``key`` hashes all configuration that determines the samples, not names, batch size or folders; ``id``
    is ``<slug of variant>-<first 8 hex of the key>``. ``num_conditions`` distinct conditions are taken in
    turn (for text, as many as the data has prompts, if fewer). ``metrics`` are those that apply;
    ``curve_steps`` are within the sampler's own. ``config`` holds the components as plain data. ``work``
    counts evaluations of single samples (views for f): ``generator_forwards``, ``generator_backwards``,
    ``auxiliary_forwards``, ``auxiliary_backwards``.
    """

    id: str
    key: str
    variant: str
    data: str
    condition_kind: ConditionKind
    generator: str
    conditioner: str
    sampler: str
    translator: str | None
    num_samples: int
    num_conditions: int
    seed: int
    metrics: tuple[str, ...]
    curve_steps: tuple[int, ...]
    config: dict[str, Any]
    work: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something that is made once and used by ``cells``: ``key`` is the hash of all that it depends on.

    ``needs`` are keys of other artifacts. Keys cover configuration; what is cached across runs must
    also be keyed by the weight files' sha256.
    """

    kind: ArtifactKind
    name: str
    key: str
    needs: tuple[str, ...]
    cells: tuple[str, ...]
    work: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells in the suite's order and all artifacts in an order in which they can be made."""

    suite: str
    cells: tuple[Cell, ...]
    artifacts: tuple[Artifact, ...]

    @property
    def work(self) -> dict[str, int]:
        """The sum over artifacts, by kind of evaluation."""
        total: Counter[str] = Counter()
        for artifact in self.artifacts:
            total.update(artifact.work)
        return dict(total)

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "work": self.work}


def plan(suite: Suite) -> Plan:
    """The suite's cells and artifacts, without loading any weight or image.

    Raises SuiteError where two variants would draw the same samples under one id.
    """
    cells = tuple(_cell(suite, variant) for variant in suite.variants)
    known: dict[str, Cell] = {}
    for cell in cells:
        other = known.setdefault(cell.id, cell)
        if other is not cell:
            raise SuiteError(
                f"{suite.source}: variants: '{other.variant}' on data '{other.data}' and '{cell.variant}' "
                f"on data '{cell.data}' have the same configuration. Remove one, or give one another name."
            )
    return Plan(suite=suite.name, cells=cells, artifacts=tuple(_artifacts(suite, cells)))


def _cell(suite: Suite, variant: Variant) -> Cell:
    kind = condition_kind(variant, {"conditioners": suite.conditioners})
    num_samples = variant.num_samples or suite.samples.num
    num_conditions = _num_conditions(suite, variant, kind, num_samples)
    config = {
        "data": suite.data[variant.data].raw,
        "generator": suite.generators[variant.generator].raw,
        "conditioner": suite.conditioners[variant.conditioner].raw,
        "sampler": suite.samplers[variant.sampler].raw,
        "translator": None if variant.translator is None else suite.translators[variant.translator].raw,
        "protocol": {
            "resolution": suite.protocol.resolution,
            "codec": suite.protocol.codec,
            "reference_split": suite.protocol.reference_split,
        },
    }
    identity = {
        **config,
        "seed": suite.seed,
        "num_samples": num_samples,
        "conditions": {"kind": kind, "num": num_conditions},
        # Kernels round otherwise at another tile: the same samples to the eye, not to the bit.
        "tile": suite.samples.tile,
    }
    key = content_key({"samples": identity})
    sampler = suite.samplers[variant.sampler].config
    curve = suite.curve.steps if suite.curve is not None else ()
    return Cell(
        id=f"{slug(variant.label)}-{key[:8]}",
        key=key,
        variant=variant.label,
        data=variant.data,
        condition_kind=kind,
        generator=variant.generator,
        conditioner=variant.conditioner,
        sampler=variant.sampler,
        translator=variant.translator,
        num_samples=num_samples,
        num_conditions=num_conditions,
        seed=suite.seed,
        metrics=tuple(name for name, m in suite.metrics.items() if applies(m, variant.data, kind)),
        curve_steps=tuple(sorted({step for step in curve if step <= sampler.steps})),
        config=config,
        work=estimate(sampler, suite.conditioners[variant.conditioner].config, num_samples),
    )


def _num_conditions(suite: Suite, variant: Variant, kind: ConditionKind, num_samples: int) -> int:
    """Distinct conditions of a cell: all classes, or a prompt per sample, or fewer where asked."""
    largest = num_samples
    if kind == "class":
        attributes = suite.data[variant.data].config.attributes
        heads = getattr(suite.conditioners[variant.conditioner].config, "heads", None) or tuple(attributes)
        largest = min(largest, math.prod(len(attributes[head]) for head in heads))
    return min(largest, suite.samples.conditions or largest)


def estimate(sampler: Any, conditioner: Any, num_samples: int) -> dict[str, int]:
    """Evaluations of G and f that drawing ``num_samples`` takes.

    Asks ``sampler.estimate(num_samples, views)`` where there is one; else an energy per starting
    candidate where there are several, a gradient of the energy per step and a last decoding.
    """
    views = max(1, getattr(conditioner, "views", 1) or 1)
    own = getattr(sampler, "estimate", None)
    if own is not None:
        return {key: int(value) for key, value in own(num_samples, views).items()}
    refined = num_samples * sampler.steps
    candidates = getattr(sampler, "candidates", 1)
    tried = num_samples * candidates if candidates > 1 else 0
    return {
        "generator_forwards": tried + refined + num_samples,
        "generator_backwards": refined,
        "auxiliary_forwards": (tried + refined) * views,
        "auxiliary_backwards": refined * views,
    }


def _artifacts(suite: Suite, cells: Iterable[Cell]) -> list[Artifact]:
    """Artifacts of all cells, each once, in order of need."""
    cells = tuple(cells)
    pairs, translators = _translator_artifacts(suite, cells)
    references = _reference_artifacts(suite, cells)
    samples, scores = [], []
    translator_of = {cell: item.key for item in translators for cell in item.cells}
    for cell in cells:
        needs = (translator_of[cell.id],) if cell.id in translator_of else ()
        samples.append(
            Artifact(
                kind="samples", name=cell.id, key=cell.key, needs=needs, cells=(cell.id,), work=cell.work
            )
        )
        scores.append(_score_artifact(suite, cell, references))
    return [*pairs.values(), *translators, *references.values(), *samples, *scores]


def _translator_artifacts(
    suite: Suite, cells: tuple[Cell, ...]
) -> tuple[dict[str, Artifact], list[Artifact]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.translator is not None:
            key = content_key(
                {"translator": [cell.config[k] for k in ("generator", "conditioner", "translator")]}
            )
            groups.setdefault(key, []).append(cell)
    pair_groups: dict[str, list[list[Cell]]] = {}
    translators = []
    for key, members in groups.items():
        first = members[0]
        raw, config = first.config["translator"], suite.translators[str(first.translator)].config
        names = PAIR_FIELDS.get(raw["kind"], tuple(raw))
        pairs_key = content_key(
            {"pairs": [first.config["generator"], first.config["conditioner"], {k: raw[k] for k in names}]}
        )
        pair_groups.setdefault(pairs_key, []).append(members)
        translators.append(
            Artifact(
                kind="translator",
                name=f"{first.generator}/{first.conditioner}/{first.translator}",
                key=key,
                needs=(pairs_key,),
                cells=tuple(cell.id for cell in members),
                work={"translator_steps": config.steps},
            )
        )
    pairs = {}
    for pairs_key, member_lists in pair_groups.items():
        first = member_lists[0][0]
        num = suite.translators[str(first.translator)].config.num_pairs
        pairs[pairs_key] = Artifact(
            kind="pairs",
            name=f"{first.generator}/{first.conditioner}",
            key=pairs_key,
            needs=(),
            cells=tuple(cell.id for members in member_lists for cell in members),
            work={"generator_forwards": num, "auxiliary_forwards": num},
        )
    return pairs, translators


def _judges(suite: Suite, cell: Cell) -> list[str]:
    """Names of the judges that the cell's metrics use, each once."""
    used = (suite.metrics[name].config.judge for name in cell.metrics)
    return list(dict.fromkeys(judge for judge in used if judge is not None))


def _reference_artifacts(suite: Suite, cells: tuple[Cell, ...]) -> dict[tuple[str, str], Artifact]:
    groups: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for judge in _judges(suite, cell):
            groups.setdefault((cell.data, judge), []).append(cell.id)
    protocol = asdict(suite.protocol)
    return {
        (data, judge): Artifact(
            kind="reference",
            name=f"{data}/{judge}",
            key=content_key({"reference": [suite.data[data].raw, suite.judges[judge].raw, protocol]}),
            needs=(),
            cells=tuple(members),
            work={"judge_forwards": suite.protocol.num_reference},
        )
        for (data, judge), members in groups.items()
    }


def _score_artifact(suite: Suite, cell: Cell, references: Mapping[tuple[str, str], Artifact]) -> Artifact:
    judges = _judges(suite, cell)
    needs = [references[cell.data, judge].key for judge in judges]
    per_judge = cell.num_samples
    if suite.curve is not None:
        per_judge += len(cell.curve_steps) * min(suite.curve.num, cell.num_samples)
    content = {
        "scores": {name: suite.metrics[name].raw for name in cell.metrics},
        "judges": {name: suite.judges[name].raw for name in judges},
        "needs": [cell.key, *needs],
        "curve": [list(cell.curve_steps), suite.curve.num if suite.curve is not None else 0],
    }
    return Artifact(
        kind="scores",
        name=cell.id,
        key=content_key(content),
        needs=(cell.key, *needs),
        cells=(cell.id,),
        work={"judge_forwards": per_judge * len(judges)},
    )
