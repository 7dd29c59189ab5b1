"""Artifacts when things go wrong: killed writers and what they leave, full, denied and read-only disks."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifact_processes import OPEN, line, start, temporaries

from bench.artifacts import ArtifactStore, CorruptArtifact, folder, open_store
from bench.errors import ArtifactError

PLACE = ("kind", "key", "name")


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return open_store(str(tmp_path / "store"))


# --- interrupted writes

WRITER = """
import random
rng = random.Random(int(sys.argv[2]))
store.write("kind", "0", "payload.bin", b"first")
print("ready", flush=True)
while True:
    size = rng.choice((10, 100_000, 2_000_000))
    store.write("kind", str(rng.randrange(4)), "payload.bin", bytes(size), {"size": size})
"""


def test_a_writer_killed_at_any_moment_leaves_no_torn_object(store):
    rng = random.Random(0)
    for seed in range(20):
        writer = start(WRITER, store.root, seed)
        assert line(writer) == "ready"
        time.sleep(rng.uniform(0, 0.05))
        writer.kill()
        writer.communicate()
        findings = list(store.verify())
        assert findings
        assert [finding.problem for finding in findings] == [None] * len(findings)
        for key in store.keys("kind"):
            size = store.header("kind", key, "payload.bin")["inputs"].get("size")
            assert store.read("kind", key, "payload.bin") == (b"first" if size is None else bytes(size))
    left = temporaries(Path(store.root))
    assert sorted(store.sweep()) == sorted(left)
    assert temporaries(Path(store.root)) == []


def test_sweeping_keeps_what_a_living_process_writes(store):
    store.write(*PLACE, b"payload")
    target = Path(store.root, *PLACE)
    mine = folder.temporary_path(target)
    dead = start("print(1)", store.root)
    dead.communicate()
    gone = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    elsewhere = gone.with_name(gone.name.replace(folder.host_tag(), "00000000"))
    old = elsewhere.with_name(elsewhere.name.replace(f"-{dead.pid}-", "-1-"))
    foreign = target.with_name(".foreign.tmp")
    for path in (mine, gone, elsewhere, old, foreign):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * folder.DAY_S
    for path in (old, foreign):
        os.utime(path, (two_days_ago, two_days_ago))
    assert sorted(store.sweep()) == sorted([str(gone), str(old)])
    assert {path.name for path in target.parent.iterdir()} == {
        target.name, mine.name, elsewhere.name, foreign.name,
    }  # fmt: skip
    assert store.names("kind", "key") == ["name"]


def test_objects_set_aside_in_one_second_do_not_replace_each_other(store, monkeypatch):
    drawn = iter(["0000", "0000", "0000", "0001"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(drawn) if size == 2 else "0a0a0a0a")
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101T000000Z")
    for content in (b"first", b"second"):
        store.backend.write("kind/key/name", [content])
        with pytest.raises(CorruptArtifact):
            store.read(*PLACE)
    kept = sorted(store.backend.files("set-aside"))
    assert [path[-4:] for path in kept] == ["0000", "0001"]
    assert [store.backend.read(path) for path in kept] == [b"first", b"second"]


# --- faults of the disk

FAULT = """
import os, pathlib, resource, signal, subprocess
def expect_fault(action):
    before = store.read("kind", "key", "name")
    try:
        action()
    except ArtifactError as error:
        print(error)
    else:
        sys.exit("no fault")
    assert store.read("kind", "key", "name") == before
    assert not list(pathlib.Path(sys.argv[1]).rglob(".*.tmp"))
large = lambda: store.write("kind", "key", "name", bytes(1_000_000))
"""


def test_a_write_above_the_limit_leaves_the_old_object(store):
    limit = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
expect_fault(large)
store.write("kind", "key", "name", b"new")
"""
    store.write(*PLACE, b"old")
    process = start(FAULT + limit, store.root)
    message = process.communicate()[0]
    assert process.returncode == 0
    assert f"'{store.root}/kind/key/name' cannot be written: File too large. Raise the limit" in message
    assert store.read(*PLACE) == b"new"


def test_a_full_or_read_only_disk_leaves_the_old_object(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"'
    small_disk = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(disk)]
    try:
        subprocess.run([*small_disk, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no private mounts here: {error}")
    faults = """
store.write("kind", "key", "name", b"old")
expect_fault(large)
subprocess.run(["mount", "-o", "remount,ro", "none", sys.argv[1]], check=True)
expect_fault(lambda: store.write("kind", "key", "name", b"new"))
expect_fault(lambda: store.write("kind", "other", "name", b"new"))
expect_fault(lambda: store.remove("kind", "key", "name"))
"""
    command = [*small_disk, sys.executable, "-c", OPEN + FAULT + faults, str(disk)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    full, again, other, removed = done.stdout.splitlines()
    assert f"'{disk}/kind/key/name' cannot be written: No space left on device. Free some space" in full
    assert f"'{disk}/kind/key/name' cannot be written: Read-only file system. Give this user access" in again
    assert f"'{disk}/kind/other/name' cannot be written: Read-only" in other
    assert f"'{disk}/kind/key/name' cannot be removed: Read-only" in removed


def test_a_folder_without_permission_is_named(store):
    store.write(*PLACE, b"old")
    parent = Path(store.root, "kind", "key")
    parent.chmod(0o555)
    command = [sys.executable, "-c", OPEN + FAULT + "expect_fault(large)", store.root]
    if os.access(parent, os.W_OK):  # root, unless it gives its privilege away
        if shutil.which("setpriv") is None:
            pytest.skip("nothing is denied to this user")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"'{store.root}/kind/key/name' cannot be written: Permission denied. Give this user" in done.stdout
    assert store.read(*PLACE) == b"old"


def test_a_file_where_a_folder_belongs_is_named(tmp_path):
    # what holds for every user, root as well, to whom no permission is denied
    store = open_store(str(tmp_path / "store"))
    store.write("good", "a", "n", b"payload")
    (tmp_path / "store" / "kind").write_text("in the way")
    for call in (lambda: store.write("kind", "a", "n", b""), lambda: store.read("kind", "a", "n")):
        with pytest.raises(ArtifactError, match=r"store/kind/a/n' cannot be .*is a file where a folder"):
            call()
    (tmp_path / "store" / "good" / "a" / "folder").mkdir()
    with pytest.raises(ArtifactError, match=r"good/a/folder' cannot be written"):
        store.write("good", "a", "folder", b"")
    assert temporaries(tmp_path) == []
    assert store.read("good", "a", "n") == b"payload"
