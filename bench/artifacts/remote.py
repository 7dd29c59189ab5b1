"""Artifacts in an object store, or whatever else fsspec can reach."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any


class Remote:
    """A store's objects below a root; paths are relative to it. Faults are exceptions of any kind.

    S3, GCS and memory make an object visible only once it is whole. With a protocol that does not, a
    torn object is found on read all the same.
    """

    # no credentials, no connection, a refused request: each library has exceptions of its own
    faults: tuple[type[Exception], ...] = (Exception,)

    def __init__(self, fs: Any, root: str):
        self.root = root.rstrip("/")
        self._fs = fs
        self._pid = os.getpid()

    @property
    def fs(self) -> Any:
        """The file system; made anew in a forked process, where the old one's connections do not work."""
        if self._pid != os.getpid():
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options)
            self._pid = os.getpid()
        return self._fs

    def address(self, path: str) -> str:
        return str(self.fs.unstrip_protocol(self._full(path)))

    def write(self, path: str, parts: Sequence[bytes]) -> None:
        """One put; a large object in parts that become one object at the end."""
        self.fs.pipe_file(self._full(path), b"".join(parts))

    def read(self, path: str) -> bytes:
        return self.fs.cat_file(self._full(path))

    def head(self, path: str, size: int) -> bytes:
        """The first ``size`` bytes, or fewer where the object is shorter."""
        try:
            return self.fs.cat_file(self._full(path), start=0, end=size)
        except FileNotFoundError:
            raise
        except Exception:
            if self.fs.size(self._full(path)) == 0:  # S3 refuses every range of an empty object
                return b""
            raise

    def exists(self, path: str) -> bool:
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self._full(path)))

    def files(self, folder: str = "") -> Iterator[str]:
        """Paths of the objects below a folder, in order."""
        self.fs.invalidate_cache()  # some list from memory what another process has changed since
        root = self.root.lstrip("/") + "/"
        for found in sorted(self.fs.find(self._full(folder))):
            yield str(found).lstrip("/").removeprefix(root)

    def move(self, source: str, target: str) -> None:
        self.fs.cp_file(self._full(source), self._full(target))
        self.fs.rm_file(self._full(source))

    def remove(self, path: str) -> None:
        self.fs.rm_file(self._full(path))

    def lock(self, path: str, *, wait: bool, stale_s: float) -> AbstractContextManager[bool]:
        """No lock: object stores have none."""
        return contextlib.nullcontext(True)

    def sweep(self) -> list[str]:
        """Nothing: there are no temporary objects."""
        return []

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root or "/"
