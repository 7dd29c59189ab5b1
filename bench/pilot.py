"""What a pilot run measured: seconds and bytes per sample, image, pair, judge and cell.

Read from the metadata and headers of stored artifacts, and from the journal of the pilot's run folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.errors import ResultError
from bench.journal import Journal
from bench.needs import NETWORK, Needs, judge_and_split, reference_name
from bench.plan import plan as make_plan
from bench.spans import Span
from bench.store import RunStore
from bench.suite import Suite, suite_from_plain
from bench.survey import Survey

AUTO = "auto"  # the pilot is whatever the store holds
MOST_PARTS = 8  # spans of a cell that are read to measure it


@dataclass(frozen=True, kw_only=True)
class CellRates:
    """What a cell's samples take. Seconds: per tile (``tile_s``), per tile and step of the curve to decode it
    (``snapshot_s``), per image to encode it (``image_s``), per stored object (``object_s``), per span besides
    (``span_s``), per worker once (``setup_s``). Bytes: per sample or snapshot, by kind; a readout's by judge.
    """

    tile: int
    tile_s: float
    image_s: float = 0.0
    snapshot_s: float = 0.0
    object_s: float = 0.0
    span_s: float = 0.0
    setup_s: float = 0.0
    sample_bytes: float = 0.0
    image_bytes: float = 0.0
    snapshot_bytes: float = 0.0
    readout_bytes: Mapping[str, float] = field(default_factory=dict)
    num_samples: int = 0


@dataclass(frozen=True, kw_only=True)
class Rates:
    """All that was measured; by cell, by judge, and by key of pairs, translators and references."""

    cells: Mapping[str, CellRates] = field(default_factory=dict)
    judge_s: Mapping[str, float] = field(default_factory=dict)
    pair_s: Mapping[str, float] = field(default_factory=dict)
    pair_bytes: Mapping[str, float] = field(default_factory=dict)
    training_s: Mapping[str, float] = field(default_factory=dict)
    translator_bytes: Mapping[str, float] = field(default_factory=dict)
    reference_s: Mapping[str, float] = field(default_factory=dict)
    reference_bytes: Mapping[str, float] = field(default_factory=dict)
    checking_s: float = 0.0
    metric_s: float = 0.0  # per row of features
    record_s: float = 0.0  # per sample
    first_s: float = 0.0  # once
    hardware: tuple[str, ...] = ()
    has_journal: bool = False


def tile_runs(span: Span, batch: int, tile: int) -> int:
    """How often networks run on a tile to draw a span: tiles lie on the cell's grid, batches on the span's.

    A tile that two batches share is run twice.
    """
    batch = max(batch, tile)
    starts = range(span.start, span.stop, batch)
    return sum((min(s + batch, span.stop) - 1) // tile - s // tile + 1 for s in starts)


def measure(found: Survey, suite: Suite, store: ArtifactStore, pilot: Path | None = None) -> Rates:
    """Rates of every cell of which samples are stored, whatever their number or seed.

    ``pilot`` is the run folder whose journal is read. Raises ResultError where it has none.
    """
    return _Measurement(found, suite, store, pilot).rates()


class _Measurement:
    def __init__(self, found: Survey, suite: Suite, store: ArtifactStore, pilot: Path | None):
        self.found, self.suite, self.store, self.pilot = found, suite, store, pilot
        self.events = [] if pilot is None else _events(pilot)
        self.task_s = {e["task"]: float(e["seconds"]) for e in self.events if e["event"] == "made"}
        self.judge_seen: dict[str, list[float]] = defaultdict(list)
        self.hardware: dict[str, None] = {}

    def rates(self) -> Rates:
        cells: dict[str, CellRates] = {}
        pair_s: dict[str, float] = {}
        pair_bytes: dict[str, float] = {}
        training_s: dict[str, float] = {}
        translator_bytes: dict[str, float] = {}
        reference_bytes: dict[str, float] = {}
        for cell_id, own in self.found.needs.items():
            measured = self._cell(own)
            if measured is None:
                continue
            cells[cell_id] = measured
            for name, item in own.references.items():
                judge, _ = judge_and_split(name)
                reference_bytes[item.key] = self._bytes_each(
                    "reference", item.key
                ) or measured.readout_bytes.get(judge, 0.0)
            if own.translator is None or own.pairs is None:
                continue
            found = self._read("translator", own.translator.key, NETWORK)
            if found is None:
                del cells[cell_id]  # its samples are there and its translator is not: half a pilot
                continue
            config = self.suite.translators[str(own.cell.translator)].config
            translator_bytes[own.translator.key] = found[2]
            training_s[own.translator.key] = found[1]["setup_s"]["translator_training"]
            pair_s[own.pairs.key] = found[1]["setup_s"]["pairs"] / max(1, config.num_pairs)
            pair_bytes[own.pairs.key] = self._bytes_each("pairs", own.pairs.key)
        for label, seconds in self.task_s.items():
            kind, _, rest = label.partition("/")
            if kind == "translator":
                training_s[rest.partition("/")[0]] = seconds
        return Rates(
            cells=self._with_span_seconds(cells),
            judge_s={judge: median(values) for judge, values in self.judge_seen.items()},
            pair_s=pair_s | self._journal_rates("pairs"),
            pair_bytes=pair_bytes,
            training_s=training_s,
            translator_bytes=translator_bytes,
            reference_s=self._journal_rates("reference"),
            reference_bytes=reference_bytes,
            hardware=tuple(self.hardware),
            has_journal=bool(self.events),
            **self._driver(),
        )

    def _read(self, kind: str, key: str, name: str) -> tuple[dict, dict, int] | None:
        """Arrays, metadata and length of a stored payload, if it is there and sound."""
        try:
            content = self.store.read(kind, key, name)
        except (CorruptArtifact, MissingArtifact):
            return None
        return *payload.unpack(content), len(content)

    def _size(self, kind: str, key: str, name: str) -> int:
        try:
            return int(self.store.header(kind, key, name)["bytes"])
        except (CorruptArtifact, MissingArtifact):
            return 0

    def _bytes_each(self, kind: str, key: str) -> float:
        """Bytes per sample of stored spans."""
        spans = _largest(self.store.names(kind, key))
        return sum(self._size(kind, key, s.name) for s in spans) / max(1, sum(map(len, spans)))

    def _cell(self, own: Needs) -> CellRates | None:
        key, steps = own.samples.key, len(own.cell.curve_steps)
        curved = set(self.store.names("snapshots", own.snapshots.key)) if own.snapshots is not None else set()
        sums: dict[str, float] = defaultdict(float)
        tiles: set[int] = set()
        setup_s = 0.0
        for span in _largest(self.store.names("samples", key)):
            found = self._read("samples", key, span.name)
            if found is None:
                continue
            meta, timing = found[1], found[1]["timing"]
            has_curve = span.name in curved
            tile, batch = timing["batch_size"], max(timing["batch_n"])
            runs, num, snapshots = tile_runs(span, batch, tile), len(span), has_curve * steps
            sampled = sum(timing["phase_s"].values())
            taken = meta.get("seconds", {"draw": sampled})
            decode = timing["phase_s"].get("decode", 0.0) / runs
            tiles.add(tile)
            setup_s = max(setup_s, taken.get("setup", 0.0))
            self.hardware[str(meta["hardware"]["device"])] = None
            sums["tiles"] += runs
            sums["num"] += num
            # Snapshots are decoded outside the timed phases, one by one as the final images are.
            sums["draw"] += max(sampled, taken["draw"] - snapshots * runs * decode)
            sums["decode"] += decode * runs
            sums["images"] += num * (1 + snapshots)
            sums["encode"] += taken.get("encode", 0.0)
            sums["objects"] += 1 + has_curve
            sums["write"] += taken.get("write", 0.0)
            sums["sample bytes"] += found[2]
            sums["image bytes"] += self._size("images", key, span.name)
            if has_curve and own.snapshots is not None:
                sums["snapshots"] += num * snapshots
                sums["snapshot bytes"] += self._size("snapshots", own.snapshots.key, span.name)
            self._readouts(own, span, snapshots, sums)
        if not sums:
            return None
        return CellRates(
            tile=min(tiles),
            tile_s=sums["draw"] / sums["tiles"],
            snapshot_s=sums["decode"] / sums["tiles"],
            image_s=sums["encode"] / sums["images"],
            object_s=sums["write"] / sums["objects"],
            setup_s=setup_s,
            sample_bytes=sums["sample bytes"] / sums["num"],
            image_bytes=sums["image bytes"] / sums["num"],
            snapshot_bytes=sums["snapshot bytes"] / max(1, sums["snapshots"]),
            readout_bytes={
                judge: sums[f"readout bytes {judge}"] / max(1, sums[f"read {judge}"])
                for judge in own.readouts
            },
            num_samples=int(sums["num"]),
        )

    def _readouts(self, own: Needs, span: Span, snapshots: int, sums: dict[str, float]) -> None:
        for judge in own.readouts:
            items = [(own.readouts[judge], len(span))]
            if snapshots and judge in own.snapshot_readouts:
                items.append((own.snapshot_readouts[judge], len(span) * snapshots))
            for item, images in items:
                found = self._read("readout", item.key, span.name)
                if found is not None:
                    self.judge_seen[judge].append(found[1]["seconds"] / images)
                    sums[f"read {judge}"] += images
                    sums[f"readout bytes {judge}"] += found[2]

    # from the journal

    def _with_span_seconds(self, cells: Mapping[str, CellRates]) -> dict[str, CellRates]:
        """Adds what a task takes besides all that the store knows of, half of all tasks taking less."""
        rest: list[float] = []
        for cell_id in cells:
            own = self.found.needs[cell_id]
            for name in self.store.names("samples", own.samples.key):
                # The first missing part names a task, which is that of the samples where all is made.
                taken = self.task_s.get(f"samples/{own.samples.key}/{name}")
                found = None if taken is None else self._read("samples", own.samples.key, name)
                if taken is None or found is None:
                    continue
                known = sum(found[1].get("seconds", {}).values())
                for item in (*own.readouts.values(), *own.snapshot_readouts.values()):
                    if name in self.store.names("readout", item.key):
                        readout = self._read("readout", item.key, name)
                        known += readout[1]["seconds"] if readout is not None else 0.0
                rest.append(max(0.0, taken - known))
        if not rest:
            return dict(cells)
        return {key: CellRates(**{**vars(rates), "span_s": median(rest)}) for key, rates in cells.items()}

    def _journal_rates(self, kind: str) -> dict[str, float]:
        """Seconds per pair or image, by key."""
        seconds: dict[str, float] = defaultdict(float)
        num: dict[str, int] = defaultdict(int)
        for label, taken in self.task_s.items():
            parts = label.split("/")
            span = Span.parse(parts[2])
            if parts[0] == kind and span is not None:
                seconds[parts[1]] += taken
                num[parts[1]] += len(span)
        return {key: seconds[key] / num[key] for key in seconds}

    def _driver(self) -> dict[str, float]:
        """Rates of the driver's own work, from the last attempt that computed metrics."""
        finished = [
            event
            for event in self.events
            if event["event"] == "finished" and "seconds" in event and event["made"].get("metrics")
        ]
        if not finished or self.pilot is None:
            return {}
        results = RunStore(self.pilot)
        plain = results.read_run()["suite"]
        pilot = suite_from_plain(plain, str(self.pilot / "run.json"))
        sound = {record.cell.id: record for record in results.records() if record.status == "ok"}
        cells = [cell for cell in make_plan(pilot).cells if cell.id in sound]
        rows = samples = 0
        for cell in cells:
            made = sound[cell.id].artifacts["references"]
            references = {name: _stop(item["spans"]) for name, item in made.items()}
            curve = min(pilot.curve.num, cell.num_samples) if pilot.curve and cell.curve_steps else 0
            rows += feature_rows(
                cell.num_samples,
                curve,
                len(cell.curve_steps),
                [references[name] for name in metric_references(pilot, cell.metrics)],
            )
            samples += cell.num_samples
        seconds = finished[-1]["seconds"]
        # The first cell pays for what is loaded once, so that half of the cells taking less is the measure.
        recording, metrics = seconds["recording"], seconds["metrics"]
        each, scoring = median(recording), min(median(metrics), median(recording))
        return {
            "checking_s": sum(seconds.get("checking", ())),
            "metric_s": scoring * len(cells) / max(1, rows),
            "record_s": (each - scoring) * len(cells) / max(1, samples),
            "first_s": max(0.0, max(recording) - each),
        }


