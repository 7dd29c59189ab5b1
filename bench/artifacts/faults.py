"""What can go wrong with an artifact, in words: path, fault and remedy."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from bench.errors import ArtifactError, BenchError


class MissingArtifact(ArtifactError):
    """The store holds no such artifact."""


class CorruptArtifact(ArtifactError):
    """The stored object is not what was written: truncated, changed or in another's place."""


_FULL = "Free some space, or choose another place."
_DENIED = "Give this user access to it, or choose another place."
_SHAPE = "A part of the path is a file where a folder belongs, or the reverse: remove it."
REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Raise the limit on the size of a file, or choose another place.",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOTDIR: _SHAPE,
    errno.EISDIR: _SHAPE,
    errno.EEXIST: _SHAPE,
    errno.ENAMETOOLONG: "Choose a place with a shorter path.",
}


def remedy(error: Exception) -> str:
    """What the user can do about a fault of the storage."""
    if isinstance(error, PermissionError):
        return _DENIED
    number = error.errno if isinstance(error, OSError) else None
    return REMEDIES.get(number or 0, "Check address, credentials, connection and disk, then try again.")


def reason(error: Exception) -> str:
    """The fault in short; an OSError's own text would name the temporary file as well."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


@contextlib.contextmanager
def told(
    action: str, address: str, faults: tuple[type[Exception], ...], kind: type[BenchError] = ArtifactError
) -> Iterator[None]:
    """Turns ``faults`` within the block into an error of ``kind`` that names address and remedy."""
    try:
        yield
    except BenchError:
        raise
    except faults as error:
        raise kind(f"'{address}' cannot be {action}: {reason(error)}. {remedy(error)}") from error
