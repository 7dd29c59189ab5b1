"""The typed suite: what the loader gives and the rooms read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field

from bench.components import TABLES
from bench.protocols import Protocol
from bench.protocols.ledger import Reproduces
from bench.suite.blocks import Named, field_names
from bench.suite.yaml import dump_yaml, escape_variables
from bench.types import ConditionKind

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Header:
    """Who the suite is. ``seed`` starts every random stream of the run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    version: Positive = 1
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How many samples per cell, in batches of what size, for how many distinct conditions.

    ``tile`` is the fixed number of samples that networks run on at once (the last tile is padded): kernels
    choose other blockings for other shapes, so it belongs to the numbers; the batch size does not.

    ``conditions`` null means every class, or as many prompts as samples. ``condition`` demands one kind
    of condition of every variant. The batch size changes speed and memory, never a sample.

    ``shard`` samples are stored as one artifact: what a crash can lose at most, and what workers share out.
    A cell in which more than ``max_failed_share`` of the samples fail (energy not finite) fails as a whole.
    """

    num: Positive = 500
    batch_size: Positive = 64
    tile: Positive = 32
    shard: Positive = 256
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    conditions: Positive | None = None
    condition: ConditionKind | None = None


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """Quality versus steps: metrics at these refinement steps, on the first ``num`` samples of a cell.

    Steps beyond a sampler's own are left out.
    """

    steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    num: Positive = 200


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One combination of components, by their names in the suite.

    ``label`` is ``generator/conditioner/sampler`` (and ``/translator`` where the suite uses more than one),
    or the variant's own ``name``. ``translator`` is None for samplers that use none.
    """

    label: str
    data: str
    generator: str
    conditioner: str
    sampler: str
    translator: str | None = None
    name: str | None = None
    num_samples: int | None = None
    condition: ConditionKind | None = None
    reproduces: tuple[Reproduces, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A checked suite. ``source`` is the file it came from."""

    name: str
    version: int
    description: str
    seed: int
    data: Mapping[str, Named[Any]]
    generators: Mapping[str, Named[Any]]
    conditioners: Mapping[str, Named[Any]]
    translators: Mapping[str, Named[Any]]
    samplers: Mapping[str, Named[Any]]
    judges: Mapping[str, Named[Any]]
    metrics: Mapping[str, Named[Any]]
    protocol: Protocol
    samples: SampleSettings
    curve: CurveSettings | None
    variants: tuple[Variant, ...]
    source: str = field(default="", compare=False)

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out and every variant listed.

        Written as YAML or JSON and loaded again it gives an equal suite.
        """
        plain: dict[str, Any] = {key: getattr(self, key) for key in field_names(Header)}
        for table in TABLES:
            plain[table] = {name: copy.deepcopy(item.raw) for name, item in getattr(self, table).items()}
        plain["protocol"] = {k: v for k, v in asdict(self.protocol).items() if v is not None}
        plain["samples"] = asdict(self.samples)
        if self.curve is not None:
            plain["curve"] = {"steps": list(self.curve.steps), "num": self.curve.num}
        listed = []
        for variant in self.variants:
            entry = asdict(variant)
            del entry["label"]
            entry["reproduces"] = [
                {key: value for key, value in item.items() if value is not None}
                for item in entry["reproduces"]
            ]
            listed.append({key: value for key, value in entry.items() if value not in (None, [])})
        plain["variants"] = {"include": listed}
        return escape_variables(plain)

    def to_yaml(self) -> str:
        """:meth:`resolved` as YAML text."""
        return dump_yaml(self.resolved())
