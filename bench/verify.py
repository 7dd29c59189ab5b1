"""Whether a run's records stand: artifacts read and checked, keys and scores computed again and compared.

Nothing is drawn and nothing is changed. Where weights or data are absent, what needs them is told as
unchecked: scores are computed from what the judges saw, which needs neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench import identity, payload
from bench.artifacts import ArtifactStore, MissingArtifact
from bench.assembly import Assembly
from bench.certify import certificate_place
from bench.conditions import Assignment
from bench.differences import (
    Fault,
    Verdict,
    described,
    differences,
    plain_faults,
    score_faults,
    shown,
    table_faults,
)
from bench.errors import ArtifactError, BenchError, ResultError
from bench.guards.contamination import in_loop_judges
from bench.needs import NETWORK, Needs, Part, judge_and_split
from bench.plan import Cell, plan
from bench.protocols import stamped
from bench.recorded import (
    Artifacts,
    Known,
    cell_info,
    expected_keys,
    protocol_of,
    read_artifacts,
    read_suite,
    recorded_needs,
    table_assignment,
)
from bench.scoring import RESULT, Drawn, Scored, Scorer, read_drawn, samples_table, with_score_seconds
from bench.store import Record, RunStore
from bench.streams import hash64
from bench.suite import Suite

RELATIVE = 1e-9


def verify(
    run_dir: Path,
    store: ArtifactStore,
    *,
    with_images: bool = True,
    rel: float = RELATIVE,
    python: bool = False,
) -> list[Verdict]:
    """A verdict on the run as a whole and one per cell.

    ``with_images`` False says that images were left out, as in a bundle. Raises ResultError or SuiteError
    where the run itself cannot be read, or names code of its own and ``python`` does not allow it.
    """
    results = RunStore(run_dir)
    suite = read_suite(results, python=python)
    cells = plan(suite).cells
    whole = Verdict("run")
    whole.check("cells", _list_faults([cell.id for cell in cells], results.read_run().get("cells")))
    checker = _Checker(suite, results, store.read_only(), with_images, rel)
    return [whole, *(checker.verdict(cell) for cell in cells)]


def _list_faults(expected: list[str], found: Any) -> Iterator[Fault]:
    for path, wanted, got in differences(expected, found, 0.0):
        yield Fault("run.json", f"cells{path}", wanted, got)


class _Checker:
    def __init__(self, suite: Suite, results: RunStore, store: ArtifactStore, with_images: bool, rel: float):
        self.suite, self.results, self.store = suite, results, store
        self.with_images, self.rel = with_images, rel
        self.assembly = Assembly(suite, torch.device("cpu"))
        self._read: dict[Part, str | None] = {}  # what is wrong with each artifact that was read

    def verdict(self, cell: Cell) -> Verdict:
        told = Verdict(cell.id)
        try:
            self._check(told, cell)
        except Exception as error:
            told.faults.append(Fault("cell", "cannot be checked", "sound", described(error)))
        return told

    def _check(self, told: Verdict, cell: Cell) -> None:
        record = self.results.read_record(cell.id)
        told.check("cell", plain_faults("record.json", "cell", cell_info(cell), record.cell))
        if record.cell.id != cell.id:
            return  # another cell's record: nothing in it is of this one
        if record.status == "failed":
            error = record.error or {}
            told.unchecked.append(f"the cell failed: {error.get('type')}: {error.get('message')}")
            return
        named = read_artifacts(record)
        self._keys(told, cell, named)
        told.check("judges", self._judge_faults(cell, record))
        table = self._table(told, cell)
        assignment = self._assignment(told, cell, table)
        if assignment is None:
            told.unchecked.append("scores: what was asked of each sample is not known")
            return
        own = recorded_needs(self.suite, cell, named, assignment)
        told.check("spans", self._span_faults(own))
        parts = self._parts(own, named)
        if told.check(f"{len(parts)} artifacts", self._artifact_faults(told, parts)):
            self._scores(told, own, record, named, table)
        else:
            told.unchecked.append("scores: an artifact that they come from is not sound")
        if record.certificate is not None:
            self._certificate(told, own, record.certificate)
        self._images(told, own)

    # --- keys and assignment: from the suite, weights and data

    def _keys(self, told: Verdict, cell: Cell, named: Artifacts) -> None:
        def faults(keys: dict[str, Known]) -> Iterator[Fault]:
            for name, (found, compute) in sorted(keys.items()):
                try:
                    key = compute().key
                except BenchError as error:
                    told.unchecked.append(f"key of {name}: {error}")
                    continue
                if key != found:
                    yield Fault("record.json", f"key of {name}", key, str(found))

        before, keys = len(told.unchecked), expected_keys(self.assembly, cell, named)
        found = list(faults(keys))
        told.faults += found
        sound = len(keys) - len(found) - (len(told.unchecked) - before)
        if sound:
            told.stands.append(f"{sound} of {len(keys)} keys")

    def _judge_faults(self, cell: Cell, record: Record) -> Iterator[Fault]:
        """Judges that guided, and of which the record does not say so."""
        for judge, reason in in_loop_judges(self.suite, cell).items():
            if judge not in record.in_loop:
                yield Fault("record.json", f"in_loop.{judge}", reason, "absent")

    def _table(self, told: Verdict, cell: Cell) -> pd.DataFrame | None:
        try:
            return self.results.read_samples(cell.id)
        except ResultError as error:
            told.faults.append(Fault("samples.parquet", "cannot be read", "a table", str(error)))
            return None

    def _assignment(self, told: Verdict, cell: Cell, table: pd.DataFrame | None) -> Assignment | None:
        """What each sample was asked for: from the suite and data, or where data is absent as the table
        has it, its seeds computed from the suite."""
        try:
            return self.assembly.assignment(cell)
        except BenchError as error:
            told.unchecked.append(f"conditions against the data: {error}")
        if table is None:
            return None
        found = table_assignment(table)

        def faults() -> Iterator[Fault]:
            if len(found) != cell.num_samples:
                yield Fault("samples.parquet", "rows", str(cell.num_samples), str(len(found)))
            for k, (condition, replicate) in enumerate(zip(found.conditions, found.replicates)):
                seed = hash64(self.suite.seed, condition.id, replicate)
                if seed != found.seeds[k]:
                    yield Fault("samples.parquet", f"seed of sample {k}", str(seed), str(found.seeds[k]))
                    return

        return found if told.check("seeds", faults()) else None

    def _span_faults(self, own: Needs) -> Iterator[Fault]:
        """Spans are named by what they hold samples of."""
        asked = own.assignment
        for span in own.spans:
            digest = identity.conditions_digest(
                asked.conditions[span.start : span.stop], asked.seeds[span.start : span.stop]
            )
            if digest != span.digest:
                what = f"conditions and seeds of samples {span.start} to {span.stop - 1}"
                yield Fault("record.json", what, digest, span.digest)
        for judge, spans in own.reference_spans.items():
            with contextlib.suppress(BenchError):  # without the data they may be fewer
                num = len(self.assembly.reference(own.cell.data, judge_and_split(judge)[1]))
                if num != spans[-1].stop:
                    yield Fault("record.json", f"images of references.{judge}", str(num), str(spans[-1].stop))
            for span in spans:
                if span.digest != own.references[judge].key:
                    what = f"references.{judge}, span {span.name}"
                    yield Fault("record.json", what, own.references[judge].key, span.digest)

    # --- artifacts

    def _problem(self, part: Part) -> str | None:
        """What is wrong with an artifact: "missing", or why it is corrupt."""
        if part not in self._read:
            self._read[part] = None
            try:
                payload.unpack(self.store.read(*part.place))
            except MissingArtifact:
                self._read[part] = "missing"
            except ArtifactError as error:
                self._read[part] = str(error)
        return self._read[part]

    def _parts(self, own: Needs, named: Artifacts) -> list[Part]:
        """Every artifact that a record names."""
        parts = [*own.reference_parts(), *(part for span in own.spans for part in own.span_parts(span))]
        parts += [Part("score", key, RESULT) for key in named.scores.values()]
        if named.translator is not None:
            parts.append(Part("translator", named.translator, NETWORK))
        return parts

    def _artifact_faults(self, told: Verdict, parts: list[Part]) -> Iterator[Fault]:
        """Artifacts that are missing or corrupt; those that no score needs may have been left out."""
        spare = {"snapshots", "translator"} | (set() if self.with_images else {"images"})
        left_out = set()
        for part in parts:
            problem = self._problem(part)
            if problem == "missing" and part.kind in spare:
                left_out.add(part.kind)
            elif problem is not None:
                yield Fault("/".join(part.place), "artifact", "sound", problem)
        if left_out:
            told.unchecked.append(f"not in the store, and in no score: {', '.join(sorted(left_out))}")

    def _certificate(self, told: Verdict, own: Needs, found: Mapping[str, Any]) -> None:
        place = certificate_place(own)
        problem = self._problem(Part(*place))
        if problem == "missing":
            told.unchecked.append("certificate: not in the store")
        elif problem is not None:
            told.faults.append(Fault("/".join(place), "artifact", "sound", problem))
        else:
            stored = payload.unpack(self.store.read(*place))[1]
            if stored.get("created_utc") == found.get("created_utc"):
                told.check("certificate", plain_faults("record.json", "certificate", stored, dict(found)))
            else:
                told.unchecked.append("certificate: the store holds one made at another time")

    # --- numbers

    def _scores(
        self, told: Verdict, own: Needs, record: Record, named: Artifacts, table: pd.DataFrame | None
    ) -> None:
        drawn = with_score_seconds(self.store, own, read_drawn(self.store, own))
        scored = Scorer(self.suite, self.store, reuse=False).score(own, drawn, record.in_loop)
        told.check("timing", self._timing_faults(drawn, record))
        if record.protocol:
            told.check("protocol", self._protocol_faults(own, record))
        else:
            told.unchecked.append("protocol: the record is of a version that did not write it")
        told.check(
            f"{len(scored.scores)} scores",
            score_faults(
                "record.json", "score", stamped(scored.scores, record.protocol), record.scores, self.rel
            ),
        )
        if scored.curve or record.curve:
            points = stamped(scored.curve, record.protocol)
            curve = score_faults("record.json", "curve", points, record.curve, self.rel)
            told.check(f"{len(scored.curve)} points of curves", curve)
        keys = plain_faults("record.json", "key of scores", scored.keys, dict(named.scores))
        if told.check("keys of scores", keys):
            told.check("stored scores", self._stored_score_faults(own, drawn, scored, record.in_loop))
        if table is not None:
            expected = samples_table(own, drawn).assign(**scored.columns)
            told.check("table", table_faults("samples.parquet", expected, table, self.rel))
        if self.with_images:
            told.check("latents", self._latents_faults(own, drawn))

    def _protocol_faults(self, own: Needs, record: Record) -> Iterator[Fault]:
        """The protocol against the suite; what it says of judges and data against the references' keys."""
        judges = record.protocol.get("judges", {})
        for judge, item in own.references.items():
            key = identity.Identity("reference", judges.get(judge, {})).key
            if key != item.key:
                yield Fault("record.json", f"protocol.judges.{judge}", f"the inputs of {item.key}", key)
        expected = protocol_of(self.suite, own, judges)
        yield from plain_faults("record.json", "protocol", expected, dict(record.protocol))

    def _timing_faults(self, drawn: Drawn, record: Record) -> Iterator[Fault]:
        for name, expected in (
            ("timing", drawn.timing),
            ("failed_samples", int((~drawn.ok).sum())),
            ("hardware", drawn.hardware),
            ("tiles", drawn.tiles),
        ):
            yield from plain_faults("record.json", name, expected, getattr(record, name), self.rel)

    def _stored_score_faults(
        self, own: Needs, drawn: Drawn, scored: Scored, in_loop: Mapping[str, str]
    ) -> Iterator[Fault]:
        stored = Scorer(self.suite, self.store).score(own, drawn, in_loop)
        yield from score_faults("score artifact", "score", scored.scores, stored.scores, self.rel)
        yield from score_faults("score artifact", "curve", scored.curve, stored.curve, self.rel)

    # --- files

    def _latents_faults(self, own: Needs, drawn: Drawn) -> Iterator[Fault]:
        try:
            found = self.results.read_latents(own.cell.id)
        except Exception as error:  # missing, or whatever safetensors says of a broken file
            yield Fault("latents.safetensors", "cannot be read", "latents", shown(str(error)))
            return
        if found.shape != drawn.latents.shape or not np.array_equal(found, drawn.latents):
            yield Fault("latents.safetensors", "latents", "those of the samples", "others")

    def _images(self, told: Verdict, own: Needs) -> None:
        parts = [Part("images", own.samples.key, span.name) for span in own.spans]
        if all(self._problem(part) is None for part in parts):
            told.check("images", self._image_faults(own, parts))
        elif self.with_images:
            told.unchecked.append("image files: an artifact that they were written from is not sound")

    def _image_faults(self, own: Needs, parts: list[Part]) -> Iterator[Fault]:
        k = 0
        for part in parts:
            for content in payload.png_files(payload.unpack(self.store.read(*part.place))[0]):
                path = self.results.image_path(own.cell.id, k)
                if not path.is_file():
                    yield Fault(f"images/{path.name}", "file", "there", "missing")
                elif path.read_bytes() != content:
                    yield Fault(f"images/{path.name}", "file", "the stored image", "another")
                k += 1
        if self.results.num_images(own.cell.id) > k:
            yield Fault("images", "files", str(k), str(self.results.num_images(own.cell.id)))
