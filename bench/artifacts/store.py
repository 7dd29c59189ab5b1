"""The artifact store: write, read verified, list, verify all, lock."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.artifacts.faults import CorruptArtifact, MissingArtifact, reason, told
from bench.artifacts.folder import DAY_S, Folder
from bench.artifacts.form import (
    MAX_HEADER,
    SET_ASIDE,
    Place,
    check_part,
    decode,
    decode_header,
    encode,
    is_part,
)
from bench.artifacts.remote import Remote
from bench.errors import ArtifactError, BenchError

FIRST_LOOK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was written: ``path`` is the object's address, ``bytes`` the payload's length, ``sha256`` the
    checksum of header and payload.
    """

    kind: str
    key: str
    name: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check of one object found; ``problem`` is None where the object is sound."""

    path: str
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


class ArtifactStore:
    """Content-addressed artifacts; made by :func:`bench.artifacts.open_store`.

    Every method raises ArtifactError for a kind, key or name that is not allowed, and for a fault of the
    storage (disk full, permission denied, no connection), naming the path and the remedy.
    """

    def __init__(self, backend: Folder | Remote):
        self.backend = backend

    @property
    def root(self) -> str:
        return self.backend.address("")

    @property
    def is_local(self) -> bool:
        """Whether objects are files of this machine, which are cheap to read and check."""
        return isinstance(self.backend, Folder)

    def read_only(self) -> ArtifactStore:
        """The same store, changed by nothing: a broken object is left where it is; writing, removing,
        locking and sweeping raise ArtifactError."""
        return _ReadOnlyStore(self.backend)

    # --- one artifact

    def write(
        self, kind: str, key: str, name: str, payload: bytes, inputs: Mapping[str, Any] | None = None
    ) -> Entry:
        """Stores a payload whole or not at all. ``inputs`` is plain data that says what it came from.

        Writing a key again is allowed and replaces the object: equal keys mean equal content.
        """
        place = Place(kind, key, name)
        parts = encode(place, payload, inputs or {})
        address = self.backend.address(str(place))
        with told("written", address, self.backend.faults):
            self.backend.write(str(place), parts)
        return Entry(**vars(place), path=address, bytes=len(payload), sha256=parts[-1].decode())

    def read(self, kind: str, key: str, name: str) -> bytes:
        """The payload, verified.

        Raises MissingArtifact, or CorruptArtifact after the bad object was set aside, where it is not
        found again.
        """
        place = Place(kind, key, name)
        try:
            return decode(place, self._get(place, self.backend.read))
        except CorruptArtifact:
            pass
        # A second look decides: the first may have met a fault of the transfer, and another process may
        # have set the object aside and made it anew meanwhile.
        try:
            return decode(place, self._get(place, self.backend.read))
        except CorruptArtifact as error:
            address = self.backend.address(str(place))
            raise CorruptArtifact(f"'{address}' is corrupt: {error}. {self._set_aside(place)}") from None

    def header(self, kind: str, key: str, name: str) -> dict[str, Any]:
        """``schema``, ``kind``, ``key``, ``name``, ``bytes`` and ``inputs``, from the first line alone.

        The payload is not verified and nothing is set aside. Raises MissingArtifact or CorruptArtifact.
        """
        place = Place(kind, key, name)
        data = self._get(place, lambda path: self.backend.head(path, FIRST_LOOK))
        if b"\n" not in data and len(data) == FIRST_LOOK:
            data = self._get(place, lambda path: self.backend.head(path, MAX_HEADER))
        try:
            return decode_header(place, data)
        except CorruptArtifact as error:
            raise CorruptArtifact(
                f"'{self.backend.address(str(place))}' is corrupt: {error}. Remove it, or make it again."
            ) from None

    def exists(self, kind: str, key: str, name: str) -> bool:
        """Whether the object is there; only reading it tells whether it is sound."""
        path = str(Place(kind, key, name))
        with told("looked up", self.backend.address(path), self.backend.faults):
            return self.backend.exists(path)

    def remove(self, kind: str, key: str, name: str) -> None:
        """Removes the object; one that is not there is no error."""
        path = str(Place(kind, key, name))
        with (
            told("removed", self.backend.address(path), self.backend.faults),
            contextlib.suppress(FileNotFoundError),
        ):
            self.backend.remove(path)

    # --- many

    def names(self, kind: str, key: str) -> list[str]:
        """Names stored under a key, sorted; what a store cannot have written is left out."""
        check_part("kind", kind)
        check_part("key", key)
        return sorted(place.name for place in self._places(f"{kind}/{key}"))

    def keys(self, kind: str) -> list[str]:
        """Keys of a kind that hold at least one artifact, sorted."""
        check_part("kind", kind)
        return sorted({place.key for place in self._places(kind)})

    def places(self) -> list[tuple[str, str, str]]:
        """Kind, key and name of every artifact, sorted."""
        return sorted((place.kind, place.key, place.name) for place in self._places(""))

    def verify(self, kind: str | None = None) -> Iterator[Finding]:
        """Reads and checks every object (of a kind); sets nothing aside and goes on after a bad one."""
        if kind is not None:
            check_part("kind", kind)
        return self._verify(kind or "")

    # --- processes side by side

    def lock(
        self, kind: str, key: str, name: str, *, stale_s: float = DAY_S, wait: bool = True
    ) -> contextlib.AbstractContextManager[bool]:
        """By which processes that want to make the same artifact agree on one: yields True to it.

        With ``wait`` False it yields False at once where another holds the lock. In a local folder the
        kernel frees the lock when its process dies; one held for longer than ``stale_s`` (a process that
        hangs) is taken over. Waiting done, look whether the artifact is there by now.

        An object store has no lock: everyone is told True at once. Work may then be done twice, which is
        harmless, as writes are atomic and of equal content.
        """
        return self._lock(str(Place(kind, key, name)), wait, stale_s)

    def sweep(self) -> list[str]:
        """Removes what dead processes left in a local folder, and returns the paths.

        A temporary file counts as dead when its process is not alive on this host, or after a day.
        """
        with told("swept", self.root, self.backend.faults):
            return self.backend.sweep()

    # --- inner

    def _get(self, place: Place, read: Callable[[str], bytes]) -> bytes:
        address = self.backend.address(str(place))
        with told("read", address, self.backend.faults):
            try:
                return read(str(place))
            except FileNotFoundError:
                raise MissingArtifact(f"artifact '{address}' is missing. Make it first.") from None

    def _set_aside(self, place: Place) -> str:
        """Moves an object to the set-aside folder and says, as a sentence, what became of it."""
        try:
            target = self._free_target(place)
            self.backend.move(str(place), target)
        except FileNotFoundError:
            return "Another process has set it aside by now: make it again."
        except self.backend.faults as error:
            return f"It could not be set aside ({reason(error)}): remove it, then make it again."
        return f"It was set aside as '{self.backend.address(target)}': make it again."

    def _free_target(self, place: Place) -> str:
        """Where to set an object aside: four hex characters repeat soon, so one that is taken is not used."""
        while True:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            target = f"{SET_ASIDE}/{place.kind}-{place.key}-{place.name}-{stamp}-{secrets.token_hex(2)}"
            if not self.backend.exists(target):
                return target

    def _places(self, folder: str) -> Iterator[Place]:
        """The artifacts below a folder, by their paths alone."""
        with told("listed", self.backend.address(folder), self.backend.faults):
            found = list(self.backend.files(folder))
        for path in found:
            parts = path.split("/")
            if len(parts) == 3 and all(map(is_part, parts)) and parts[0] != SET_ASIDE:
                yield Place(*parts)

    def _verify(self, folder: str) -> Iterator[Finding]:
        for place in self._places(folder):
            path = self.backend.address(str(place))
            try:
                decode(place, self._get(place, self.backend.read))
            except MissingArtifact:
                continue  # removed since it was listed
            except BenchError as error:
                yield Finding(path=path, problem=str(error))
            else:
                yield Finding(path=path)

    @contextlib.contextmanager
    def _lock(self, path: str, wait: bool, stale_s: float) -> Iterator[bool]:
        with contextlib.ExitStack() as stack:
            with told("locked", self.backend.address(path), self.backend.faults):
                acquired = stack.enter_context(self.backend.lock(path, wait=wait, stale_s=stale_s))
            yield acquired


class _ReadOnlyStore(ArtifactStore):
    def write(
        self, kind: str, key: str, name: str, payload: bytes, inputs: Mapping[str, Any] | None = None
    ) -> Entry:
        raise self._refusal()

    def remove(self, kind: str, key: str, name: str) -> None:
        raise self._refusal()

    def sweep(self) -> list[str]:
        raise self._refusal()

    def lock(
        self, kind: str, key: str, name: str, *, stale_s: float = DAY_S, wait: bool = True
    ) -> contextlib.AbstractContextManager[bool]:
        raise self._refusal()

    def _set_aside(self, place: Place) -> str:
        return "It was left where it is."

    def _refusal(self) -> ArtifactError:
        return ArtifactError(f"'{self.root}' was opened for reading only.")
