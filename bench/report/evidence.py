"""What the artifact store still holds of a run: snapshots along the trajectories, and nearest real images.

A report needs none of it. Whatever is not there, or not to be read, is left out and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import payload
from bench.artifacts import ArtifactStore, open_store
from bench.bundle_read import STORE, read_mark
from bench.errors import ArtifactError, BenchError, ResultError
from bench.spans import Span
from bench.store import Record, RunStore

if TYPE_CHECKING:
    from bench.recorded import Artifacts

CHUNK = 512


@dataclass(frozen=True)
class Nearest:
    """Of each sample, the number of the nearest real image and its distance in a judge's features, (N,)."""

    index: np.ndarray
    distance: np.ndarray
    judge: str
    num_reference: int


class RunEvidence:
    """Reads artifacts by the keys that a run's records name. ``notes`` says what could not be read.

    ``store_url`` None means the bundle's own store, or the default one. A suite that names code of its own
    is not built unless ``python`` is True, as that would run it.
    """

    def __init__(self, results: RunStore, store_url: str | None = None, *, python: bool = False):
        self.results, self.python = results, python
        self.notes: list[str] = []
        self._url = store_url

    @cached_property
    def store(self) -> ArtifactStore | None:
        try:
            own = self.results.run_dir / STORE
            inside = read_mark(self.results.run_dir) is not None and own.is_dir()
            url = self._url or (str(own) if inside else _default_url())
            if "://" not in url and not Path(url).is_dir():
                self.note(f"there is no artifact store at '{url}': no trajectories, no nearest real images.")
                return None
            return open_store(url).read_only()
        except BenchError as error:
            self.note(f"the artifact store cannot be read: {error}")
            return None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _artifacts(self, record: Record) -> Artifacts | None:
        if self.store is None or not record.artifacts:
            return None
        from bench.recorded import read_artifacts  # takes torch along, which tables do without

        try:
            return read_artifacts(record)
        except ResultError as error:
            self.note(f"{record.cell.id}: {error}")
            return None

    def _read(self, kind: str, key: str, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if self.store is None:
            raise ArtifactError("there is no artifact store.")
        return payload.unpack(self.store.read(kind, key, name))

    def trajectories(self, record: Record, num: int) -> tuple[list[int], Iterator[np.ndarray]] | None:
        """The steps that were kept, and for each of the first ``num`` samples in turn its image at each step,
        uint8 (3, H, W). None where nothing was kept."""
        named = self._artifacts(record)
        if named is None or named.snapshots is None:
            return None
        spans = [span for span in map(Span.parse, named.samples.spans) if span is not None]
        steps: list[int] | None = None
        found: list[list[np.ndarray]] = []
        try:
            for span in spans:
                if len(found) >= num:
                    break
                try:
                    arrays, _ = self._read("snapshots", named.snapshots, span.name)
                except ArtifactError:
                    if found:  # only the first spans have a curve
                        break
                    raise
                by_step = payload.decode_steps(arrays)
                steps = [int(step) for step in by_step] if steps is None else steps
                stacks = [by_step[str(step)] for step in steps]
                found += [[stack[i] for stack in stacks] for i in range(len(stacks[0]))]
        except (ArtifactError, KeyError, ValueError) as error:
            self.note(f"no trajectory of {record.cell.variant}: {error}")
            return None
        if not steps:
            return None
        return steps, (image for sample in found[:num] for image in sample)

    def nearest(self, record: Record) -> Nearest | None:
        """The nearest real image of each sample, by Euclidean distance of a judge's features (or embeddings).
        None where no judge's readouts are there."""
        named = self._artifacts(record)
        if named is None:
            return None
        for judge in named.readouts:
            if judge not in named.references:
                continue
            try:
                real = self._vectors("reference", named.references[judge].key, named.references[judge].spans)
                drawn = self._vectors("readout", named.readouts[judge], named.samples.spans)
            except (ArtifactError, KeyError, ValueError) as error:
                self.note(f"no nearest real images of {record.cell.variant}: {error}")
                return None
            if real is not None and drawn is not None:
                index, distance = nearest_rows(drawn, real)
                return Nearest(index, distance, judge, len(real))
        return None

    def _vectors(self, kind: str, key: str, spans: tuple[str, ...]) -> np.ndarray | None:
        parts = []
        for span in spans:
            readout = payload.arrays_readout(*self._read(kind, key, span))
            vectors = readout.features if readout.features is not None else readout.image_embedding
            if vectors is None:
                return None
            parts.append(vectors)
        return np.concatenate(parts)

    @cached_property
    def _assembly(self) -> Any:
        import torch

        from bench.assembly import Assembly
        from bench.recorded import read_suite

        return Assembly(read_suite(self.results, python=self.python), torch.device("cpu"))

    def real_images(self, data: str, indices: list[int]) -> tuple[np.ndarray, list[str]] | None:
        """Real images of the reference split, uint8 (N, 3, H, W), and their ids; None where not at hand."""
        try:
            images = self._assembly.images(data)
            return images.images(indices), [str(images.ids[i]) for i in indices]
        except (BenchError, IndexError, OSError) as error:
            self.note(f"the real images of data '{data}' cannot be read: {error}")
            return None


def _default_url() -> str:
    from bench.runner import default_store_url

    return default_store_url()


def nearest_rows(queries_ND: np.ndarray, points_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each query, the row of the nearest point, int64 (N,), and their Euclidean distance, float64 (N,).

    Chosen in float32 over chunks of 512 queries; the distance itself is computed in float64. The first wins
    a tie. Queries that are not finite get row -1 and distance NaN.
    """
    points = np.ascontiguousarray(points_MD, np.float32)
    half_norms = (points.astype(np.float64) ** 2).sum(1) / 2
    index = np.full(len(queries_ND), -1, np.int64)
    distance = np.full(len(queries_ND), np.nan)
    for start in range(0, len(queries_ND), CHUNK):
        part = queries_ND[start : start + CHUNK]
        good = np.flatnonzero(np.isfinite(part).all(1))
        if not len(good):
            continue
        closest = (half_norms[None] - part[good].astype(np.float32) @ points.T).argmin(1)
        gaps = part[good].astype(np.float64) - points_MD[closest].astype(np.float64)
        index[start + good], distance[start + good] = closest, np.sqrt((gaps**2).sum(1))
    return index, distance
