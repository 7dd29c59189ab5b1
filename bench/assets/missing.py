"""What a user reads where a public file is not on disk: one message with all that is needed to mend it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.assets.lock import Asset, find_asset
from bench.errors import BenchError, WeightError


@dataclass(frozen=True, kw_only=True)
class Published:
    """A public file that a component's field points to, as far as it is known.

    ``what`` names it in words, ``source`` is the address of the file or of the page that leads to it.
    ``size`` is text, as some publishers state it only roughly; "" and None mean that it is not known to us.
    ``asset`` is its name in the lock file, where it has one. ``code`` marks a checkout, of which source files
    alone make a difference.
    """

    what: str
    source: str
    size: str = ""
    sha256: str | None = None
    asset: str | None = None
    code: bool = False

    @classmethod
    def locked(cls, name: str) -> Published:
        """An asset of the lock file. Raises AssetError where it has none of that name."""
        return cls.of(find_asset(name))

    @classmethod
    def of(cls, asset: Asset) -> Published:
        return cls(
            what=asset.what,
            source=asset.url,
            size=f"{asset.bytes} bytes" if asset.bytes else "",
            sha256=asset.sha256,
            asset=asset.name,
        )


def missing_asset(
    published: Published,
    looked: Path | str | Sequence[Path | str],
    *,
    field: str = "weights",
    error: type[BenchError] = WeightError,
) -> BenchError:
    """The error to raise where a public file is at none of the places ``looked`` at, best place first.

    It says what is missing, where it was looked for, where the public gets it, what size and sha256 are
    expected and how to verify them. ``field`` is the suite's key that names the place.
    """
    places = [looked] if isinstance(looked, Path | str) else list(looked)
    place = places[0]
    listed = ", ".join(f"'{other}'" for other in places[1:])
    also = f" (looked also for {listed})" if listed else ""
    name = ""
    if published.asset:
        unknown = "" if published.sha256 else " --allow-unknown-hash"
        name = f" tr0n-bench assets fetch {published.asset}{unknown}, or from"
    return error(
        f"file '{place}' is missing{also}: {published.what}. Get it:{name} {published.source}. "
        f"Expected size: {published.size or 'not known'}; sha256: {published.sha256 or 'not known'}. "
        f"Put it there or correct '{field}' in the suite. Verify: {verify_command(published, place)}."
    )


def verify_command(published: Published, place: Path | str) -> str:
    """A shell line that checks the file's sha256, or prints it where the right one is not known."""
    path = shlex.quote(str(place))
    if published.sha256 is None:
        return f"sha256sum {path}"
    return f"echo {shlex.quote(f'{published.sha256}  {place}')} | sha256sum -c"


def require_file(
    path: Path | str,
    published: Published,
    *,
    field: str = "weights",
    error: type[BenchError] = WeightError,
) -> Path:
    """``path`` where there is a file; otherwise raises :func:`missing_asset`."""
    path = Path(path)
    if not path.is_file():
        raise missing_asset(published, path, field=field, error=error)
    return path
