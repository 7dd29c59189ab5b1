"""Combinations that cannot work, refused before any weight loads.

Besides the members of :data:`bench.components.MEMBERS`, a configuration may offer hints, each optional:
a source ``has_captions``; a conditioner ``pairing``, the component inside it that makes synthetic pairs; a
class conditioner ``heads``, the attributes that make its conditions (None: all of the data's); a conditioner
or judge ``check_data(source)``, a metric ``check_judge(judge)`` and ``check_num(num_samples)``, each giving
what is unfit as text or None; a sampler ``kinds``, the kinds of condition that it takes; a generator
``kinds`` likewise, and ``needs_conditions``, True where it makes no image of nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.errors import nearest
from bench.suite.blocks import Named
from bench.suite.yaml import Document
from bench.types import KINDS, ConditionKind

Tables = Mapping[str, Mapping[str, Named[Any]]]


def check_metrics(document: Document, tables: Tables) -> None:
    """Raises SuiteError where a metric names a judge or data set that the suite does not declare."""
    for name, metric in tables["metrics"].items():
        judge = metric.config.judge
        judges = tables["judges"]
        declared = f"Declared: {', '.join(judges) or 'none'}."
        if judge is not None and judge not in judges:
            raise document.error(
                ("metrics", name, "judge"),
                f"the suite has no judge '{judge}'.{nearest(judge, judges)} {declared}",
            )
        check = getattr(metric.config, "check_judge", None)
        message = check(None if judge is None else judges[judge].config) if check else None
        if message:
            raise document.error(("metrics", name, "judge"), f"{message} {declared}")
        for i, data in enumerate(metric.data or ()):
            if data not in tables["data"]:
                raise document.error(
                    ("metrics", name, "data", i),
                    f"the suite has no data '{data}'.{nearest(data, tables['data'])} "
                    f"Declared: {', '.join(tables['data']) or 'none'}.",
                )


def check_numbers(
    document: Document, tables: Tables, settings: Mapping[str, Any], variants: Iterable[Any]
) -> None:
    """Raises SuiteError where a metric says that a variant, or the curve, has too few samples for it."""
    curve = settings.get("curve")
    for variant in variants:
        num = variant.num_samples or settings["samples"].num
        counts = {"samples.num": num} if variant.num_samples is None else {"num_samples": num}
        if curve is not None:
            counts["curve.num"] = min(num, curve.num)
        for name, metric in tables["metrics"].items():
            check = getattr(metric.config, "check_num", None)
            if check is None or not applies(metric, variant.data, condition_kind(variant, tables)):
                continue
            for key, value in counts.items():
                if message := check(value):
                    raise document.error(
                        ("metrics", name),
                        f"{message} Raise {key}, or set metrics.{name}.allow_small_n: true, which marks it.",
                    )


def condition_kind(variant: Any, tables: Tables) -> ConditionKind:
    """The kind of condition that a variant's conditioner takes."""
    return tables["conditioners"][variant.conditioner].config.kind


def applies(metric: Named[Any], data: str, kind: ConditionKind) -> bool:
    """Whether a metric is computed for cells of this data set and kind of condition."""
    return (metric.data is None or data in metric.data) and kind in metric.config.conditions


