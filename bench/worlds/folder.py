"""A folder of images as data, with a text file of prompts where text is to be drawn for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.errors import DataError, SuiteError
from bench.protocols.base import Crop, Filter
from bench.worlds.base import manifest_digest
from bench.worlds.coco_annotations import unstorable
from bench.worlds.files import FileImageSet, track

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Images:
    """A folder of images, such as FFHQ's, and prompts that belong to none of them.

    ``root`` is searched with its subfolders; ids are paths below it without their suffix, in ascending order.
    A split ``s`` is the subfolder ``<root>/s`` where there is one; without it ``val`` is all of ``root``.
    ``prompts`` is a UTF-8 text file with one prompt a line; blank lines are passed over. Images of several
    sizes need ``resolution``. Lists of prompts that publications use are theirs: bring the file.
    """

    root: str
    resolution: int | None = None
    prompts: str | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise SuiteError(f"images: resolution must be at least 1 or left out, got {self.resolution}.")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    @property
    def has_captions(self) -> bool:
        return self.prompts is not None

    def load(self, split: str, cache_dir: Path) -> FolderImageSet:
        """The split, read in place; ``cache_dir`` is not used. Raises DataError for none or an empty one."""
        return self.load_as(split, cache_dir, "centre", "bicubic", self.resolution)

    def load_as(
        self, split: str, cache_dir: Path, crop: Crop, resize_filter: Filter, side: int | None
    ) -> FolderImageSet:
        """The split under a protocol's geometry."""
        root = Path(self.root).expanduser()
        folder = root / split
        if not folder.is_dir():
            if split != "val":
                raise DataError(f"{folder}: no such folder. Split '{split}' is a subfolder of '{root}'.")
            folder = root
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Correct 'root', or unpack the images there.")
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not names:
            raise DataError(f"{folder}: no images in it. Allowed: files ending in {', '.join(SUFFIXES)}.")
        prompts = () if self.prompts is None else read_prompts(Path(self.prompts).expanduser())
        return FolderImageSet(folder, names, prompts, side, crop, resize_filter)


def read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank. Raises DataError where it is missing, no text or empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"prompts '{path}' cannot be read as UTF-8 text: {error}.") from error
    prompts = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not prompts:
        raise DataError(f"prompts '{path}': no prompt in it. Write one a line.")
    for number, prompt in enumerate(prompts, 1):
        if problem := unstorable(prompt):
            raise DataError(f"prompts '{path}', prompt {number}: {problem}.")
    return prompts


class FolderImageSet(FileImageSet):
    """An ImageSet over files; ``free_prompts`` belong to no image."""

    def __init__(
        self,
        folder: Path,
        names: list[str],
        prompts: tuple[str, ...],
        resolution: int | None,
        crop: Crop,
        resize_filter: Filter,
    ) -> None:
        super().__init__(folder, names, resolution, crop, resize_filter)
        self.ids = tuple(name.rpartition(".")[0] for name in names)
        twins = {a for a, b in zip(sorted(self.ids), sorted(self.ids)[1:]) if a == b}
        if twins:
            raise DataError(f"{folder}: '{min(twins)}' is there with two suffixes. Keep one of the files.")
        self.captions: tuple[tuple[str, ...], ...] = ((),) * len(names)
        self.attributes: tuple[Mapping[str, str], ...] = ({},) * len(names)
        self.free_prompts = prompts

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 over file names, files' bytes, prompts, crop and resize."""
        digest = hashlib.sha256("\n".join(self.free_prompts).encode()).hexdigest()
        hashed = ((name, self._file_digest(name)) for name in track(self._files, "hashing images", len(self)))
        return manifest_digest({**self._geometry, "prompts": digest}, hashed)
