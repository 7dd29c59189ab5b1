"""Suite → plan: the cells to run and the work they take, from configuration alone.

What they need from the artifact store, and what of it is there, says :mod:`bench.survey`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bench.errors import SuiteError
from bench.keys import content_key, slug
from bench.protocols import Protocol
from bench.suite import Named, Suite, Variant
from bench.suite.blocks import as_before
from bench.suite.checks import applies, condition_kind
from bench.types import ConditionKind


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One variant on one data set: what the runner draws, scores and records.

    ``config_hash`` covers all configuration that determines the samples, not names, batch size or folders;
    ``id`` is ``<slug of variant>-<its first 8 hex>``. It is known before any weight or image is, and names
    cells only; artifacts have content keys (:mod:`bench.identity`). ``num_conditions`` distinct conditions
    are taken in turn (for text, as many as the data has prompts, if fewer). ``metrics`` are those that
    apply; ``curve_steps`` are within the sampler's own. ``config`` holds the components as plain data.
    ``work`` counts evaluations of single samples (views for f): ``generator_forwards``,
    ``generator_backwards``, ``auxiliary_forwards``, ``auxiliary_backwards``, and for diffusion models
    ``denoiser_forwards``, ``denoiser_backwards``.
    """

    id: str
    config_hash: str
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
class Plan:
    """All cells in the suite's order."""

    suite: str
    cells: tuple[Cell, ...]


def plan(suite: Suite) -> Plan:
    """The suite's cells, without loading any weight or image.

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
    return Plan(suite=suite.name, cells=cells)


def _cell(suite: Suite, variant: Variant) -> Cell:
    kind = condition_kind(variant, {"conditioners": suite.conditioners})
    num_samples = variant.num_samples or suite.samples.num
    num_conditions = _num_conditions(suite, variant, kind, num_samples)
    parts: dict[str, Named[Any] | None] = {
        "data": suite.data[variant.data],
        "generator": suite.generators[variant.generator],
        "conditioner": suite.conditioners[variant.conditioner],
        "sampler": suite.samplers[variant.sampler],
        "translator": None if variant.translator is None else suite.translators[variant.translator],
    }
    config = {
        **{role: None if part is None else part.raw for role, part in parts.items()},
        "protocol": {
            "resolution": suite.protocol.resolution,
            "codec": "png",  # as samples are stored
            "reference_split": suite.protocol.reference_split,
            **prompt_choice(suite.protocol),
        },
    }
    identity = {
        **config,
        **{role: None if part is None else as_before(part) for role, part in parts.items()},
        "seed": suite.seed,
        "num_samples": num_samples,
        "conditions": {"kind": kind, "num": num_conditions},
        # Kernels round otherwise at another tile: the same samples to the eye, not to the bit.
        "tile": suite.samples.tile,
    }
    config_hash = content_key({"samples": identity})
    sampler = suite.samplers[variant.sampler].config
    curve = suite.curve.steps if suite.curve is not None else ()
    return Cell(
        id=f"{slug(variant.label)}-{config_hash[:8]}",
        config_hash=config_hash,
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
        work=estimate(
            sampler,
            suite.conditioners[variant.conditioner].config,
            num_samples,
            suite.generators[variant.generator].config,
        ),
    )


def prompt_choice(protocol: Protocol) -> dict[str, Any]:
    """What else of a protocol decides on samples, where it is not the default."""
    names = ("quantise", "caption", "caption_seed", "prompts_sha256")
    default = Protocol()
    return {
        name: getattr(protocol, name) for name in names if getattr(protocol, name) != getattr(default, name)
    }


def _num_conditions(suite: Suite, variant: Variant, kind: ConditionKind, num_samples: int) -> int:
    """Distinct conditions of a cell: all classes, or a prompt per sample, or fewer where asked."""
    largest = num_samples
    if kind == "class":
        attributes = suite.data[variant.data].config.attributes
        heads = getattr(suite.conditioners[variant.conditioner].config, "heads", None) or tuple(attributes)
        largest = min(largest, math.prod(len(attributes[head]) for head in heads))
        restricted = getattr(suite.conditioners[variant.conditioner].config, "combinations", ())
        largest = min(largest, len(restricted) or largest)
    return min(largest, suite.samples.conditions or largest)


def estimate(sampler: Any, conditioner: Any, num_samples: int, generator: Any) -> dict[str, int]:
    """Evaluations of G, of f and of a diffusion model's denoiser that drawing ``num_samples`` takes.

    Asks ``sampler.estimate(num_samples, views)`` where there is one; else an energy per starting
    candidate where there are several, a gradient of the energy per step and a last decoding.
    """
    work = _estimate(sampler, max(1, getattr(conditioner, "views", 1) or 1), num_samples)
    # A sampler that counts the denoiser's calls itself does not decode.
    return work if "denoiser_forwards" in work else with_denoiser(work, generator)


def with_denoiser(work: dict[str, int], generator: Any) -> dict[str, int]:
    """``work`` with the denoiser's calls inside of G, for a ``generator`` (a configuration or a loaded one)
    that states its ``denoiser_calls`` per pass."""
    calls = getattr(generator, "denoiser_calls", 0)
    names = {"generator_forwards": "denoiser_forwards", "generator_backwards": "denoiser_backwards"}
    return work | {new: calls * work[old] for old, new in names.items() if calls and work.get(old)}


def _estimate(sampler: Any, views: int, num_samples: int) -> dict[str, int]:
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
