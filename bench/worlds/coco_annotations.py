"""The caption file of MS-COCO's layout, read with every entry checked. Its text is untrusted data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from bench.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image: its captions in annotation-id order and, where stated, (width, height) in pixels."""

    id: int
    file_name: str
    captions: tuple[str, ...]
    annotation_ids: tuple[int, ...]
    attributes: Mapping[str, str]
    size: tuple[int, int] | None


def captions_path(root: Path, split: str) -> Path:
    """``<root>/annotations/captions_<split>.json``."""
    return root / "annotations" / f"captions_{split}.json"


def unstorable(text: object) -> str | None:
    """Why ``text`` cannot be a caption, or None: it must be a string, not blank, and valid Unicode."""
    if not isinstance(text, str):
        return f"a caption must be a string, found {type(text).__name__}"
    if not text.strip():
        return "the caption is blank"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the caption holds half of a surrogate pair, which is no Unicode text"
    return None


def read_captions(path: Path) -> list[Entry]:
    """The images of a caption file, ids ascending.

    Raises DataError, naming file and entry, where the file is empty or no JSON, an entry lacks a key or
    has one of a wrong type, an image or annotation id occurs twice, an image has no caption, a caption is
    blank or belongs to no image, or a ``file_name`` leads out of the image folder.
    """
    document = _document(path)
    images: dict[int, tuple[str, Mapping[str, str], tuple[int, int] | None]] = {}
    for where, entry in _entries(path, document, "images"):
        image_id = _integer(where, entry, "id")
        if image_id in images:
            raise DataError(f"{where}.id: image id {image_id} occurs twice. Ids must be distinct.")
        images[image_id] = (_file_name(where, entry), _attributes(where, entry), _size(entry))

    captions: dict[int, list[tuple[int, str]]] = {image_id: [] for image_id in images}
    seen: set[int] = set()
    for where, entry in _entries(path, document, "annotations"):
        number, image_id = _integer(where, entry, "id"), _integer(where, entry, "image_id")
        if number in seen:
            raise DataError(f"{where}.id: annotation id {number} occurs twice. Ids must be distinct.")
        seen.add(number)
        if image_id not in captions:
            raise DataError(f"{where}.image_id: {image_id} is not the id of an image in this file.")
        text = entry.get("caption")
        problem = unstorable(text)
        if problem:
            raise DataError(f"{where}.caption (image {image_id}): {problem}. Correct or remove the entry.")
        captions[image_id].append((number, str(text)))

    bare = sorted(image_id for image_id, texts in captions.items() if not texts)
    if bare:
        raise DataError(
            f"{path}: {len(bare)} of {len(images)} images have no caption, the first is image {bare[0]} "
            f"('{images[bare[0]][0]}'). Give it a caption or remove the entry."
        )
    return [
        Entry(
            id=image_id,
            file_name=images[image_id][0],
            captions=tuple(text for _, text in sorted(captions[image_id])),
            annotation_ids=tuple(number for number, _ in sorted(captions[image_id])),
            attributes=images[image_id][1],
            size=images[image_id][2],
        )
        for image_id in sorted(images)
    ]


def _document(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the caption file: {error}.") from error
    if not content.strip():
        raise DataError(f"{path}: the caption file is empty ({len(content)} bytes). Download it again.")
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no valid JSON: {error}. Download the file again.") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected an object with 'images' and 'annotations' at the top.")
    return document


def _entries(path: Path, document: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, entry) pairs of a list that must be there and hold objects."""
    entries = document.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: '{key}' must be a list. Is this a caption file (captions_<split>.json)?")
    if not entries:
        raise DataError(f"{path}: '{key}' is empty, so there is nothing to caption.")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {key}[{index}]: expected an object, found {type(entry).__name__}.")
        yield f"{path}: {key}[{index}]", entry


def _integer(where: str, entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        found = json.dumps(value)[:80] if key in entry else "nothing"
        raise DataError(f"{where}.{key}: expected an integer of at least 0, found {found}.")
    return value


def _file_name(where: str, entry: dict[str, Any]) -> str:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{where}.file_name: expected the name of a file, found {json.dumps(name)[:80]}.")
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        raise DataError(
            f"{where}.file_name: '{name}' leads out of the image folder. Names must be relative to it."
        )
    return name


def _attributes(where: str, entry: dict[str, Any]) -> Mapping[str, str]:
    values = entry.get("attributes")
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise DataError(f"{where}.attributes: expected names mapped to strings, found {str(values)[:80]}.")
    return values


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    size = entry.get("width"), entry.get("height")
    return size if all(type(value) is int for value in size) else None  # type: ignore[return-value]
