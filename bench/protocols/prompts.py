"""Prompts: which caption of which image is asked for, and manifests that freeze the choice.

A manifest is a JSON Lines file: a head ``{"kind": "prompts", "schema": 1, ...}`` and a line
``{"image_id": …, "annotation_id": …, "caption": …}`` per prompt, in order. Published lists come as CSV or TSV
with a header; these are read too, by the column names below. Captions are untrusted text throughout.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import DataError
from bench.protocols.base import CaptionChoice, Protocol
from bench.streams import hash64
from bench.worlds.base import ImageSet
from bench.worlds.coco_annotations import unstorable

SCHEMA = 1
COLUMNS = {
    "image_id": ("image_id", "imageid", "coco_id"),
    "annotation_id": ("annotation_id", "caption_id", "id"),
    "caption": ("caption", "text", "prompt"),
}


@dataclass(frozen=True)
class Prompt:
    """``caption`` of the image with ``image_id``; ``annotation_id`` where the data set numbers captions."""

    image_id: str
    caption: str
    annotation_id: int | None = None


@dataclass(frozen=True)
class Placed:
    """A prompt, where its image lies in the set (None: it is of no image), and an id that no other prompt of
    the list has."""

    prompt: Prompt
    index: int | None
    id: str


def chosen(images: ImageSet, protocol: Protocol) -> list[Placed]:
    """The prompts of a data set under a protocol, in order. Images without captions have none.

    Raises DataError where the manifest is missing, of another hash, malformed, or does not fit the data.
    """
    if protocol.caption == "file":
        if protocol.prompts is None:
            raise DataError(
                f"protocol '{protocol.name}' takes its captions from a manifest, and the suite names none. "
                "Set protocol.prompts and protocol.prompts_sha256; tr0n-bench manifest writes one."
            )
        return placed(
            images, read_manifest(Path(protocol.prompts), protocol.prompts_sha256), protocol.prompts
        )
    found = [
        Placed(Prompt("", text), None, f"text:{number}")
        for number, text in enumerate(getattr(images, "free_prompts", ()))
    ]
    for index, captions in enumerate(images.captions):
        image_id = images.ids[index]
        for k in _picks(protocol.caption, protocol.caption_seed, image_id, len(captions)):
            prompt = Prompt(image_id, captions[k], _annotation_id(images, index, k))
            suffix = f":{k}" if protocol.caption == "all" else ""
            found.append(Placed(prompt, index, f"text:{image_id}{suffix}"))
    return found


def _picks(choice: CaptionChoice, seed: int, image_id: str, num: int) -> Iterable[int]:
    if not num:
        return ()
    if choice == "all":
        return range(num)
    return (hash64(seed, "caption", image_id) % num,) if choice == "random" else (0,)


def _annotation_id(images: ImageSet, index: int, k: int) -> int | None:
    numbers = getattr(images, "annotation_ids", None)
    return None if numbers is None else numbers[index][k]


def placed(images: ImageSet, prompts: Sequence[Prompt], where: str) -> list[Placed]:
    """A manifest's prompts with the places of their images. Raises DataError for an image that is not in the
    data, and where an annotation's caption is another one there."""
    place = {image_id: index for index, image_id in enumerate(images.ids)}
    numbers: Sequence[Sequence[int]] | None = getattr(images, "annotation_ids", None)
    found, seen = [], dict[str, int]()
    for row, prompt in enumerate(prompts, 1):
        index = place.get(prompt.image_id)
        if index is None:
            raise DataError(
                f"{where}: prompt {row}: the data has no image '{prompt.image_id}'. Is the manifest of "
                "another split?"
            )
        if prompt.annotation_id is not None and numbers is not None:
            _check_caption(images, index, numbers[index], prompt, f"{where}: prompt {row}")
        copy = seen[prompt.image_id] = seen.get(prompt.image_id, -1) + 1
        suffix = f":{copy}" if copy else ""
        found.append(Placed(prompt, index, f"text:{prompt.image_id}{suffix}"))
    return found


def _check_caption(images: ImageSet, index: int, numbers: Sequence[int], prompt: Prompt, where: str) -> None:
    if prompt.annotation_id not in numbers:
        raise DataError(
            f"{where}: image {prompt.image_id} has no annotation {prompt.annotation_id} in the data; it has "
            f"{', '.join(map(str, numbers))}."
        )
    caption = images.captions[index][numbers.index(prompt.annotation_id)]
    if caption.strip() != prompt.caption.strip():
        raise DataError(
            f"{where}: annotation {prompt.annotation_id} of image {prompt.image_id} reads "
            f"{caption[:60]!r} in the data and {prompt.caption[:60]!r} in the manifest."
        )


