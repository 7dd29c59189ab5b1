"""The bytes of each artifact: arrays and a little metadata, as safetensors; images as PNG files in a row."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bench.errors import ArtifactError
from bench.types import Readout, Score

_META = "meta"
SHEET_PIXELS = 2**22
_ARRAYS = ("features", "image_embedding", "text_embedding", "view_embedding", "reference_embedding", "pixels")


def pack(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> bytes:
    """Arrays by name, with plain metadata."""
    # An array of its own: safetensors writes its own metadata in random order, and equal content must be
    # equal bytes.
    text = json.dumps(dict(meta or {}), sort_keys=True).encode()
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save({**content, _META: np.frombuffer(text, np.uint8)})


def unpack(payload: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What :func:`pack` was given, arrays in the order of their names."""
    try:
        arrays = dict(sorted(load(payload).items()))
        meta = json.loads(arrays.pop(_META).tobytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"an artifact's content cannot be read: {error}. Remove it and run again."
        ) from error
    return arrays, meta


def to_pngs(images_NCHW: np.ndarray) -> list[bytes]:
    """A PNG file's bytes per image of uint8 (N, 3, H, W)."""
    files = []
    for image in np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)):
        buffer = io.BytesIO()
        # zlib's quickest level: files a tenth larger, in two thirds of the time.
        Image.fromarray(image).save(buffer, format="png", compress_level=1)
        files.append(buffer.getvalue())
    return files


def encode_pngs(images_NCHW: np.ndarray, *, together: bool = False) -> dict[str, np.ndarray]:
    """uint8 (N, 3, H, W) as "png", all files' bytes in a row, and "png_end", int64 (N,), where each ends.

    ``together`` puts as many images as make 4 million pixels below each other in one file, which is several
    times as fast for small ones; "png_height" says how high each is.
    """
    num, channels, height, width = images_NCHW.shape
    per = max(1, SHEET_PIXELS // (height * width)) if together else 1
    if per > 1:
        sheets = [
            images_NCHW[k : k + per].transpose(1, 0, 2, 3).reshape(1, channels, -1, width)
            for k in range(0, num, per)
        ]
        files = [file for sheet in sheets for file in to_pngs(sheet)]
    else:
        files = to_pngs(images_NCHW)
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    arrays: dict[str, np.ndarray] = {"png": np.frombuffer(b"".join(files), np.uint8), "png_end": ends}
    if together:
        arrays["png_height"] = np.array([height])
    return arrays


def png_files(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """The bytes of each file, in order."""
    content, start = arrays["png"], 0
    for end in arrays["png_end"].tolist():
        yield content[start:end].tobytes()
        start = end


def decode_pngs(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 (N, 3, H, W) of what :func:`encode_pngs` gave."""
    images = []
    for file in png_files(arrays):
        with Image.open(io.BytesIO(file), formats=("PNG",)) as image:
            images.append(np.asarray(image))
    if "png_height" not in arrays:
        return np.stack(images).transpose(0, 3, 1, 2)
    height = int(arrays["png_height"][0])
    parts = [sheet.reshape(-1, height, *sheet.shape[1:]) for sheet in images]
    return np.concatenate(parts).transpose(0, 3, 1, 2)


def encode_steps(snapshots: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Snapshots by step, each uint8 (N, 3, H, W), as arrays ``<step>/<name>``."""
    with ThreadPoolExecutor(2) as pool:
        encoded = pool.map(partial(encode_pngs, together=True), snapshots.values())
        return {
            f"{step}/{name}": values
            for step, arrays in zip(snapshots, encoded)
            for name, values in arrays.items()
        }


def decode_steps(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What :func:`encode_steps` was given, in the order of the steps."""
    by_step: dict[str, dict[str, np.ndarray]] = {}
    for label, values in arrays.items():
        step, _, name = label.partition("/")
        by_step.setdefault(step, {})[name] = values
    return {step: decode_pngs(by_step[step]) for step in sorted(by_step, key=int)}


# --- what a judge saw ----------------------------------------------------------------------------


def readout_arrays(readout: Readout) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a readout."""
    arrays = {f"logits/{head}": values for head, values in readout.logits.items()}
    arrays |= {f"labels/{name}": values for name, values in readout.labels.items()}
    for name in _ARRAYS:
        values = getattr(readout, name)
        if values is not None:
            arrays[name] = values
    meta: dict[str, Any] = {"classes": {head: list(values) for head, values in readout.classes.items()}}
    return arrays, {**meta, "about": dict(readout.about)} if readout.about else meta


def arrays_readout(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Readout:
    """The readout of :func:`readout_arrays`."""

    def named(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    return Readout(
        logits=named("logits/"),
        labels=named("labels/"),
        classes={head: tuple(values) for head, values in meta["classes"].items()},
        about=meta.get("about", {}),
        **{name: arrays.get(name) for name in _ARRAYS},
    )


# --- scores --------------------------------------------------------------------------------------


def pack_scores(scores: Sequence[Score], columns: Mapping[str, np.ndarray]) -> bytes:
    """A metric's scores and its per-sample columns."""
    return pack(
        {f"column/{name}": values for name, values in columns.items()}, {"scores": [*map(asdict, scores)]}
    )


def unpack_scores(payload: bytes) -> tuple[tuple[Score, ...], dict[str, np.ndarray]]:
    """What :func:`pack_scores` was given."""
    arrays, meta = unpack(payload)
    columns = {name.removeprefix("column/"): values for name, values in arrays.items()}
    return tuple(_score(score) for score in meta["scores"]), columns


def _score(plain: Mapping[str, Any]) -> Score:
    interval = plain.get("interval")  # a list in JSON
    return Score(**{**plain, "interval": None if interval is None else tuple(interval)})
