"""Which members of an archive may be unpacked: names that stay inside, plain files, sane sizes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.assets import AssetError

MAX_MEMBERS = 2_000_000


@dataclass(frozen=True)
class Member:
    """One entry as its archive describes it; ``open`` gives its content.

    ``kind`` is "file", "folder", or in words what else it is, such as "symbolic link".
    """

    name: str
    kind: str
    size: int
    open: Callable[[], IO[Any] | None]


@dataclass
class Limits:
    """Of an archive's unpacked content: bytes in all, and how many times the archive's own bytes."""

    bytes: int
    ratio: float


class Inspection:
    """Goes through an archive's members in order and refuses what is unsafe with AssetError."""

    def __init__(self, archive: Path, archive_bytes: int, limits: Limits):
        self.archive, self.archive_bytes, self.limits = archive, archive_bytes, limits
        self.num_members = self.num_bytes = 0
        # path in one case and normal form → its spelling, and whether it is a "file", "folder" or "parent"
        self._seen: dict[str, tuple[str, str]] = {}

    def admit(self, member: Member) -> str:
        """The member's path inside the target, parts joined by "/"; "" for the target itself."""
        if member.kind not in ("file", "folder"):
            raise self._refusal(member, f"is a {member.kind}; only files and folders are unpacked")
        if member.size < 0 or (member.kind == "folder" and member.size):
            raise self._refusal(member, f"is a {member.kind} of {member.size} bytes")
        self._count(member)
        parts = self._parts(member)
        if not parts and member.kind == "file":
            raise self._refusal(member, "has no name")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            self._enter(member, path, member.kind if depth == len(parts) else "parent")
        return "/".join(parts)

    def _count(self, member: Member) -> None:
        self.num_members += 1
        self.num_bytes += member.size
        if self.num_members > MAX_MEMBERS:
            raise self._refused(f"holds more than {MAX_MEMBERS} members")
        if self.num_bytes > self.limits.bytes:
            raise self._refused(
                f"unpacks to more than {self.limits.bytes} bytes (at least {self.num_bytes}). "
                "Where that is right, raise max_bytes"
            )
        if self.num_bytes > self.limits.ratio * self.archive_bytes:
            raise self._refused(
                f"unpacks to more than {self.limits.ratio:g} times its {self.archive_bytes} bytes (at least "
                f"{self.num_bytes}), as a decompression bomb does. Where that is right, raise max_ratio"
            )

    def _parts(self, member: Member) -> list[str]:
        name = member.name
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise self._refusal(member, "has a control character in its name")
        if "\\" in name:
            raise self._refusal(member, "has a backslash in its name")
        if name.startswith("/"):
            raise self._refusal(member, "has an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._refusal(member, "has '..' in its path")
        if any(re.match(r"[A-Za-z]:", part) for part in parts):
            raise self._refusal(member, "has a drive letter in its path")
        return parts

    def _enter(self, member: Member, path: str, kind: str) -> None:
        # case and normal form are one on some file systems: there one member would overwrite another
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if key not in self._seen:
            self._seen[key] = (path, kind)
            return
        spelling, before = self._seen[key]
        if spelling != path:
            raise self._refusal(member, f"differs from {spelling!r} only in upper and lower case")
        if kind == "parent":
            if before == "file":
                raise self._refusal(member, f"lies in {path!r}, which is a file")
        elif before != "parent":
            raise self._refusal(member, "is there twice")
        elif kind == "file":
            raise self._refusal(member, "is a file, and other members lie in it")
        else:
            self._seen[key] = (path, kind)  # a folder named after what it holds

    def _refusal(self, member: Member, reason: str) -> AssetError:
        return self._refused(f"has a member {member.name!r} that {reason}")

    def _refused(self, reason: str) -> AssetError:
        return AssetError(f"archive '{self.archive}' {reason}. Nothing was unpacked.")
