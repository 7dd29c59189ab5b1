"""What ``list``, ``plan`` and ``zoo list`` show."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.cli_output import duration, print_table, quantity, size
from bench.components import TABLES, component_class, summary
from bench.cost import Prediction
from bench.errors import BenchError, nearest
from bench.suite.blocks import field_names
from bench.survey import SHARED, Survey


def _default(item: dataclasses.Field) -> str:
    if item.default is not dataclasses.MISSING:
        value = item.default
    elif item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    else:
        return "required"
    return "null" if value is None else str(value)


def listing(table: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Per table, every component's ``kind``, ``target``, ``summary`` and ``fields`` (name → type, default).

    Raises BenchError for an unknown table.
    """
    if table is not None and table not in TABLES:
        raise BenchError(f"unknown table '{table}'.{nearest(table, TABLES)} Tables: {', '.join(TABLES)}.")
    result: dict[str, list[dict[str, Any]]] = {}
    for name in TABLES if table is None else [table]:
        result[name] = []
        for kind, target in TABLES[name].items():
            cls = component_class(name, kind)
            allowed = field_names(cls)
            fields = {
                item.name: {"type": str(item.type), "default": _default(item)}
                for item in dataclasses.fields(cls)
                if item.name in allowed
            }
            result[name].append({"kind": kind, "target": target, "summary": summary(cls), "fields": fields})
    return result


def print_listing(content: dict[str, list[dict[str, Any]]]) -> None:
    """One table per kind of component."""
    for name, entries in content.items():
        rows = [
            [
                entry["kind"],
                entry["summary"],
                ", ".join(f"{key}={item['default']}" for key, item in entry["fields"].items()),
            ]
            for entry in entries
        ]
        print_table(name, ["kind", "what", "fields"], rows)


def print_plan(survey: Survey) -> None:
    """Cells with their work, artifacts with what of them is cached, and the sum."""
    plan = survey.plan
    cells = [
        [
            cell.id,
            cell.data,
            cell.variant,
            f"{cell.num_conditions} {cell.condition_kind}",
            str(cell.num_samples),
            *(quantity(cell.work.get(key, 0)) for key in _WORK),
            ", ".join(cell.metrics),
            survey.of_cell(cell.id),
        ]
        for cell in plan.cells
    ]
    columns = ["cell", "data", "variant", "conditions", "samples", *_WORK.values(), "metrics", "state"]
    print_table(f"{plan.suite}: {len(cells)} cells", columns, cells, right=["samples", *_WORK.values()])
    rows = {id(item): [item.kind, item.name, item.key or "-"] for item in survey.artifacts}
    print_table(
        "artifacts shared by cells",
        ["kind", "name", "key", "cells", "work", "state"],
        [
            [*rows[id(item)], str(len(item.cells)), _work(item.work), item.state]
            for item in survey.artifacts
            if item.kind in SHARED
        ],
        right=["cells"],
    )
    print_table(
        "artifacts of cells",
        ["kind", "name", "key", "state"],
        [[*rows[id(item)], item.state] for item in survey.artifacts if item.kind not in SHARED],
    )
    to_do = survey.work_to_do
    print_table(
        "work in all",
        ["evaluations", "number", "to do"],
        [[key, quantity(value), quantity(to_do.get(key, 0))] for key, value in survey.work.items()],
        right=["number", "to do"],
    )


def print_prediction(prediction: Prediction) -> None:
    """Wall-clock by stage, storage by kind, traffic, and what is not known."""
    whole, remaining = prediction.whole, prediction.remaining
    if prediction.measured:
        columns = ["", "from nothing", "still to do"]
        rows = [
            [stage, duration(whole.wall_s[stage]), duration(remaining.wall_s[stage])]
            for stage in whole.wall_s
        ]
        rows.append(["in all", duration(whole.total_s), duration(remaining.total_s)])
        rows.append(["worker time", duration(whole.work_s), duration(remaining.work_s)])
        device = ", ".join(prediction.hardware)
        print_table(f"wall-clock on {whole.workers} x {device}", columns, rows, right=columns[1:])
        kinds = list(dict.fromkeys([*whole.stored, *remaining.stored]))
        sizes = [
            [kind, size(whole.stored.get(kind, 0)), size(remaining.stored.get(kind, 0))] for kind in kinds
        ]
        sizes.append(["in all", size(sum(whole.stored.values())), size(sum(remaining.stored.values()))])
        sizes.append(["run folder", size(whole.run_folder), size(remaining.run_folder)])
        print_table("storage", columns, sizes, right=columns[1:])
        traffic = [
            ["each worker reads", size(whole.worker_read), size(remaining.worker_read)],
            ["each worker writes", size(whole.worker_written), size(remaining.worker_written)],
            ["the driver reads", size(whole.driver_read), size(remaining.driver_read)],
        ]
        place = "over the network" if prediction.is_remote else "the store is a folder: no network"
        print_table(f"traffic with the store ({place})", columns, traffic, right=columns[1:])
    if prediction.unmeasured:
        rows = [[cell, why] for cell, why in prediction.unmeasured.items()]
        print_table("cells without a pilot, not counted above", ["cell", "why"], rows)
    if prediction.unmeasured or not prediction.has_journal:
        why = "measures them" if prediction.unmeasured else "measures references and the driver's work too"
        print_table(
            f"this {why}; then give --pilot its --out folder", ["command"], [[prediction.pilot_command]]
        )


_WORK = {
    "generator_forwards": "G",
    "generator_backwards": "G back",
    "denoiser_forwards": "denoiser",
    "denoiser_backwards": "denoiser back",
    "auxiliary_forwards": "f",
    "auxiliary_backwards": "f back",
}


def _work(work: dict[str, int]) -> str:
    return ", ".join(f"{quantity(value)} {key.replace('_', ' ')}" for key, value in work.items() if value)


def print_zoo() -> None:
    """Shipped models by name, and recipes that have no shipped weights."""
    from bench.zoo.recipes import RECIPES
    from bench.zoo.weights import card, model_names

    names = model_names()
    rows = []
    for name in names:
        content = card(name)
        rows.append(
            [
                name,
                content["description"],
                f"{content['bytes'] / 2**20:.1f} MiB",
                _figures(content["figures"]),
                content["sha256"][:12],
            ]
        )
    rows += [
        [name, RECIPES[name]["description"], "-", "not shipped", "-"] for name in RECIPES if name not in names
    ]
    print_table("zoo", ["model", "what", "size", "figures", "sha256"], rows, right=["size"])


def _figures(figures: dict[str, Any]) -> str:
    parts = []
    for key, value in figures.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
        elif not isinstance(value, dict | list):
            parts.append(f"{key} {value}")
    return ", ".join(parts)
