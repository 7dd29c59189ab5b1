"""Exclusive locks on files by ``flock``: the kernel frees them when their process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST_PAUSE_S = 0.5
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool, stale_s: float) -> Iterator[bool]:
    """Holds a lock file for the block; yields False only where ``wait`` is False and another holds it.

    A lock held for longer than ``stale_s`` is taken from its holder, which is not told.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, wait, stale_s)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        # closing alone would leave the lock with a process forked meanwhile
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def remove_free_locks(folder: Path, *, older_than_s: float) -> list[str]:
    """Removes lock files that nobody holds and nobody has taken for some time; returns their paths."""
    removed = []
    for path in sorted(folder.glob("*.lock")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < older_than_s:
                continue
            descriptor = os.open(path, os.O_RDWR)
            try:
                if _try_lock(descriptor) and _unlink_same(descriptor, path):
                    removed.append(str(path))
            finally:
                os.close(descriptor)
    return removed


def _acquire(path: Path, wait: bool, stale_s: float) -> int | None:
    """The descriptor of the locked file, or None where another holds it and ``wait`` is False."""
    pause_s = 0.01
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        keep = False
        try:
            if _try_lock(descriptor):
                keep = _is_same(descriptor, path)  # otherwise removed since it was opened: open it anew
                if keep:
                    os.utime(descriptor)  # since when it is held
                    return descriptor
                continue
            if time.time() - os.fstat(descriptor).st_mtime > stale_s:
                _unlink_same(descriptor, path)
                continue
        finally:
            if not keep:
                os.close(descriptor)
        if not wait:
            return None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # a folder that knows no locks is treated as an object store: equal work may be done twice
        if error.errno not in _UNSUPPORTED:
            raise
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _unlink_same(descriptor: int, path: Path) -> bool:
    """Removes the path if it still leads to the open file; one process at a time, as the path may by
    then lead to the new lock of another.
    """
    guard = os.open(path.with_name(".guard"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(guard, fcntl.LOCK_EX)
        same = _is_same(descriptor, path)
        if same:
            path.unlink(missing_ok=True)
        return same
    finally:
        os.close(guard)
