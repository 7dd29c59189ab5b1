"""What a plan's cells need from the artifact store, part by part: what is there, and what is to be made.

::

    pairs/<key>/<span>         latents and conditions          translator/<key>/network
    samples/<key>/<span>       latents, energies, timing       images/<key>/<span>      PNG files
    snapshots/<key>/<span>     PNG files at each step          readout/<key>/<span>     what a judge saw
    reference/<key>/<span>     what a judge saw in real images score/<key>/result       scores and columns
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import identity
from bench.artifacts import ArtifactStore
from bench.assembly import Assembly
from bench.conditions import Assignment
from bench.errors import DataError
from bench.identity import Identity
from bench.plan import Cell
from bench.spans import Span, cover
from bench.suite import Suite
from bench.types import Condition

PAIRS_PER_PART = 4096
NETWORK = "network"


@dataclass(frozen=True, order=True)
class Part:
    """One artifact's place in the store."""

    kind: str
    key: str
    name: str

    @property
    def place(self) -> tuple[str, str, str]:
        return self.kind, self.key, self.name


@dataclass(frozen=True, kw_only=True)
class Needs:
    """All that one cell's record is made from; ``references`` and their spans by :func:`reference_name`."""

    cell: Cell
    assignment: Assignment
    samples: Identity
    spans: tuple[Span, ...]
    pairs: Identity | None = None
    pair_spans: tuple[Span, ...] = ()
    translator: Identity | None = None
    snapshots: Identity | None = None
    num_curve: int = 0
    readouts: Mapping[str, Identity] = field(default_factory=dict)
    snapshot_readouts: Mapping[str, Identity] = field(default_factory=dict)
    references: Mapping[str, Identity] = field(default_factory=dict)
    reference_spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)

    def has_curve(self, span: Span) -> bool:
        """Whether snapshots are kept of a span's first samples."""
        return self.snapshots is not None and span.start < self.num_curve

    def span_parts(self, span: Span) -> list[Part]:
        """The artifacts of one span of samples."""
        parts = [Part(kind, self.samples.key, span.name) for kind in ("samples", "images")]
        parts += [Part("readout", item.key, span.name) for item in self.readouts.values()]
        if self.snapshots is not None and self.has_curve(span):
            parts.append(Part("snapshots", self.snapshots.key, span.name))
            parts += [Part("readout", item.key, span.name) for item in self.snapshot_readouts.values()]
        return parts

    def translator_parts(self) -> list[Part]:
        return [Part("translator", self.translator.key, NETWORK)] if self.translator is not None else []

    def pair_parts(self) -> list[Part]:
        if self.pairs is None:
            return []
        return [Part("pairs", self.pairs.key, span.name) for span in self.pair_spans]

    def reference_parts(self) -> list[Part]:
        return [
            Part("reference", self.references[judge].key, span.name)
            for judge, spans in self.reference_spans.items()
            for span in spans
        ]

    def parts(self) -> Iterator[Part]:
        """Every artifact but the scores, in an order in which they can be made."""
        yield from self.pair_parts()
        yield from self.translator_parts()
        yield from self.reference_parts()
        for span in self.spans:
            yield from self.span_parts(span)


def judges_of(suite: Suite, cell: Cell) -> list[str]:
    """Names of the judges that a cell's metrics use, each once, in order."""
    used = (suite.metrics[name].config.judge for name in cell.metrics)
    return sorted({judge for judge in used if judge is not None})


def reference_name(config: Any) -> str:
    """What a metric compares with, by name: its judge's view of the protocol's reference images, "judge", or
    of another split that its ``split`` names, "judge@split"."""
    split = getattr(config, "split", None)
    return str(config.judge) if split is None else f"{config.judge}@{split}"


def judge_and_split(name: str) -> tuple[str, str | None]:
    """The judge and the split of a :func:`reference_name`; None is the protocol's."""
    judge, at, split = name.partition("@")
    return judge, split if at else None


