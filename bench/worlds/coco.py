"""Images with captions in MS-COCO's layout: reading, writing, and the ``coco`` source.

Layout: ``<root>/<image_dir>/<file_name>`` and ``<root>/annotations/captions_<split>.json``, as published at
https://cocodataset.org (Lin et al. 2014, arXiv:1405.0312; Chen et al. 2015, arXiv:1504.00325). One
extension: an image entry may hold ``"attributes"``, a mapping of names to values, which our worlds write.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from bench.assets.lock import load_lock
from bench.errors import DataError, SuiteError
from bench.protocols.base import Crop, Filter
from bench.worlds.base import manifest_digest
from bench.worlds.coco_annotations import captions_path, read_captions, unstorable
from bench.worlds.files import FileImageSet, track


class CocoImageSet(FileImageSet):
    """An ImageSet over a folder in MS-COCO's layout, ids ascending, captions in annotation-id order.

    With ``resolution`` every image is cropped at its centre to the short side and resized by Pillow's
    antialiased ``resize_filter``; an image of that size already is left as it is. Without, all images must
    be equal in size. ``crop`` is one of a protocol's. ``image_dir`` defaults to the split's name. Raises
    DataError where the folder, the caption file or an image is missing or unfit; images are decoded when
    asked for, not before.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        image_dir: str | None = None,
        resolution: int | None = None,
        crop: Crop = "centre",
        resize_filter: Filter = "bicubic",
    ) -> None:
        root = Path(root).expanduser()
        folder = root / (split if image_dir is None else image_dir)
        path = captions_path(root, split)
        if not path.is_file():
            raise DataError(
                f"{path}: no such file. Expected {folder}/<file_name> and {path}; "
                "MS-COCO's images and captions are at https://cocodataset.org/#download "
                "(for 2014: val2014.zip and annotations_trainval2014.zip, unpacked side by side)."
                f"{_public_files(split)}"
            )
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder, but {path} lists its images. Unpack the images there."
            )
        entries = read_captions(path)
        super().__init__(folder, [entry.file_name for entry in entries], resolution, crop, resize_filter)
        self.ids: tuple[str, ...] = tuple(str(entry.id) for entry in entries)
        self.captions: tuple[tuple[str, ...], ...] = tuple(entry.captions for entry in entries)
        self.annotation_ids: tuple[tuple[int, ...], ...] = tuple(entry.annotation_ids for entry in entries)
        self.attributes: tuple[Mapping[str, str], ...] = tuple(entry.attributes for entry in entries)

        present = {item.name for item in os.scandir(self._folder)}
        missing = [
            name
            for name in self._files
            if name not in present and not ("/" in name and (self._folder / name).is_file())
        ]
        if missing:
            raise DataError(
                f"{self._folder / missing[0]}: no such image ({len(missing)} of {len(self)} listed in {path} "
                "are missing). Unpack the images again."
            )
        sizes = {entry.size: entry.id for entry in entries if entry.size is not None}
        if resolution is None and len(sizes) > 1:
            (size_a, id_a), (size_b, id_b) = list(sizes.items())[:2]
            raise DataError(
                f"{path}: images differ in size: {size_a[0]} x {size_a[1]} (id {id_a}), "
                f"{size_b[0]} x {size_b[1]} (id {id_b}). Set 'resolution' to crop and resize them."
            )

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 over ids, captions, attributes, file names, image files' bytes, crop and resize."""
        rows = zip(self.ids, self.captions, self.attributes, self._files, strict=True)
        hashed = (
            (image_id, captions, dict(attributes), name, self._file_digest(name))
            for image_id, captions, attributes, name in track(rows, "hashing images", len(self))
        )
        return manifest_digest(self._geometry, hashed)


def _public_files(split: str) -> str:
    """What the lock file knows of a split's archives, as sentences."""
    known = {asset.file: asset for asset in load_lock().values()}
    year = split[-4:]
    found = [known[name] for name in (f"annotations_trainval{year}.zip", f"{split}.zip") if name in known]
    return "".join(
        f" {asset.file}: tr0n-bench assets fetch {asset.name}; {asset.bytes} bytes, sha256 {asset.sha256}."
        for asset in found
    )


