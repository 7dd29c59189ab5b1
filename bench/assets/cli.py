"""``tr0n-bench assets``: list, fetch and verify the public files of the lock file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BenchError

assets = typer.Typer(
    help="Public weights and data sets: listed with their hashes, fetched over TLS.", no_args_is_help=True
)

FolderOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the files. [default: assets in the cache folder]", show_default=False),
]


def _folder(folder: Path | None) -> Path:
    if folder is not None:
        return folder
    from bench.assembly import default_cache_dir

    return default_cache_dir() / "assets"


@assets.command("list")
def list_assets(
    folder: FolderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the known assets with size and license, and whether they are in the folder."""
    from bench.assets.lock import load_lock

    place = _folder(folder)
    content = [
        {**asset.model_dump(), "present": (place / asset.file).is_file()} for asset in load_lock().values()
    ]
    if as_json:
        import json

        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from bench.cli_output import print_table, quantity

    rows = [
        [
            entry["name"],
            entry["what"],
            f"{quantity(entry['bytes'])}B" if entry["bytes"] else "-",
            entry["license"],
            "yes" if entry["present"] else "no",
        ]
        for entry in content
    ]
    print_table(f"assets in {place}", ["asset", "what", "size", "license", "present"], rows, right=["size"])


@assets.command("fetch")
def fetch_assets(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Assets.", show_default=False)],
    folder: FolderOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing; TR0N_BENCH_OFFLINE=1 does the same.")
    ] = False,
    allow_unknown: Annotated[
        bool,
        typer.Option("--allow-unknown-hash", help="Take also what cannot be verified; shows its sha256."),
    ] = False,
) -> None:
    """Download assets that are not there, check their hashes, and print their paths."""
    from bench.assets.fetch import fetch
    from bench.assets.lock import find_asset, load_lock
    from bench.cli_output import progress_bars

    lock = load_lock()
    chosen = [find_asset(name, lock) for name in names]  # a wrong name shows before any download
    place = _folder(folder)
    for asset in chosen:
        with progress_bars() as progress:
            path = fetch(
                asset, place, offline=offline or None, allow_unknown=allow_unknown, progress=progress
            )
        typer.echo(str(path))


@assets.command("verify")
def verify_assets(folder: FolderOption = None) -> None:
    """Hash every asset that is in the folder; exit code 1 where one is wrong."""
    from bench.assets.fetch import check
    from bench.assets.lock import load_lock

    place = _folder(folder)
    wrong = []
    for asset in load_lock().values():
        state = check(asset, place)
        detail = f": {state.message}" if state.status in ("wrong", "unverified") else ""
        typer.echo(f"{asset.name}\t{state.status}{detail}")
        if state.status == "wrong":
            wrong.append(asset.name)
    if wrong:
        raise BenchError(
            f"wrong files in '{place}': {', '.join(wrong)}. Fetch them anew: tr0n-bench assets fetch NAME."
        )