# --- manifests -----------------------------------------------------------------------------------


def sample(prompts: Sequence[Placed], num: int | None, seed: int | None) -> list[Placed]:
    """``num`` of the prompts in their order: the first ones, or with a ``seed`` a random subset.

    Raises DataError where there are fewer.
    """
    if num is None:
        return list(prompts)
    if num > len(prompts):
        raise DataError(f"{num} prompts were asked for, and the data has {len(prompts)}.")
    if seed is None:
        return list(prompts[:num])
    order = np.argsort([hash64(seed, "manifest", item.id) for item in prompts], kind="stable")[:num]
    return [prompts[i] for i in sorted(order.tolist())]


def manifest_bytes(prompts: Sequence[Placed], head: Mapping[str, Any]) -> bytes:
    """The manifest file of these prompts; equal prompts and heads give equal bytes."""
    lines = [{"kind": "prompts", "schema": SCHEMA, "num": len(prompts), **head}]
    for item in prompts:
        row: dict[str, Any] = {"image_id": item.prompt.image_id, "caption": item.prompt.caption}
        if item.prompt.annotation_id is not None:
            row["annotation_id"] = item.prompt.annotation_id
        lines.append(row)
    return "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines).encode()


def read_manifest(path: Path, sha256: str | None = None) -> list[Prompt]:
    """The prompts of a manifest: our JSON Lines, or a published CSV or TSV file with a header.

    Raises DataError naming file and line: missing, of another hash, malformed, empty, a caption that is
    blank or no text.
    """
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise DataError(
            f"prompts '{path}' cannot be read: {error.strerror or error}. Write the manifest with tr0n-bench "
            "manifest, or correct protocol.prompts."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise DataError(
            f"prompts '{path}': sha256 is {found}, expected {sha256}. Restore the file, or correct "
            "protocol.prompts_sha256."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"prompts '{path}': no UTF-8 text: {error}.") from error
    rows = _json_rows(path, text) if text.lstrip().startswith("{") else _table_rows(path, text)
    prompts = [_prompt(where, row) for where, row in rows]
    if not prompts:
        raise DataError(f"prompts '{path}': no prompt in it.")
    return prompts


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    num, count = None, 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"prompts '{path}', line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: no valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, found {type(row).__name__}.")
        if row.get("kind") == "prompts":
            if row.get("schema") != SCHEMA:
                raise DataError(f"{where}: schema {row.get('schema')!r}, this version reads {SCHEMA}.")
            num = row.get("num")
            continue
        count += 1
        yield where, row
    if num is not None and num != count:
        raise DataError(f"prompts '{path}': its head promises {num} prompts, and {count} are there.")


def _table_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in head else ",")
    names = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    columns = {
        key: next((names[one] for one in known if one in names), None) for key, known in COLUMNS.items()
    }
    for key in ("image_id", "caption"):
        if columns[key] is None:
            raise DataError(
                f"prompts '{path}': no column for '{key}': found {', '.join(names) or 'none'}, expected "
                f"one of {', '.join(COLUMNS[key])}."
            )
    try:
        for row in reader:
            yield (
                f"prompts '{path}', line {reader.line_num}",
                {key: row[name] for key, name in columns.items() if name is not None},
            )
    except csv.Error as error:
        raise DataError(f"prompts '{path}', line {reader.line_num}: {error}.") from error


def _prompt(where: str, row: Mapping[str, Any]) -> Prompt:
    caption, image_id, number = row.get("caption"), row.get("image_id"), row.get("annotation_id")
    problem = unstorable(caption)
    if problem:
        raise DataError(f"{where}: {problem}.")
    if not isinstance(image_id, str | int) or isinstance(image_id, bool) or image_id == "":
        raise DataError(f"{where}: image_id: expected an image's id, found {image_id!r}.")
    try:
        return Prompt(str(image_id), str(caption), None if number in (None, "") else int(str(number)))
    except ValueError:
        raise DataError(f"{where}: annotation_id: expected a whole number, found {number!r}.") from None
