"""Unpacks zip and tar archives: looked through as a whole first, then written aside and renamed.

An archive is read twice. The first reading writes nothing and refuses what is unsafe or damaged; the
second one checks again, so that a file changed in between gains nothing.
"""

from __future__ import annotations

import functools
import gzip
import lzma
import os
import secrets
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bench.assets import AssetError
from bench.assets.members import Inspection, Limits, Member

MAX_BYTES = 200_000_000_000
MAX_RATIO = 1000.0
MAX_TAR_READ = 1 << 24  # tarfile reads a header's whole extension at once, however long it says it is
TAR_BLOCK = 512
MAX_PADDING = 1 << 24

# What the readers raise for a damaged archive; gzip's own error is an OSError, so these come first.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # what zipfile raises for a compression it does not know
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
)


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> Path:
    """Unpacks a .zip, .tar, .tar.gz or .tar.xz into ``folder``, which must be new or empty; returns it.

    ``folder`` appears with all of its content or not at all; a killed process leaves at most a hidden
    folder ".<name>.<process>-<random>.tmp" beside it. Modes, owners and times are not taken over.

    Raises AssetError, and has written nothing, where a member is a link or device, or has a path that is
    absolute, with "..", a drive letter or a backslash, where two members have one path (in upper or lower
    case), where the content is larger than ``max_bytes`` or than ``max_ratio`` times the archive, and
    where the archive is missing, damaged or of another format.
    """
    archive, folder = Path(archive), Path(os.path.abspath(folder))
    limits = Limits(max_bytes, max_ratio)
    partial = folder.parent / f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise AssetError(f"'{folder}' is there already. Remove it or name another folder to unpack into.")
        with archive.open("rb") as file:
            members = _format(archive, file)
            for _ in _admitted(archive, file, members, limits):
                pass
            try:
                partial.mkdir(parents=True)
                for path, member in _admitted(archive, file, members, limits):
                    _write(partial / path, member)
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except _DAMAGE as error:
        raise AssetError(
            f"archive '{archive}' is damaged: {error or type(error).__name__}. Nothing was unpacked. "
            "Fetch it anew."
        ) from error
    except OSError as error:
        raise AssetError(
            f"archive '{archive}' cannot be unpacked into '{folder}': {error}. Nothing was unpacked."
        ) from error
    return folder


Members = Callable[[IO[bytes]], Iterator[Member]]


def _format(archive: Path, file: IO[bytes]) -> Members:
    """By the first bytes: a name may lie, and zipfile and tarfile take files that are both."""
    start = file.read(TAR_BLOCK)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members
    if start.startswith(b"\x1f\x8b"):
        return lambda file: _tar_members(gzip.GzipFile(fileobj=file, mode="rb"))
    if start.startswith(b"\xfd7zXZ\x00"):
        return lambda file: _tar_members(lzma.LZMAFile(file, "rb"))
    if start[257:262] == b"ustar":
        return _tar_members
    raise AssetError(
        f"'{archive}' is neither a zip nor a tar, tar.gz or tar.xz archive. Nothing was unpacked."
    )


def _admitted(
    archive: Path, file: IO[bytes], members: Members, limits: Limits
) -> Iterator[tuple[str, Member]]:
    file.seek(0)
    inspection = Inspection(archive, os.fstat(file.fileno()).st_size, limits)
    for member in members(file):
        yield inspection.admit(member), member


def _write(path: Path, member: Member) -> None:
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # plain files have content
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        if file.tell() != member.size:
            raise EOFError(f"member {member.name!r} has {file.tell()} bytes, expected {member.size}")


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "symbolic link" if stat.S_ISLNK(mode) else "device or other special file"
            elif info.flag_bits & 1:
                kind = "encrypted file"
            else:
                kind = "folder" if info.is_dir() or stat.S_ISDIR(mode) else "file"
            # the name before zipfile cuts it at a zero byte
            yield Member(info.orig_filename, kind, info.file_size, functools.partial(archive.open, info))


def _tar_members(file: Any) -> Iterator[Member]:
    guarded = _GuardedReader(file)
    reader: Any = guarded  # a file as far as tarfile needs one
    with tarfile.open(fileobj=reader, mode="r:") as opened:
        archive: Any = opened
        while (info := archive.next()) is not None:
            archive.members.clear()  # else millions of empty members would fill the memory
            if info.isreg():
                kind = "file"
            elif info.isdir():
                kind = "folder"
            elif info.issym() or info.islnk():
                kind = "symbolic link" if info.issym() else "hard link"
            else:
                kind = "device or other special file"
            size = min(info.size, 0) if kind == "folder" else info.size  # a folder's size means nothing
            yield Member(info.name, kind, size, functools.partial(archive.extractfile, info))
    # tarfile takes a damaged or missing header for the end; the real one is a block of zeros
    if guarded.last != bytes(TAR_BLOCK):
        raise tarfile.ReadError("it ends without tar's end mark or has a damaged header")
    padding = 0
    while block := file.read(1 << 20):  # to the end, where gzip and xz check their sums
        padding += len(block)
        if block.strip(b"\0") or padding > MAX_PADDING:
            raise tarfile.ReadError("there is content after tar's end mark")


class _GuardedReader:
    """A file for tarfile that refuses huge single reads and endless ones at the end; keeps the last block."""

    def __init__(self, file: Any):
        self.file = file
        self.tell, self.seek = file.tell, file.seek
        self.last = b""
        self.num_empty = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TAR_READ:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self.last = self.file.read(size)
        self.num_empty = 0 if self.last or not size else self.num_empty + 1
        if self.num_empty > 8:
            raise EOFError("unexpected end")
        return self.last
