"""Artifacts in a local folder: temporary name, fsync, rename; locks freed by the kernel."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bench.artifacts.locks import file_lock, remove_free_locks

DAY_S = 86_400.0
# name, host, process id, random: a process id means something on its own host only
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}\.tmp")


class Folder:
    """A store's objects as files; paths are relative to the root. Faults are OSErrors."""

    faults: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, root: str):
        self.root = Path(root)

    def address(self, path: str) -> str:
        return str(self.root / path)

    def write(self, path: str, parts: Sequence[bytes]) -> None:
        """Replaces the file in one step; a fault leaves the old one and no other."""
        target = self.root / path
        # the rename, and the folders made for it, last only once the folders that list them are written
        changed = [target.parent]
        while changed[-1] != self.root and not changed[-1].is_dir():
            changed.append(changed[-1].parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = temporary_path(target)
        try:
            with partial.open("xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        for folder in changed:
            _sync_folder(folder)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def head(self, path: str, size: int) -> bytes:
        """The first ``size`` bytes, or fewer where the file is shorter."""
        with (self.root / path).open("rb") as file:
            return file.read(size)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def files(self, folder: str = "") -> Iterator[str]:
        """Paths of the files below a folder, at most three names deep from the root, in order."""
        depth = len(folder.split("/")) if folder else 0
        try:
            with os.scandir(self.root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir() and depth < 2:
                yield from self.files(path)
            elif entry.is_file():
                yield path

    def move(self, source: str, target: str) -> None:
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.root / source, self.root / target)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def lock(self, path: str, *, wait: bool, stale_s: float) -> AbstractContextManager[bool]:
        name = path.replace("/", "+") + ".lock"
        return file_lock(self.root / ".locks" / name, wait=wait, stale_s=stale_s)

    def sweep(self) -> list[str]:
        """Removes temporary files of dead processes, and locks that nobody has held for a day."""
        removed = []
        for path in self.files():
            file = self.root / path
            with contextlib.suppress(FileNotFoundError):
                if is_dead(file):
                    file.unlink()
                    removed.append(str(file))
        return removed + remove_free_locks(self.root / ".locks", older_than_s=DAY_S)


def host_tag() -> str:
    """8 hex characters that stand for this host."""
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def temporary_path(target: Path) -> Path:
    """A hidden name in the target's folder that no other process or thread chooses."""
    return target.with_name(f".{target.name}.{host_tag()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def is_dead(file: Path) -> bool:
    """Whether a file is a temporary one whose writer is gone. Raises FileNotFoundError."""
    match = _TEMPORARY.fullmatch(file.name)
    if match is None:
        return False
    if time.time() - file.stat().st_mtime > DAY_S:
        return True
    return match[1] == host_tag() and not _is_alive(int(match[2]))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network folders cannot be synced
            raise
    finally:
        os.close(descriptor)
