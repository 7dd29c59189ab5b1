"""What a check asks: how many rounds, from what difference on, and how much quality may be lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from bench.errors import BenchError
from bench.types import Score

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """``min_effect`` is the difference in seconds that matters, as a share: 0.05 is 5 %.

    A cell is measured for ``rounds`` pairs, and for twice as many as long as that settles nothing, up to
    ``max_rounds``. ``alarm`` bounds the chance of a false "slower" or "faster" in the whole check, ``miss``
    that of "same" at a true difference of ``min_effect``. A pair's two runs take ``unit_s`` seconds each at
    most (fewer refinement steps where a tile takes longer). ``noise_rounds`` pairs of base against itself
    give the machine's spread first. Where base and head are processes of their own, both are new ones after
    every ``per_process`` pairs, which then count as one: processes of equal code differ in speed.

    ``clock`` "wall" compares the wall-clock's seconds, "processor" those that the processor worked for the
    side (CPU devices only), in which other load does not count, nor does waiting. "auto" is the wall-clock
    unless base's own runs show other load; the processor's then, with no verdict that the wall-clock denies.

    Quality: ``margins`` maps metrics to the loss that is acceptable, in the metric's own unit. Others may
    lose ``margin_share`` of the baseline's value where lower is better, ``margin`` where higher is.
    """

    rounds: Annotated[int, Field(ge=10)] = 40
    max_rounds: Annotated[int, Field(ge=10)] = 320
    noise_rounds: Annotated[int, Field(ge=5)] = 20
    per_process: Annotated[int, Field(ge=1)] = 4
    min_effect: Share = 0.05
    alarm: Share = 0.01
    miss: Share = 0.025
    unit_s: Annotated[float, Field(gt=0)] = 1.0
    clock: Literal["auto", "wall", "processor"] = "auto"
    margin: Annotated[float, Field(ge=0)] = 0.02
    margin_share: Annotated[float, Field(ge=0)] = 0.05
    margins: Mapping[str, Annotated[float, Field(ge=0)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_rounds < self.rounds:
            raise ValueError(f"max_rounds ({self.max_rounds}) must not be less than rounds ({self.rounds})")

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of rounds at which a verdict is asked for."""
        found = [self.rounds]
        while found[-1] < self.max_rounds:
            found.append(min(2 * found[-1], self.max_rounds))
        return tuple(found)

    def margin_of(self, base: Score) -> float:
        """The loss of a metric that is acceptable, given the baseline's score."""
        if base.metric in self.margins:
            return self.margins[base.metric]
        return self.margin_share * abs(base.value) if base.better == "lower" else self.margin


_ADAPTER = TypeAdapter(CheckSettings)


def read_settings(path: Path | None, margins: Mapping[str, float], **changes: object) -> CheckSettings:
    """The settings of a YAML file (defaults without one) with changes; None changes nothing.

    Raises BenchError naming file and key.
    """
    content: dict[str, object] = {}
    where = "the check's settings"
    if path is not None:
        where = f"'{path}'"
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise BenchError(f"{where} cannot be read: {error}.") from error
        if not isinstance(loaded, dict | None):
            raise BenchError(f"{where} is no mapping of keys.")
        content = dict(loaded or {})
    known = CheckSettings.__dataclass_fields__
    for key in content:
        if key not in known:
            raise BenchError(f"{where}: unknown key '{key}'. Keys: {', '.join(known)}.")
    content |= {key: value for key, value in changes.items() if value is not None}
    given = content.get("margins") or {}
    if not isinstance(given, dict):
        raise BenchError(f"{where}: margins: maps metrics to numbers, found {given!r}.")
    content["margins"] = {**given, **margins}
    try:
        return _ADAPTER.validate_python(content)
    except (ValidationError, ValueError) as error:
        text = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BenchError(f"{where}: {text}.") from error
