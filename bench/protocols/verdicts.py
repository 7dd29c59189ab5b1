"""Whether a run reproduces a published number: protocols are compared first, values after that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench.protocols.base import Protocol
from bench.protocols.ledger import Published, Reproduces, chosen_row
from bench.protocols.shipped import SHIPPED
from bench.types import Score

if TYPE_CHECKING:
    from bench.store import Record

# A published metric's name → ours; what is measured under another id the suite names with ``score``.
SCORES = {
    "FID": "fid",
    "FID-30K": "fid",
    "FID-50K": "fid",
    "FID (acceptance window)": "fid",
    "IS": "inception-score",
    "CLIP score": "clip-cosine",
    "CLIP score (acceptance window)": "clip-score-100",
    "seconds per image": "seconds-per-image",
    "average probability": "target-probability",
}
# A kind of data source → the name under which publications know what it reads.
DATASETS = {"coco": "MS-COCO", "cifar10": "CIFAR-10"}
# An evaluator named by a publication → the resize by which we know it.
EXTRACTORS = {
    "pytorch-fid": "pytorch-fid",
    "clean-fid": "clean",
    "torch-fidelity": "torch-fidelity",
    "T2IBenchmark": "t2ibenchmark",
}
Outcome = Literal["reproduced", "not reproduced", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A published number beside the measured one. ``differing`` maps a protocol's field to (published,
    measured); ``unstated`` lists what the publication leaves open, so that no one can compare it."""

    cell: str
    variant: str
    published: Published
    tolerance: float
    outcome: Outcome
    measured: float | None = None
    n: int | None = None
    differing: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    reason: str = ""

    @property
    def unstated(self) -> list[str]:
        return self.published.unstated

    @property
    def verdict(self) -> str:
        """The outcome in words, with which field or by how much."""
        if self.outcome == "not comparable":
            listed = "; ".join(f"{name}: {a} published, {b} here" for name, (a, b) in self.differing.items())
            return f"not comparable ({listed or self.reason})"
        tail = f"; not stated: {', '.join(self.unstated)}" if self.unstated else ""
        return f"{self.outcome} ({self.reason}{tail})"


def reproductions(
    ledger: Sequence[Published], records: Iterable[Record], declared: Mapping[str, Sequence[Reproduces]]
) -> list[Reproduction]:
    """A verdict per declared row; ``declared`` maps a cell's id to what its variant is meant to reproduce."""
    return [
        judged(record, wanted, chosen_row(ledger, wanted))
        for record in records
        for wanted in declared.get(record.cell.id, ())
    ]


def judged(record: Record, wanted: Reproduces, row: Published) -> Reproduction:
    """The verdict on one row."""
    name = wanted.score or SCORES.get(row.metric)
    score = next((item for item in record.scores if item.metric == name), None)

    def outcome(kind: Outcome, reason: str = "", **more: Any) -> Reproduction:
        return Reproduction(
            cell=record.cell.id, variant=record.cell.variant, published=row, tolerance=wanted.tolerance,
            outcome=kind, reason=reason, measured=None if score is None else score.value,
            n=None if score is None else score.n, **more,
        )  # fmt: skip

    if row.low is None or row.high is None:
        return outcome("not comparable", "no source gives the published value")
    if record.status != "ok":
        return outcome("not comparable", f"the cell failed: {(record.error or {}).get('message', '')}"[:200])
    if score is None:
        return outcome("not comparable", f"the run has no score '{name or row.metric}'")
    differing = differences(record, score, row)
    if differing:
        return outcome("not comparable", differing=differing)
    off = max(row.low - score.value, score.value - row.high, 0.0)
    if not math.isfinite(score.value) or off > wanted.tolerance:
        return outcome("not reproduced", f"{off:.4g} off, tolerance {wanted.tolerance:g}")
    return outcome("reproduced", f"within {wanted.tolerance:g}")


def differences(record: Record, score: Score, row: Published) -> dict[str, tuple[Any, Any]]:
    """Fields in which the run differs from what the publication states of its protocol."""
    recorded: Mapping[str, Any] = record.protocol.get("fields", {})
    data = record.cell.config.get("data", {})
    split = recorded.get("reference_split")
    here = {
        "dataset": DATASETS.get(str(data.get("kind")), str(data.get("kind"))),
        "split": data.get("split", split) if split == "val" else split,
        "n_samples": score.n,
        "resolution": recorded.get("eval_size"),
        "extractor": recorded.get("extractor_resize"),
    }
    stated: dict[str, Any] = {
        "dataset": row.dataset,
        "split": row.split,
        "n_samples": row.n_samples,
        "resolution": row.resolution,
        "extractor": EXTRACTORS.get(row.extractor, row.extractor),
    }
    found = {
        name: (value, here[name])
        for name, value in stated.items()
        if value not in (None, "") and value != here[name]
    }
    # Where the publication does not say, the protocol that the suite names stands for it: as shipped, so that
    # a run on fewer samples or with other weights is not taken for a failed reproduction.
    name = row.protocol or record.protocol.get("name", "native")
    if name != "native" and score.judge is not None:
        wanted = Protocol(**{**SHIPPED[name], "name": name}).content
        found |= {
            name: (value, recorded.get(name))
            for name, value in wanted.items()
            if value is not None and value != recorded.get(name)
        }
    return found


def declared_in(run: Mapping[str, Any], records: Iterable[Record]) -> dict[str, list[Reproduces]]:
    """Cell id → what its variant declares in a run's suite (``run.json``)."""
    roles = ("data", "generator", "conditioner", "sampler", "translator")
    listed = run.get("suite", {}).get("variants", {}).get("include", [])
    found: dict[str, list[Reproduces]] = {}
    for record in records:
        cell = record.cell
        for entry in listed:
            same = all(entry.get(role) == getattr(cell, role) for role in roles)
            if same and entry.get("name", cell.variant) == cell.variant and entry.get("reproduces"):
                found[cell.id] = [Reproduces(**item) for item in entry["reproduces"]]
    return found