@dataclass(frozen=True, kw_only=True)
class Coco:
    """MS-COCO, or any folder in its layout.

    ``load("val")`` reads ``split``; ``load("train")`` its training counterpart (``train2014`` for
    ``val2014``); any other name is read as it stands. Real COCO photographs differ in size, so they need
    ``resolution``. ``image_dir`` names the image folder where it is not called like the split.
    """

    root: str
    split: str = "val2014"
    image_dir: str | None = None
    resolution: int | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise SuiteError(f"coco: resolution must be at least 1 or left out, got {self.resolution}.")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    def load(self, split: str, cache_dir: Path) -> CocoImageSet:
        """The split, read in place; ``cache_dir`` is not used. Raises DataError as CocoImageSet does."""
        return self.load_as(split, cache_dir, "centre", "bicubic", self.resolution)

    def load_as(
        self, split: str, cache_dir: Path, crop: Crop, resize_filter: Filter, side: int | None
    ) -> CocoImageSet:
        """The split under a protocol's geometry."""
        if split == "val":
            name = self.split
        elif split == "train" and self.split.startswith("val"):
            name = "train" + self.split.removeprefix("val")
        else:
            name = split
        return CocoImageSet(
            self.root,
            name,
            image_dir=self.image_dir,
            resolution=side,
            crop=crop,
            resize_filter=resize_filter,
        )


def write_coco(
    root: Path | str,
    split: str,
    images_NCHW: np.ndarray,
    captions: Sequence[Sequence[str]],
    attributes: Sequence[Mapping[str, str]] | None = None,
    ids: Sequence[int] | None = None,
    codec: Literal["png", "jpg"] = "png",
) -> None:
    """Writes a split in MS-COCO's layout, whole or not at all.

    ``images_NCHW`` is uint8 (N, 3, H, W), RGB; ids are distinct, not negative, 1 … N by default. PNG is
    lossless, ``jpg`` has quality 95 without chroma subsampling. The data set is built in a hidden folder
    beside ``root`` and renamed; a split joins an existing root with its caption file last, which is what
    makes it readable. Raises DataError if the split exists or a caption could not be read back.
    """
    root = Path(root).expanduser()
    count = len(images_NCHW)
    ids = list(range(1, count + 1)) if ids is None else [int(value) for value in ids]
    attributes = [{}] * count if attributes is None else attributes
    if images_NCHW.dtype != np.uint8 or images_NCHW.ndim != 4 or images_NCHW.shape[1] != 3 or not count:
        raise DataError(
            f"{root}: images must be uint8 of shape (N, 3, H, W) with N > 0, "
            f"got {images_NCHW.dtype} {images_NCHW.shape}."
        )
    if not len(captions) == len(attributes) == len(ids) == count:
        raise DataError(
            f"{root}: {count} images, {len(captions)} caption lists, {len(attributes)} attribute mappings "
            f"and {len(ids)} ids; give one each per image."
        )
    if len(set(ids)) != count or min(ids) < 0:
        raise DataError(f"{root}: image ids must be distinct and not negative.")
    for image_id, texts in zip(ids, captions):
        problem = "no captions" if not texts else next(filter(None, map(unstorable, texts)), None)
        if problem:
            raise DataError(f"{root}: image {image_id}: {problem}. Give every image at least one caption.")
    target = captions_path(root, split)
    for path in (target, root / split):
        if path.exists():
            raise DataError(f"{path}: exists already. Choose another folder, or remove it.")

    names = [f"COCO_{split}_{image_id:012d}.{codec}" for image_id in ids]
    _, _, height, width = images_NCHW.shape
    document = {
        "info": {"description": "captions in MS-COCO's layout, written by tr0n-bench"},
        "images": [
            {"id": i, "file_name": name, "width": width, "height": height, "attributes": dict(values)}
            for i, name, values in zip(ids, names, attributes)
        ],
        "annotations": [
            {"id": number, "image_id": image_id, "caption": text}
            for number, (image_id, text) in enumerate(
                ((i, text) for i, texts in zip(ids, captions) for text in texts), start=1
            )
        ],
    }

    root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}.partial-", dir=root.parent))
    try:
        # A folder of its own inside: mkdtemp's private permissions should not outlive the writing.
        stage = scratch / "data"
        (stage / split).mkdir(parents=True)
        (stage / "annotations").mkdir()
        options: dict[str, Any] = {"quality": 95, "subsampling": 0} if codec == "jpg" else {}
        for name, pixels in track(zip(names, images_NCHW), f"writing {split}", count):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(stage / split / name, **options)
        staged = captions_path(stage, split)
        staged.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        if root.exists():
            target.parent.mkdir(exist_ok=True)
            os.rename(stage / split, root / split)
            os.rename(staged, target)
        else:
            os.rename(stage, root)
    except OSError as error:
        raise DataError(f"{root}: cannot write the data set: {error}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