def _events(pilot: Path) -> list[dict[str, Any]]:
    events = Journal(pilot / "journal.jsonl").read()
    if not events:
        raise ResultError(
            f"--pilot {pilot}: there is no journal.jsonl. Give the folder of a run, or '{AUTO}' to use the "
            "artifact store alone."
        )
    return events


def _largest(names: Iterable[str]) -> list[Span]:
    """The longest few of the spans that are stored."""
    spans = [span for span in map(Span.parse, names) if span is not None]
    return sorted(spans, key=lambda span: (-len(span), span.start))[:MOST_PARTS]


def _stop(names: Sequence[str]) -> int:
    span = Span.parse(names[-1])
    return span.stop if span is not None else 0


def metric_references(suite: Suite, metrics: Iterable[str]) -> list[str]:
    """What each metric that has a judge compares with, by :func:`reference_name`."""
    configs = (suite.metrics[name].config for name in metrics)
    return [reference_name(config) for config in configs if config.judge is not None]


def feature_rows(num: int, curve: int, steps: int, references: Iterable[int]) -> int:
    """Rows that a cell's metrics read: its own and the reference's, at the end and at each point of a curve.

    ``references`` has one entry per metric, the number of its real images.
    """
    return sum(num + reference + (steps * (curve + reference) if curve else 0) for reference in references)