def reference_names(suite: Suite, cell: Cell) -> list[str]:
    """Names of all that a cell's metrics compare with, each once: every judge's reference, then splits."""
    judges = judges_of(suite, cell)
    used = (suite.metrics[name].config for name in cell.metrics)
    splits = {reference_name(config) for config in used if config.judge is not None} - {*judges}
    return [*judges, *sorted(splits)]


def needs(assembly: Assembly, store: ArtifactStore, cell: Cell) -> Needs:
    """What a cell needs, stored parts taken where they fit.

    Weights are hashed, not loaded; data is read for prompts and its hash. Raises BenchError (WeightError,
    DataError) where that cannot be done.
    """
    suite = assembly.suite
    assignment = assembly.assignment(cell)

    def asked() -> Sequence[Condition]:
        return assignment.conditions

    samples = identity.samples(suite, cell, asked)

    def digest(start: int, stop: int) -> str:
        return identity.conditions_digest(assignment.conditions[start:stop], assignment.seeds[start:stop])

    spans = cover(cell.num_samples, suite.samples.shard, store.names("samples", samples.key), digest)
    pairs = translator = None
    pair_spans: tuple[Span, ...] = ()
    if cell.translator is not None:
        pairs, translator = identity.pairs(suite, cell), identity.translator(suite, cell, asked)
        pair_spans = pair_spans_of(assembly, store, cell, pairs)
    judges = judges_of(suite, cell)
    curve = suite.curve
    snapshots = identity.snapshots(samples, cell.curve_steps) if curve and cell.curve_steps else None
    references = {name: reference_of(assembly, cell.data, name) for name in reference_names(suite, cell)}
    return Needs(
        cell=cell,
        assignment=assignment,
        samples=samples,
        spans=tuple(spans),
        pairs=pairs,
        pair_spans=pair_spans,
        translator=translator,
        snapshots=snapshots,
        num_curve=min(cell.num_samples, curve.num) if curve else 0,
        readouts={judge: identity.readout(suite, samples, suite.judges[judge]) for judge in judges},
        snapshot_readouts={judge: identity.readout(suite, snapshots, suite.judges[judge]) for judge in judges}
        if snapshots
        else {},
        references=references,
        reference_spans={
            name: reference_spans_of(assembly, store, cell.data, name, item)
            for name, item in references.items()
        },
    )


def pair_spans_of(assembly: Assembly, store: ArtifactStore, cell: Cell, pairs: Identity) -> tuple[Span, ...]:
    """The spans of pairs that a cell's translator is trained on."""
    num = assembly.suite.translators[str(cell.translator)].config.num_pairs
    # Pairs are as good as their key: every span of it holds what its bounds say.
    return tuple(cover(num, PAIRS_PER_PART, store.names("pairs", pairs.key), lambda *_: pairs.key))


def reference_of(assembly: Assembly, data: str, name: str) -> Identity:
    """What a judge sees in real images of ``data``, by their :func:`reference_name`; they are read for their
    hash, once."""
    judge, split = judge_and_split(name)
    key = ("manifest", data, *([] if split is None else [split]))
    sha256 = assembly.once(key, lambda: assembly.images(data, split).manifest_sha256)
    return identity.reference(assembly.suite, sha256, assembly.suite.judges[judge], split)


def reference_spans_of(
    assembly: Assembly, store: ArtifactStore, data: str, name: str, item: Identity
) -> tuple[Span, ...]:
    """The spans of real images to compare with. Raises DataError where there are fewer than two."""
    split = judge_and_split(name)[1]
    num = len(assembly.reference(data, split))
    if num < 2:
        which = "reference images" if split is None else f"images in its split '{split}'"
        raise DataError(f"data '{data}' has {num} {which}; distribution metrics need two or more.")
    names = store.names("reference", item.key)
    return tuple(cover(num, assembly.suite.samples.shard, names, lambda *_: item.key))
