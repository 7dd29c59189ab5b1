"""Spans [start, stop) of samples: which are there, and which are still to be made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_NAME = re.compile(r"([0-9]{8,})-([0-9]{8,})-([0-9a-f]{16})")


@dataclass(frozen=True, order=True)
class Span:
    """Samples ``start`` … ``stop`` - 1 of a cell or reference; ``digest`` names what they are samples of."""

    start: int
    stop: int
    digest: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a span needs 0 <= start < stop, got {self.start} and {self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        """Its name in the artifact store."""
        return f"{self.start:08d}-{self.stop:08d}-{self.digest}"

    @classmethod
    def parse(cls, name: str) -> Span | None:
        """The span of a store's name, or None where it is not one."""
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) >= int(match[2]):
            return None
        return cls(int(match[1]), int(match[2]), match[3])


def cover(num: int, size: int, stored: Iterable[str], digest: Callable[[int, int], str]) -> list[Span]:
    """Spans that together hold samples 0 … num-1, in order: stored ones where they fit, else new ones.

    New spans end at multiples of ``size``. ``digest(start, stop)`` says what samples the span must hold; a
    stored span of another content is passed over. Of several that fit the longest is taken, so that raising
    ``num`` keeps what is there.
    """
    found: dict[int, list[Span]] = {}
    for span in filter(None, map(Span.parse, stored)):
        if span.stop <= num:
            found.setdefault(span.start, []).append(span)
    starts = sorted(found)
    spans: list[Span] = []
    start = 0
    while start < num:
        fitting = (
            span
            for span in sorted(found.get(start, ()), key=len, reverse=True)
            if span.digest == digest(span.start, span.stop)
        )
        stored_span = next(fitting, None)
        if stored_span is not None:
            span = stored_span
        else:
            stop = min(num, (start // size + 1) * size)
            # A stored span that begins before the grid's next line must not be cut across.
            stop = min([stop, *(s for s in starts if start < s < stop)])
            span = Span(start, stop, digest(start, stop))
        spans.append(span)
        start = span.stop
    return spans
