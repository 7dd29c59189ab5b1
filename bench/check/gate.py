"""The check of a suite: head's code against base's, or one variant against another, speed and quality."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.check.quality import Quality, compare_quality, read_cells
from bench.check.settings import CheckSettings
from bench.check.sides import HEAD, Side, at_once, checkout, sharing
from bench.check.speed import Measured, measure
from bench.errors import BenchError, nearest
from bench.store import RunStore

Verdict = Literal["faster", "same", "slower", "quality lost", "inconclusive"]
# What a shell sees. 1 and 2 stay errors and wrong usage.
EXIT_CODES: dict[Verdict, int] = {
    "same": 0,
    "faster": 0,
    "slower": 3,
    "quality lost": 4,
    "inconclusive": 5,
}
Told = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class CellCheck:
    """One cell. ``verdict`` is the worse of speed's and quality's: speed that costs quality is a loss."""

    name: str
    unit: str
    measured: Measured | None
    quality: tuple[Quality, ...]

    @property
    def verdict(self) -> Verdict:
        if any(item.verdict == "lost" for item in self.quality):
            return "quality lost"
        speed = self.measured.speed.verdict if self.measured is not None else "same"
        if speed == "slower":
            return "slower"
        if speed == "inconclusive" or any(item.verdict == "inconclusive" for item in self.quality):
            return "inconclusive"
        return speed


@dataclass(frozen=True, kw_only=True)
class Check:
    """What became of a check; ``notices`` are about the machine and what was compared."""

    suite: str
    base: str
    head: str
    device: str
    cells: tuple[CellCheck, ...]
    notices: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        verdicts = {cell.verdict for cell in self.cells}
        order: tuple[Verdict, ...] = ("quality lost", "slower", "inconclusive", "faster")
        return next((verdict for verdict in order if verdict in verdicts), "same")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def to_plain(self) -> dict[str, Any]:
        """Plain data, with every second that was measured."""
        plain = asdict(self)
        for cell, own in zip(plain["cells"], self.cells):
            cell["verdict"] = own.verdict
        return {**plain, "verdict": self.verdict, "exit_code": self.exit_code}


@dataclass(frozen=True, kw_only=True)
class Base:
    """What head is compared with: its name and code, and its records where there is a run already."""

    name: str
    code: Path
    run: RunStore | None = None
    notices: tuple[str, ...] = ()


@contextlib.contextmanager
def find_base(baseline: str, code: str | None) -> Iterator[Base]:
    """``baseline`` is a run folder, a checkout's folder or a git reference; ``code`` (a folder or reference)
    overrides the revision that a run names. Raises BenchError."""
    path, notices = Path(baseline), []
    run = RunStore(path) if (path / "run.json").is_file() else None
    where = code
    if run is None:
        where = code or baseline
    elif code is None:
        known = run.read_run().get("provenance", {})
        where = known.get("revision")
        if where is None:
            raise BenchError(
                f"'{baseline}' does not say which revision drew it, so its code cannot be timed. "
                "Name it: --base-code REVISION_OR_FOLDER."
            )
        if known.get("dirty"):
            notices.append(f"the baseline's code had uncommitted changes; {where[:12]} is timed without them")
    assert where is not None
    with contextlib.ExitStack() as stack:
        if (Path(where) / "bench").is_dir():
            folder = Path(where).resolve()
        else:
            folder = stack.enter_context(checkout(where))
        name = baseline if code is None else f"{baseline} ({code})"
        yield Base(name=name, code=folder, run=run, notices=tuple(notices))


def check(
    suite_path: Path,
    overrides: Sequence[str],
    base: Base,
    settings: CheckSettings,
    *,
    device: str = "auto",
    variants: Sequence[str] = (),
    speed: bool = True,
    quality: bool = True,
    work: Path | None = None,
    told: Told = lambda task, done, total: None,
) -> Check:
    """Base's code against this one on every cell (or those of ``variants``).

    Artifacts and runs lie in ``work``, those of base and head apart: equal keys do not mean equal code.
    Raises BenchError where a side cannot do it.
    """
    with contextlib.ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tr0n-bench-check-")))
        folder.mkdir(parents=True, exist_ok=True)
        sides = [
            stack.enter_context(Side(name, code)) for name, code in (("base", base.code), ("head", HEAD))
        ]
        loaded = at_once(
            *(
                partial(
                    side.load, suite=str(suite_path.resolve()), overrides=list(overrides), device=device,
                    store=str(folder / side.name / "store"),
                )
                for side in sides
            )
        )  # fmt: skip
        pairs = _pairs(loaded[0]["cells"], loaded[1]["cells"], variants)
        notices = [*base.notices, *_differences(loaded, base)]
        found: dict[tuple[str, ...], tuple[str, Measured | None]] = {}
        for k, (name, (base_cell, head_cell)) in enumerate(pairs.items()):
            measured, unit = None, ""
            if speed:
                measured, unit = _time(
                    sides, (base_cell, head_cell), settings, len(pairs), k, loaded[1], told
                )
                notices += [f"{name[2]}: {text}" for text in measured.notices]
            found[name] = (unit, measured)
        kept: dict[tuple[str, ...], list[Quality]] = {}
        if quality:
            told("quality", 0, 2)
            kept = _quality(sides, base, folder, settings, pairs, told)
        cells = tuple(
            CellCheck(name=name[2], unit=unit, measured=measured, quality=tuple(kept.get(name, ())))
            for name, (unit, measured) in found.items()
        )
    return Check(
        suite=suite_path.name, base=base.name, head="this code", device=str(loaded[1]["hardware"]["device"]),
        cells=cells, notices=tuple(dict.fromkeys(notices)),
    )  # fmt: skip


Cells = dict[tuple[str, str, str], tuple[dict[str, Any], dict[str, Any]]]


def _pairs(base: list[dict[str, Any]], head: list[dict[str, Any]], variants: Sequence[str]) -> Cells:
    """Cells that both sides have, by data, kind and variant."""
    known = {(cell["data"], cell["kind"], cell["variant"]): cell for cell in base}
    names = {cell["variant"] for cell in head}
    for variant in variants:
        if variant not in names:
            raise BenchError(
                f"--variant: no '{variant}' in the suite.{nearest(variant, names)} Variants: "
                f"{', '.join(sorted(names))}."
            )
    found = {}
    for cell in head:
        name = (cell["data"], cell["kind"], cell["variant"])
        if name in known and (not variants or cell["variant"] in variants):
            found[name] = (known[name], cell)
    if not found:
        raise BenchError("base and head have no cell in common to compare.")
    return found


def _differences(loaded: list[dict[str, Any]], base: Base) -> list[str]:
    found = []
    for what in ("torch", "hardware"):
        if loaded[0][what] != loaded[1][what]:
            found.append(f"base and head differ in {what}: {loaded[0][what]} and {loaded[1][what]}")
    if base.run is not None:
        here = loaded[1]["hardware"]["device"]
        there = {str(item.get("device")) for r in base.run.records() for item in r.hardware}
        if there and there != {here}:
            found.append(
                f"the baseline was drawn on {', '.join(sorted(there))}, this is {here}: its stored timings "
                "are not used, its code is timed here"
            )
    return found


def _time(
    sides: list[Side], cells: tuple[dict[str, Any], dict[str, Any]], settings: CheckSettings, num: int,
    seed: int, loaded: dict[str, Any], told: Told,
) -> tuple[Measured, str]:  # fmt: skip
    """The seconds of a cell on both sides, and what a run of it is.

    Two sides go on in new processes now and then. Where one process is both, what it was given is both's.
    """
    two = sides[0] is not sides[1]

    def start() -> None:
        if two:
            at_once(*(side.renew for side in sides))

    def ready(side: int, steps: int | None) -> dict[str, Any]:
        return sides[side].ask("prepare", cell=cells[side]["id"], unit_s=settings.unit_s, max_steps=steps)

    start()
    first = ready(0, None)
    steps = min(first["max_steps"], cells[1]["steps"]) if first["max_steps"] < first["steps"] else None
    own = first["max_steps"], steps or cells[1]["steps"]
    second = ready(1, own[1])

    def renew(order: Sequence[int]) -> None:
        start()
        for side in order:
            # In turn: two that draw at once, each on all processors, wait for each other in busy loops, and
            # were ready after 17 s instead of 1.
            ready(side, own[side])

    def run(side: int) -> tuple[float, float]:
        answer = sides[side].ask("time", cell=cells[side]["id"])
        return answer["wall"], answer["cpu"]

    with sharing(sides) as place:
        measured = measure(
            lambda: run(0),
            lambda: run(1),
            settings,
            comparisons=num,
            seed=seed,
            device="cpu" if loaded["hardware"]["threads"] else "cuda",
            place=place,
            renew=renew if two else None,
            told=lambda done, total: told(cells[1]["variant"], done, total),
        )
    for side in sides:
        side.settle()
    part = f"{second['max_steps']} of {second['steps']} steps" if steps else f"all {second['steps']} steps"
    return measured, f"{second['samples']} samples, {part}"


def _quality(
    sides: list[Side], base: Base, folder: Path, settings: CheckSettings, pairs: Cells, told: Told
) -> dict[tuple[str, ...], list[Quality]]:
    head_run = folder / "head" / "run"
    base_run = base.run
    if base_run is None:
        sides[0].ask("run", out=str(folder / "base" / "run"))
        base_run = RunStore(folder / "base" / "run")
    told("quality", 1, 2)
    sides[1].ask("run", out=str(head_run))
    told("quality", 2, 2)
    old, new = read_cells(base_run), read_cells(RunStore(head_run))
    return {
        name: compare_quality(old[name], new[name], settings) for name in pairs if name in old and name in new
    }


def check_variants(
    suite_path: Path,
    overrides: Sequence[str],
    base_variant: str,
    head_variant: str,
    settings: CheckSettings,
    *,
    device: str = "auto",
    speed: bool = True,
    quality: bool = True,
    work: Path | None = None,
    told: Told = lambda task, done, total: None,
) -> Check:
    """One variant of a suite against another, both with this code, in one process and one store."""
    with contextlib.ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tr0n-bench-check-")))
        folder.mkdir(parents=True, exist_ok=True)
        side = stack.enter_context(Side("head"))
        loaded = side.load(
            suite=str(suite_path.resolve()), overrides=list(overrides), device=device,
            store=str(folder / "store"),
        )  # fmt: skip
        pairs = {}
        for cell in loaded["cells"]:
            if cell["variant"] == head_variant:
                where = (cell["data"], cell["kind"])
                partner = [
                    other
                    for other in loaded["cells"]
                    if other["variant"] == base_variant and (other["data"], other["kind"]) == where
                ]
                if partner:
                    pairs[cell["data"], cell["kind"], head_variant] = (partner[0], cell)
        if not pairs:
            names = sorted({cell["variant"] for cell in loaded["cells"]})
            raise BenchError(
                f"'{base_variant}' and '{head_variant}' have no data set and kind of condition in common. "
                f"Variants: {', '.join(names)}."
            )
        runs: dict[tuple[str, str, str], tuple[Any, Any]] = {}
        if quality:
            side.ask("run", out=str(folder / "run"))
            cells = read_cells(RunStore(folder / "run"))
            runs = {name: (cells[name[0], name[1], base_variant], cells[name]) for name in pairs}
        found, notices = [], list[str]()
        for k, (name, both) in enumerate(pairs.items()):
            measured, unit = None, ""
            if speed:
                measured, unit = _time([side, side], both, settings, len(pairs), k, loaded, told)
                notices += measured.notices
            kept = tuple(compare_quality(*runs[name], settings)) if name in runs else ()
            found.append(CellCheck(name=f"{name[2]} ({name[0]})", unit=unit, measured=measured, quality=kept))
    return Check(
        suite=suite_path.name, base=base_variant, head=head_variant, device=str(loaded["hardware"]["device"]),
        cells=tuple(found), notices=tuple(dict.fromkeys(notices)),
    )  # fmt: skip
