"""200 random corruptions of a finished run: each is found, and the records come out right."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.processes import Place, digest, quick_suite

from bench.artifacts import open_store
from bench.runner import RunSummary, run
from bench.suite import load_suite

CORRUPTIONS = 200
# Not made again while what was made from them is there.
UNNEEDED = ("pairs", "translator")


def once(place: Place) -> RunSummary:
    suite = load_suite(place.root / "suite.yaml")
    return run(suite, place.run_dir, "cpu", store_url=str(place.store_dir))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TR0N_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        place = Place(tmp_path_factory.mktemp("corrupt"), quick_suite())
        assert once(place).num_ok == 2
        yield place


def objects(place: Place) -> list[Path]:
    return sorted(path for path in place.store_dir.glob("[!.]*/*/*") if path.parts[-3] != "set-aside")


def set_aside(place: Place) -> Counter[str]:
    return Counter(map(digest, (place.store_dir / "set-aside").glob("*")))


def corrupt(rng: random.Random, path: Path, other: Path) -> tuple[str, set[Path]]:
    """Does one of four things to an object; what it was, and the objects that are bad now."""
    content = path.read_bytes()
    kind = rng.choice(("truncate", "flip", "swap", "delete"))
    if kind == "truncate":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "flip":
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    elif kind == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return kind, {path, other}
    else:
        path.unlink()
    return kind, {path}


def test_every_corruption_of_an_artifact_is_found_and_mended(place: Place):
    rng, done, rounds = random.Random(2), Counter[str](), 0
    right, all_kinds = place.results(), {path.parts[-3] for path in objects(place)}
    hit: set[str] = set()
    while done.total() < CORRUPTIONS:
        rounds += 1
        left = objects(place)
        rng.shuffle(left)
        deleted, bad = set[Path](), dict[Path, str]()
        for _ in range(min(10, CORRUPTIONS - done.total())):
            path, other = left.pop(), left.pop()
            kind, touched = corrupt(rng, path, other)
            done[kind] += 1
            hit |= {path.parts[-3] for path in touched}
            if kind == "delete":
                deleted |= touched
            else:
                bad |= {path: digest(path) for path in touched}
        before, journaled = set_aside(place), len(place.events("corrupt"))
        summary = once(place)
        assert (summary.num_ok, summary.num_failed) == (2, 0)
        assert place.results() == right
        # What was bad lies in the set-aside folder as it was found, and nothing else does.
        assert set_aside(place) - before == Counter(bad.values())
        found = {event["task"] for event in place.events("corrupt")[journaled:]}
        assert found == {name(path) for path in bad if path.parts[-3] != "score"}
        assert place.sound()
        for path in bad.keys() | deleted:
            assert path.is_file() or path.parts[-3] in UNNEEDED
        if {path.parts[-3] for path in objects(place)} < all_kinds:
            make_unneeded_again(place)
    print(f"{dict(done)} in {rounds} runs")
    assert min(done[kind] for kind in ("truncate", "flip", "swap", "delete")) >= CORRUPTIONS // 10
    assert hit == all_kinds


def name(path: Path) -> str:
    return "/".join(path.parts[-3:])


def make_unneeded_again(place: Place) -> None:
    """Has a cell drawn and its translator trained anew, as there would be ever fewer objects to corrupt."""
    right = place.results()
    (cell,) = [record for record in right.values() if record["cell"]["sampler"] == "tr0n"]
    store = open_store(str(place.store_dir))
    store.remove("translator", cell["artifacts"]["translator"], "network")
    for span in cell["artifacts"]["samples"]["spans"]:
        store.remove("samples", cell["artifacts"]["samples"]["key"], span)
    once(place)
    assert place.results() == right
    assert all(list(place.store_dir.glob(f"{kind}/*/*")) for kind in UNNEEDED)


@pytest.mark.parametrize(
    ("victim", "damage"),
    [
        ("images/000003.png", "delete"),
        ("images/000003.png", "truncate"),
        ("latents.safetensors", "delete"),
        ("latents.safetensors", "truncate"),
        ("samples.parquet", "delete"),
        ("export.json", "truncate"),
        ("record.json", "truncate"),
        ("record.json", "delete"),
    ],
)
def test_a_damaged_file_of_the_run_folder_is_written_again(place: Place, victim: str, damage: str):
    (cell, *_) = sorted(place.run_dir.glob("cells/*"))
    files = {path: digest(path) for path in cell.rglob("*") if path.is_file()}
    right, bad = place.results(), cell / victim
    if damage == "delete":
        bad.unlink()
    else:
        bad.write_bytes(bad.read_bytes()[:-9])
    summary = once(place)
    assert set(summary.made) <= {"records"}, "a file needs no model work"
    assert place.results() == right
    again = {path: digest(path) for path in cell.rglob("*") if path.is_file()}
    assert again.keys() == files.keys()
    changed = {path.name for path in files if again[path] != files[path]}
    assert changed <= {"record.json"}, "but for the time in it"


def test_a_line_of_the_journal_that_was_cut_short_hides_no_other(place: Place):
    journal = place.run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    once(place)
    lines = journal.read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines[len(whole.splitlines()) :]]
    assert events == ["attempt", "finished"]
