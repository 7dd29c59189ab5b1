"""The form of one artifact: a line of JSON, the payload, and a checksum over both.

::

    {"bytes":3,"inputs":{},"key":"0f…","kind":"latents","name":"0.bin","schema":1}\\n
    <payload>
    <64 hex characters: SHA-256 of everything before>

Every schema to come keeps the checksum at the end, so that an object of a newer version is told from a
broken one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.artifacts.faults import CorruptArtifact
from bench.errors import ArtifactError
from bench.keys import canonical_json

SCHEMA = 1
DIGEST = 64
MAX_HEADER = 1 << 20
SET_ASIDE = "set-aside"
_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def is_part(text: str) -> bool:
    """Whether a kind, key or name may be called this; a leading dot is kept for temporary files."""
    return _PART.fullmatch(text) is not None and ".." not in text


@dataclass(frozen=True)
class Place:
    """Where an artifact belongs. Raises ArtifactError for a part that is not allowed."""

    kind: str
    key: str
    name: str

    def __post_init__(self) -> None:
        check_part("kind", self.kind)
        check_part("key", self.key)
        check_part("name", self.name)

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}/{self.name}"


def check_part(label: str, text: str) -> None:
    """Raises ArtifactError unless a kind, key or name is safe as part of a path."""
    if not is_part(text):
        raise ArtifactError(
            f"artifact {label} {text!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "the first a letter or digit, without '..'."
        )
    if label == "kind" and text == SET_ASIDE:
        raise ArtifactError(f"artifact kind '{text}' is taken: broken objects go there. Choose another.")


def encode(place: Place, payload: bytes, inputs: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Header line, payload and checksum, to be written one after the other.

    Raises ArtifactError for inputs that are not plain data, or are above 1 MiB as JSON.
    """
    content = {"schema": SCHEMA, **vars(place), "bytes": len(payload), "inputs": dict(inputs)}
    try:
        header = canonical_json(content).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"inputs of artifact '{place}' are no plain data: {error}. "
            "Give dictionaries with text keys, lists, text, numbers, booleans and None."
        ) from error
    if len(header) > MAX_HEADER:
        raise ArtifactError(
            f"inputs of artifact '{place}' take {len(header)} bytes, allowed are {MAX_HEADER}. "
            "Put a content key in the place of what is large."
        )
    digest = hashlib.sha256(header)
    digest.update(payload)
    return header, payload, digest.hexdigest().encode()


def decode(place: Place, data: bytes) -> bytes:
    """The payload of a whole object. Raises CorruptArtifact (the message is the bare reason), or
    ArtifactError for an intact object of another schema.
    """
    view = memoryview(data)
    actual = hashlib.sha256(view[:-DIGEST]).hexdigest()
    if view[-DIGEST:] != actual.encode():
        raise CorruptArtifact(_why_broken(data, actual))
    header = decode_header(place, data)
    start = data.index(b"\n") + 1
    if header["bytes"] != len(data) - DIGEST - start:
        raise CorruptArtifact(f"holds {len(data) - DIGEST - start} bytes, its header says {header['bytes']}")
    return data[start:-DIGEST]


def decode_header(place: Place, data: bytes) -> dict[str, Any]:
    """The header of an object of which ``data`` is the beginning. Raises as :func:`decode`."""
    header = _parse(data)
    if header is None:
        raise CorruptArtifact("its first line is no artifact header")
    if header["schema"] != SCHEMA:
        raise ArtifactError(
            f"artifact '{place}' has schema {header['schema']!r}, this version reads {SCHEMA}. "
            "Use the version that wrote it, or another store."
        )
    found = "/".join(str(header.get(field)) for field in ("kind", "key", "name"))
    if found != str(place):
        raise CorruptArtifact(f"holds {found} instead")
    if type(header.get("bytes")) is not int or not isinstance(header.get("inputs"), dict):
        raise CorruptArtifact("its header lacks 'bytes' or 'inputs'")
    return header


def _parse(data: bytes) -> dict[str, Any] | None:
    end = data.find(b"\n", 0, MAX_HEADER)
    if end < 0:
        return None
    try:
        header = json.loads(data[:end])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) and "schema" in header else None


def _why_broken(data: bytes, actual: str) -> str:
    """Why the checksum does not hold, as far as the header, which may be broken itself, can tell."""
    header = _parse(data)
    if header is None or type(header.get("bytes")) is not int:
        if len(data) < DIGEST or b"\n" not in data[:MAX_HEADER]:
            return f"truncated: {len(data)} bytes, without a whole header"
        return "its first line is no artifact header"
    whole = data.index(b"\n") + 1 + header["bytes"] + DIGEST
    if len(data) < whole:
        return f"truncated: {len(data)} of {whole} bytes"
    if len(data) > whole:
        return f"too long: {len(data)} bytes, expected {whole}"
    stored = ascii(data[-DIGEST:].decode("latin-1"))[1:-1]
    return f"sha256 is {actual}, expected {stored}"
