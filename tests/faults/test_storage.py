"""Full disks and denied folders: one message, nothing half-written, and the same command mends it all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults.disks import LIMITED_BYTES, small_disk
from faults.processes import Place, Server, quick_suite


def check_stopped(place: Place, code: int, *parts: str) -> None:
    """The process ended with one message that says all ``parts``, and left nothing half-written."""
    output = place.output()
    assert code == 1, output
    assert len(output.splitlines()) == 1
    assert output.startswith("error: ")
    assert all(part in output for part in parts), output
    assert place.half_written() == []


def check_mended(place: Place, whole: Place, server: Server) -> None:
    """The same command, the fault gone, ends as if there had been none."""
    before = place.sound()
    assert server.run(place) == 0, place.output()
    assert place.results() == whole.results()
    assert place.sound().items() >= before.items()
    assert place.half_written() == []


@pytest.mark.parametrize("pages", [1, 25])
def test_a_store_on_a_full_disk(pages: int, server: Server, whole: Place, tmp_path: Path):
    with small_disk(tmp_path / "place" / "store", 4096 * pages) as disk:
        place = Place(tmp_path / "place", quick_suite(), disk.limits)
        check_stopped(place, server.run(place), f"'{place.store_dir}/", disk.reason)
        disk.grow()
        place.limits = disk.limits
        check_mended(place, whole, server)


@pytest.mark.parametrize("pages", [1, 12])
def test_a_run_folder_on_a_full_disk(pages: int, server: Server, whole: Place, tmp_path: Path):
    with small_disk(tmp_path / "place" / "run", 4096 * pages) as disk:
        place = Place(tmp_path / "place", quick_suite(), disk.limits)
        code = server.run(place)
        check_stopped(place, code, f"'{place.run_dir if disk.mounted else place.root}/", disk.reason)
        assert place.results().items() <= whole.results().items()
        disk.grow()
        place.limits = disk.limits
        check_mended(place, whole, server)


def test_temporary_files_on_a_full_disk(server: Server, whole: Place, tmp_path: Path):
    with small_disk(tmp_path / "tmp", 4096) as disk:
        place = Place(tmp_path / "place", quick_suite(), disk.limits)
        environment = {"TMPDIR": str(disk.folder)}
        code = server.run(place, environment=environment)
        check_stopped(place, code, "TMPDIR" if disk.mounted else str(place.root), disk.reason)
        assert list(disk.folder.iterdir()) == []
        disk.grow()
        place.limits = disk.limits
        check_mended(place, whole, server)


def test_a_limit_on_the_size_of_files(server: Server, whole: Place, tmp_path: Path):
    place = Place(tmp_path, quick_suite(), {"file_bytes": LIMITED_BYTES})
    check_stopped(place, server.run(place), f"'{place.root}/", "File too large. Raise the limit")
    place.limits = {}
    check_mended(place, whole, server)


@pytest.mark.parametrize("victim", ["store", "run"])
def test_a_folder_without_permission(victim: str, server: Server, whole: Place, tmp_path: Path):
    place = Place(tmp_path, quick_suite(), {"unprivileged": True})
    (tmp_path / victim).mkdir(mode=0o555)
    code = server.run(place)
    check_stopped(place, code, f"'{tmp_path / victim}/", "Permission denied. Give this user access")
    (tmp_path / victim).chmod(0o755)
    check_mended(place, whole, server)


def test_an_artifact_without_permission(server: Server, whole: Place, tmp_path: Path):
    place = Place(tmp_path, quick_suite(), {"unprivileged": True})
    assert server.run(place) == 0, place.output()
    victim = next(place.store_dir.glob("images/*/*"))
    victim.chmod(0o000)
    code = server.run(place)
    victim.chmod(0o644)
    check_stopped(place, code, f"'{victim}' cannot be read: Permission denied. Give this user")
    check_mended(place, whole, server)


def test_a_report_that_cannot_be_written(server: Server, whole: Place):
    place = Place(whole.root, whole.suite)
    (place.run_dir / "report").write_text("in the way")
    code = server.run(place, "--report")
    (place.run_dir / "report").unlink()
    output = place.output()
    assert (code, len(output.splitlines())) == (1, 1)
    assert f"error: '{place.run_dir}/report' cannot be written: File exists. A part of the path" in output
    assert server.run(place, "--report") == 0
    assert (place.run_dir / "report" / "report.md").is_file()


def test_what_a_killed_process_left_half_written_goes(server: Server, whole: Place):
    """Killed within a write, which takes too short a time for a kill at random to meet it."""
    from bench.artifacts.folder import temporary_path
    from bench.store import RunStore, atomic_path

    place = Place(whole.root, whole.suite)
    (cell, *_) = place.run_dir.glob("cells/*")
    victims = [place.run_dir / "run.json", cell / "record.json", cell / "export.json"]
    before = whole.results()
    for victim in victims:
        pid = os.fork()
        if pid == 0:
            with atomic_path(victim) as partial:
                partial.write_bytes(b"half")
                os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        image = RunStore(place.run_dir).image_path(cell.name, 2)
        (cell / "export.json").unlink()
        temporary_path(image).write_bytes(b"half")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert len(place.half_written()) == 4
    assert server.run(place) == 0
    assert place.half_written() == []
    assert place.results() == before
