"""ImageNet-1k in the usual folder layout, with its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.auxiliaries.classifier_files import imagenet_names, imagenet_synsets
from bench.errors import DataError, SuiteError
from bench.protocols.base import Crop, Filter
from bench.worlds.base import manifest_digest
from bench.worlds.files import FileImageSet, track

SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True, kw_only=True)
class ImageNet:
    """ImageNet-1k: ``<root>/<split>/<synset>/<image>``, split ``train`` or ``val``, as torchvision reads it.

    The class is the attribute "class", named as the ImageNet preset of classifiers names it. Not every class
    needs a folder; a folder that is no synset of the 1,000 is refused. There are no captions.
    """

    root: str
    resolution: int | None = None
    has_captions = False

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise SuiteError(f"imagenet: resolution must be at least 1 or left out, got {self.resolution}.")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return {"class": imagenet_names()}

    def load(self, split: str, cache_dir: Path) -> ImageNetSet:
        """The split, read in place; ``cache_dir`` is not used. Raises DataError for none or an empty one."""
        return self.load_as(split, cache_dir, "centre", "bicubic", self.resolution)

    def load_as(
        self, split: str, cache_dir: Path, crop: Crop, resize_filter: Filter, side: int | None
    ) -> ImageNetSet:
        """The split under a protocol's geometry."""
        folder = Path(self.root).expanduser() / split
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder. ImageNet comes from https://image-net.org/download (ILSVRC 2012, "
                "after registration); move the images of each class into a folder named by its synset."
            )
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.glob("*/*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not names:
            raise DataError(f"{folder}: no images in it. Expected {folder}/n01440764/<image>.JPEG and so on.")
        return ImageNetSet(folder, names, side, crop, resize_filter)


class ImageNetSet(FileImageSet):
    """An ImageSet over files in folders named by synsets; ids are paths without their suffix."""

    def __init__(
        self, folder: Path, names: list[str], resolution: int | None, crop: Crop, resize_filter: Filter
    ) -> None:
        super().__init__(folder, names, resolution, crop, resize_filter)
        classes = dict(zip(imagenet_synsets(), imagenet_names()))
        unknown = [name for name in names if name.split("/")[0] not in classes]
        if unknown:
            raise DataError(
                f"{folder / unknown[0].split('/')[0]}: is no synset of ImageNet-1k, as n01440764 is one. "
                "Move it away, or rename the folder."
            )
        self.ids = tuple(name.rpartition(".")[0] for name in names)
        self.captions: tuple[tuple[str, ...], ...] = ((),) * len(names)
        self.attributes: tuple[Mapping[str, str], ...] = tuple(
            {"class": classes[name.split("/")[0]]} for name in names
        )

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 over file names, which hold the classes, files' bytes, crop and resize."""
        hashed = ((name, self._file_digest(name)) for name in track(self._files, "hashing images", len(self)))
        return manifest_digest(self._geometry, hashed)
