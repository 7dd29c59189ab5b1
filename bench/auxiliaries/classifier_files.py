"""Which public classifier a suite means: architecture, file, preprocessing, class names."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from bench.assets.missing import Published
from bench.errors import SuiteError, WeightError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Images are resized so that the shorter side is ``size / crop``, cropped to the centre ``size`` square,
    scaled to [0, 1] and normalised by channel."""

    size: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"]


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PRESETS = {
    # torchvision's: resize 256 bilinear, crop 224.
    "imagenet": Preprocessing(
        size=224, crop=0.875, mean=_IMAGENET[0], std=_IMAGENET[1], interpolation="bilinear"
    ),
    # Mean and deviation of the training images.
    "cifar10": Preprocessing(
        size=32, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
        interpolation="bilinear",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClassifierFiles:
    """A classifier of timm or torchvision from a local file.

    ``model`` is the library's name of the architecture, ``weights`` its file (``.safetensors``, a torch
    state dict, a training checkpoint). ``preset`` settles preprocessing and class names: "imagenet"
    (torchvision's recipe), "cifar10", or "timm": what timm states for the model, its tag included
    ("resnet50.a1_in1k"), with the names of ImageNet-1k. ``size``, ``crop``, ``mean``, ``std`` and
    ``interpolation`` replace single values; ``classes`` is a text file with one class name a line, in the
    order of the logits. ``head`` is the data's attribute that the classes are values of.
    """

    model: str
    weights: str
    sha256: str | None = None
    trust: bool = False
    library: Literal["timm", "torchvision"] = "timm"
    preset: Literal["imagenet", "cifar10", "timm"] = "imagenet"
    size: int | None = None
    crop: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    classes: str | None = None
    head: str = "class"
    companions: ClassVar[tuple[str, ...]] = ("classes",)

    def __post_init__(self) -> None:
        if self.preset == "timm" and self.library != "timm":
            raise SuiteError("preset timm needs library: timm.")
        if self.size is not None and self.size < 1:
            raise SuiteError(f"size must be at least 1, got {self.size}.")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise SuiteError(f"crop must be in (0, 1], got {self.crop}.")
        if self.std is not None and min(self.std) <= 0:
            raise SuiteError(f"std must be positive, got {list(self.std)}.")

    @property
    def heads(self) -> tuple[str, ...]:
        return (self.head,)

    @property
    def assets(self) -> dict[str, Published | None]:
        """Fields that hold files' paths, with what is known of the public file."""
        where = {
            "timm": f"https://huggingface.co/timm/{self.model}",
            "torchvision": "https://pytorch.org/vision/stable/models.html",
        }[self.library]
        files: dict[str, Published | None] = {
            "weights": Published(what=f"classifier {self.model} of {self.library}", source=where)
        }
        if self.classes is not None:
            files["classes"] = Published(what="class names, one a line", source="the data set's own page")
        return files

    def check_data(self, source: object) -> str | None:
        """What makes a data source's classes unfit, or None."""
        attributes = getattr(source, "attributes", {})
        if self.head not in attributes:
            found = ", ".join(attributes) or "none"
            return f"it has no attribute '{self.head}' (head). It has: {found}"
        try:
            names = class_names(self)
        except WeightError:
            return None  # told when the file is needed
        unknown = [value for value in attributes[self.head] if value not in names]
        if unknown:
            return (
                f"its {self.head} '{unknown[0]}' is none of the classifier's {len(names)} classes "
                f"({', '.join(names[:3])}, …). Name them in a file: classes"
            )
        return None


def class_names(files: ClassifierFiles) -> tuple[str, ...]:
    """The classes in the order of the logits. Raises WeightError for a file that cannot be used."""
    if files.classes is None:
        return CIFAR10 if files.preset == "cifar10" else imagenet_names()
    path = Path(files.classes)
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise WeightError(f"class names '{path}' cannot be read: {error}. Correct 'classes'.") from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or len(names) < 2:
        problem = f"names '{twice[0]}' twice" if twice else f"names {len(names)} classes"
        raise WeightError(f"class names '{path}' {problem}; expected two or more, each once, one a line.")
    return names


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet-1k by their first lemma, in the usual order, from timm's own lists.

    Two lemmas name two classes each; these carry the synset behind: "crane (n02012849)".
    """
    lemmas = dict(line.split("\t", 1) for line in _timm_list("imagenet_synset_to_lemma.txt"))
    synsets = imagenet_synsets()
    first = [lemmas[synset].split(",")[0].strip() for synset in synsets]
    counts = Counter(first)
    return tuple(f"{name} ({synset})" if counts[name] > 1 else name for name, synset in zip(first, synsets))


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The synset ids of ImageNet-1k ("n01440764", …) in the usual order: the names of its folders."""
    return tuple(_timm_list("imagenet_synsets.txt"))


def _timm_list(name: str) -> list[str]:
    """The lines of a list that timm ships, read without importing timm, which takes seconds."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise WeightError("the class names of ImageNet come with timm, which is not installed.")
    return (Path(spec.origin).parent / "data" / "_info" / name).read_text().splitlines()
