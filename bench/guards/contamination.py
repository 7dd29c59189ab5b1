"""Whether a judge also guided: then its score says how well it was pleased, not how good the images are.

Two networks are one where their weights are the same file, and next of kin where architecture and training
data are the same: what pleases one by accident pleases the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.identity import weight_hashes
from bench.plan import Cell
from bench.suite import Suite
from bench.suite.nested import Nested

Lineage = tuple[str, str]  # architecture, training data


def lineages(config: Any) -> set[Lineage]:
    """Architecture and training data of every network in a component's configuration, nested ones included.

    From the component's own ``lineage``, a zoo model's card, or the name and tag of a public model; the set
    is empty where nothing is declared.
    """
    found = {getattr(part, "lineage", None) or _declared(part) for part in _parts(config)}
    return {lineage for lineage in found if lineage is not None}


def _parts(config: Any) -> Iterator[Any]:
    """The dataclasses in a configuration, itself included, also those in lists, mappings and in components
    inside it."""
    if isinstance(config, Nested):
        config = config.config
    if isinstance(config, dict):
        config = list(config.values())
    if isinstance(config, list | tuple):
        for value in config:
            yield from _parts(value)
    elif is_dataclass(config) and not isinstance(config, type):
        yield config
        for value in vars(config).values():
            yield from _parts(value)


def _declared(config: Any) -> Lineage | None:
    model, tag = getattr(config, "model", None), getattr(config, "pretrained", None)
    if not isinstance(model, str):
        return None
    if isinstance(tag, str):  # "laion2b_s34b_b79k" names the data first
        return model.removesuffix("-quickgelu"), tag.split("_")[0]
    if getattr(config, "weights", None) is not None:
        return None  # weights of the user's own in a zoo model's network
    from bench.zoo.weights import card

    try:
        known = card(model)
    except BenchError:
        return None
    network = (known.get("recipe") or {}).get("network", "")
    return f"{known['architecture']} {network}".strip(), str(known["data"])


def kinship(guide: Any, judge: Any) -> str | None:
    """Why a judge's configuration is no independent one of a guide's: the same weights, or the same
    architecture and data. None where they differ, or where nothing is known of one."""
    guides, judges = (_hashes(config) for config in (guide, judge))
    shared = guides.keys() & judges.keys()
    if shared:
        return f"the guide's weights ({guides[min(shared)]})"
    kin = lineages(guide) & lineages(judge)
    if kin:
        architecture, data = min(kin)
        return f"the guide's architecture and data ({architecture} on {data})"
    return None


def _hashes(config: Any) -> dict[str, str]:
    """sha256 → name of every weight file, but those that are not at hand.

    ``companions`` are fields whose files lie beside the weights (a tokenizer, class names), which networks of
    different weights may share.
    """
    found: dict[str, str] = {}
    beside: set[str] = set()
    for part in _parts(config):
        paths = (getattr(part, field) for field in getattr(part, "companions", ()))
        beside |= {Path(path).name for path in paths if path}
        with contextlib.suppress(BenchError):
            found |= {sha256: name for name, sha256 in weight_hashes(part).items()}
    return {sha256: name for sha256, name in found.items() if Path(name).name not in beside}


def in_loop_judges(suite: Suite, cell: Cell) -> dict[str, str]:
    """Judge → why it is none, for the judges of a cell's metrics that guided its samples."""
    guide = suite.conditioners[cell.conditioner].config
    names = {suite.metrics[name].config.judge for name in cell.metrics} - {None}
    reasons = {name: kinship(guide, suite.judges[name].config) for name in sorted(names)}
    return {name: reason for name, reason in reasons.items() if reason is not None}
