"""Locks on artifacts: held by one, freed by death, taken over when held too long."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from artifact_processes import line, start

from bench.artifacts import ArtifactStore, folder, locks, open_store

PLACE = ("kind", "key", "name")


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return open_store(str(tmp_path / "store"))


HOLDER = """
with store.lock("kind", "key", "name") as mine:
    print(mine, flush=True)
    sys.stdin.readline()
    if sys.argv[2:]:
        open(sys.argv[2], "a").write(sys.argv[3])
"""


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(store):
    holder = start(HOLDER, store.root)
    assert line(holder) == "True"
    with store.lock(*PLACE, wait=False) as mine:
        assert mine is False
    with store.lock("kind", "key", "other", wait=False) as mine:
        assert mine is True
    holder.kill()
    holder.communicate()
    with store.lock(*PLACE, wait=False) as mine:
        assert mine is True
        with store.lock(*PLACE, wait=False) as again:
            assert again is False
    with store.lock(*PLACE) as mine:
        assert mine is True


def test_a_waiting_process_goes_on_after_the_holder(store, tmp_path):
    log = tmp_path / "log"
    first = start(HOLDER, store.root, log, "a")
    assert line(first) == "True"
    second = start('print("waiting", flush=True)\n' + HOLDER, store.root, log, "b")
    assert line(second) == "waiting"
    assert second.stdin is not None
    second.stdin.write("\n")  # writes its letter as soon as it has the lock
    second.stdin.flush()
    time.sleep(0.2)
    first.communicate("\n")
    second.communicate()
    assert log.read_text() == "ab"


def test_locks_exclude_while_others_remove_lock_files(store, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    script = """
import pathlib
counter = pathlib.Path(sys.argv[2])
for _ in range(40):
    with store.lock("kind", "key", "name"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    done = threading.Event()

    def remove() -> None:
        while not done.wait(0.001):
            locks.remove_free_locks(Path(store.root, ".locks"), older_than_s=-1.0)

    sweeper = threading.Thread(target=remove)
    sweeper.start()
    try:
        processes = [start(script, store.root, counter) for _ in range(3)]
        for process in processes:
            process.communicate()
            assert process.returncode == 0
    finally:
        done.set()
        sweeper.join()
    assert counter.read_text() == "120"


def test_a_lock_file_removed_while_it_was_taken_is_no_lock(store, monkeypatch):
    try_lock, moments = locks._try_lock, ["between opening and locking"]

    def removed_meanwhile(descriptor: int) -> bool:
        if moments:
            moments.pop()
            Path(store.root, ".locks", "kind+key+name.lock").unlink()
        return try_lock(descriptor)

    monkeypatch.setattr(locks, "_try_lock", removed_meanwhile)
    with store.lock(*PLACE) as first, store.lock(*PLACE, wait=False) as second:
        assert first
        assert not second


def test_a_lock_held_for_too_long_is_taken_over(store):
    lock_file = Path(store.root, ".locks", "kind+key+name.lock")
    with store.lock(*PLACE) as first:
        assert first
        hours_ago = time.time() - 7200
        os.utime(lock_file, (hours_ago, hours_ago))
        with store.lock(*PLACE, wait=False, stale_s=9000) as second:
            assert not second
        with store.lock(*PLACE, stale_s=3600) as second:
            assert second
            with store.lock(*PLACE, stale_s=3600, wait=False) as third:
                assert not third
    with store.lock(*PLACE, wait=False) as mine:
        assert mine


def test_sweeping_removes_locks_that_nobody_holds(store):
    for name in ("held", "free", "fresh"):
        with store.lock("kind", "key", name):
            pass
    days_ago = time.time() - 2 * folder.DAY_S
    files = {name: Path(store.root, ".locks", f"kind+key+{name}.lock") for name in ("held", "free", "fresh")}
    with store.lock("kind", "key", "held"):
        for name in ("held", "free"):
            os.utime(files[name], (days_ago, days_ago))
        assert store.sweep() == [str(files["free"])]
    assert [name for name, path in files.items() if path.exists()] == ["held", "fresh"]


def test_an_error_within_the_block_frees_the_lock(store):
    with pytest.raises(KeyError), store.lock(*PLACE):
        raise KeyError
    with store.lock(*PLACE, wait=False) as mine:
        assert mine


def test_a_folder_that_knows_no_locks_holds_nobody_up(store, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with store.lock(*PLACE) as mine:
        assert mine is True


def test_memory_has_no_locks_and_no_leftovers():
    store = open_store("memory://locks")
    with store.lock(*PLACE) as first, store.lock(*PLACE, wait=False) as second:
        assert first is True
        assert second is True
    assert store.sweep() == []


def test_a_process_forked_within_the_block_does_not_keep_the_lock(store):
    forking = """
import os
with store.lock("kind", "key", "name"):
    child = os.fork()
    if child == 0:
        sys.stdin.readline()
        os._exit(0)
with store.lock("kind", "key", "name", wait=False) as mine:
    print(mine, flush=True)
os.waitpid(child, 0)
"""
    process = start(forking, store.root)
    assert line(process) == "True"
    process.communicate("\n")