def unfit(variant: Any, tables: Tables, settings: Mapping[str, Any]) -> str | None:
    """Why the variant's components cannot meet, with the remedy, or None."""
    source = tables["data"][variant.data].config
    generator = tables["generators"][variant.generator].config
    conditioner = tables["conditioners"][variant.conditioner]
    resolution = settings["protocol"].resolution
    if generator.resolution != resolution:
        fitting = [n for n, item in tables["generators"].items() if item.config.resolution == resolution]
        return (
            f"generator '{variant.generator}' makes {generator.resolution} px images and the protocol takes "
            f"{resolution} px. Set protocol.resolution, or use a generator that fits: {_listed(fitting)}."
        )
    if source.resolution is not None and source.resolution != resolution:
        return (
            f"data '{variant.data}' has {source.resolution} px images and the protocol takes "
            f"{resolution} px. Set data.{variant.data}.resolution or protocol.resolution."
        )
    kind = conditioner.config.kind
    if kind not in KINDS:
        return f"conditioner '{variant.conditioner}' has kind '{kind}'; allowed: {', '.join(KINDS)}."
    return (
        _unfit_condition(variant, conditioner, tables, settings)
        or _unfit_data(variant, conditioner, source)
        or _unfit_sampler(variant, kind, tables)
        or _unfit_pairs(variant, kind, tables)
        or _unfit_generator(variant, kind, generator, tables)
        or _unfit_judges(variant, kind, source, tables)
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none is declared"


def _unfit_condition(
    variant: Any, conditioner: Named[Any], tables: Tables, settings: Mapping[str, Any]
) -> str | None:
    kind = conditioner.config.kind
    wanted = variant.condition or settings["samples"].condition
    if wanted is None or wanted == kind:
        return None
    fitting = [name for name, item in tables["conditioners"].items() if item.config.kind == wanted]
    return (
        f"a {wanted} condition cannot be given to conditioner '{variant.conditioner}' (kind "
        f"'{conditioner.kind}'), which takes {kind} conditions. Remove 'condition', or use a conditioner for "
        f"{wanted}: {_listed(fitting)}."
    )


def _unfit_data(variant: Any, conditioner: Named[Any], source: Any) -> str | None:
    kind = conditioner.config.kind
    where = f"data '{variant.data}' does not fit conditioner '{variant.conditioner}'"
    check = getattr(conditioner.config, "check_data", None)
    message = check(source) if check else None
    if message:
        return f"{where}: {message}"
    if kind == "class" and not source.attributes:
        return f"{where}: it has no attributes to make class conditions of. Use a text conditioner."
    heads = (getattr(conditioner.config, "heads", None) or ()) if kind == "class" else ()
    for head in heads:
        if head not in source.attributes:
            found = f"it has no attribute '{head}'.{nearest(head, source.attributes)}"
            return f"{where}: {found} It has: {', '.join(source.attributes)}."
    if kind == "text" and not getattr(source, "has_captions", True):
        return f"{where}: it has no captions to take text conditions from. Use a class conditioner."
    return None


def fitting_translators(sampler: Any, tables: Tables) -> list[str]:
    """Names of the translators that a sampler can use; code of one's own may be any."""
    kinds = getattr(sampler, "translators", None)
    declared = tables["translators"]
    return [name for name, item in declared.items() if kinds is None or item.kind in (*kinds, "python")]


def _unfit_translator(variant: Any, kind: ConditionKind, tables: Tables) -> str | None:
    if variant.translator is None:
        return None
    translator = tables["translators"][variant.translator]
    fitting = fitting_translators(tables["samplers"][variant.sampler].config, tables)
    if variant.translator not in fitting:
        return (
            f"sampler '{variant.sampler}' cannot use translator '{variant.translator}' (kind "
            f"'{translator.kind}'). Name one that fits: {_listed(fitting)}."
        )
    kinds = getattr(translator.config, "kinds", KINDS)
    if kind not in kinds:
        return (
            f"translator '{variant.translator}' takes {' and '.join(kinds)} conditions, and conditioner "
            f"'{variant.conditioner}' makes {kind} conditions. Exclude the combination."
        )
    return None


def _unfit_sampler(variant: Any, kind: ConditionKind, tables: Tables) -> str | None:
    kinds = getattr(tables["samplers"][variant.sampler].config, "kinds", KINDS)
    if kind in kinds:
        return _unfit_translator(variant, kind, tables)
    return (
        f"sampler '{variant.sampler}' takes {' and '.join(kinds)} conditions, and conditioner "
        f"'{variant.conditioner}' makes {kind} conditions. Exclude the combination."
    )


def _unfit_pairs(variant: Any, kind: ConditionKind, tables: Tables) -> str | None:
    """Why no synthetic pairs can be made for the variant's translator."""
    if variant.translator is None:
        return None
    translator = tables["translators"][variant.translator].config
    conditioner = tables["conditioners"][variant.conditioner].config
    if translator.num_pairs and not getattr(conditioner, "makes_pairs", True):
        return (
            f"conditioner '{variant.conditioner}' makes no synthetic pairs for translator "
            f"'{variant.translator}'. Put it behind a CLIP as a term of kind sum."
        )
    if kind == "class" and getattr(translator, "route", None) == "caption":
        return (
            f"translator '{variant.translator}' takes conditions from captions (route: caption), which "
            f"conditioner '{variant.conditioner}' for {kind} conditions cannot embed. Use route: encode."
        )
    return None


def _unfit_generator(variant: Any, kind: ConditionKind, generator: Any, tables: Tables) -> str | None:
    kinds = getattr(generator, "kinds", KINDS)
    if kind not in kinds:
        return (
            f"generator '{variant.generator}' takes {' and '.join(kinds)} conditions, and conditioner "
            f"'{variant.conditioner}' makes {kind} conditions. Exclude the combination."
        )
    if variant.translator is not None and getattr(generator, "needs_conditions", False):
        samplers = tables["samplers"]
        fitting = [name for name, item in samplers.items() if not item.config.uses_translator]
        return (
            f"generator '{variant.generator}' makes no image without a condition, so no synthetic pairs can "
            f"be drawn for translator '{variant.translator}'. Use a sampler without one: {_listed(fitting)}."
        )
    return None


def _unfit_judges(variant: Any, kind: ConditionKind, source: Any, tables: Tables) -> str | None:
    for name, metric in tables["metrics"].items():
        if metric.config.judge is None or not applies(metric, variant.data, kind):
            continue
        check = getattr(tables["judges"][metric.config.judge].config, "check_data", None)
        message = check(source) if check else None
        if message:
            return (
                f"metric '{name}' would use judge '{metric.config.judge}' on data '{variant.data}': "
                f"{message} Restrict the metric with metrics.{name}.data."
            )
    return None
