"""The protocol record: how samples become images, what they are compared with, and by what.

Numbers under different protocols are different quantities: the same files give FIDs that lie several points
apart (Parmar et al. 2022, arXiv:2104.11222). ``bench/docs/protocols.md`` explains each field.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.errors import SuiteError
from bench.keys import canonical_json
from bench.protocols.shipped import NAMES, SHIPPED

Positive = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Codec = Annotated[str, Field(pattern=r"^(png|jpeg-([1-9]|[1-9][0-9]|100))$")]
CaptionChoice = Literal["first", "random", "all", "file"]
Crop = Literal["centre", "centre-round", "none"]
Filter = Literal["bicubic", "bilinear", "lanczos", "box", "hamming"]
ExtractorResize = Literal["clean", "torch-fidelity", "pytorch-fid", "t2ibenchmark"]
ExtractorScale = Literal["tensorflow", "symmetric"]

# Where something lies, and what does not reach a judge: not part of what the protocol is.
_NOT_CONTENT = ("name", "prompts")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How samples become images and what they are compared with.

    ``name`` is a shipped protocol, which gives every field that is not written out; a field that differs from
    it makes a derived protocol, with a hash of its own. ``native`` promises nothing but what the suite says.

    Samples: ``resolution`` is the side in pixels that every generator and data set of a variant must have;
    ``quantise`` turns [-1, 1] into bytes by rounding or by cutting off; ``codec`` is what the images go
    through before they are judged, ``png`` (lossless) or ``jpeg-75`` (Pillow's JPEG of that quality). The
    store keeps samples without loss, so that one run can be judged under several codecs.

    Prompts: ``caption`` takes each image's first caption, one at random (by ``caption_seed`` and the image's
    id), all, or those of the manifest file ``prompts`` with the hash ``prompts_sha256``. ``num_samples`` is
    how many samples the protocol asks for (null: as many as the suite says).

    Reference: the first ``num_reference`` images of ``reference_split`` (``reference: split``), or those
    whose captions are the prompts (``prompts``); ``reference_codec`` is what they are stored as once resized.

    Geometry of both sets: ``crop`` to the central square, its corner rounded down (``centre``) or to the
    nearest, halves to even, as torchvision does (``centre-round``), or ``none``; then Pillow's antialiased
    ``resize_filter`` to ``eval_size`` pixels (null: ``resolution``).

    Extractor of FID's features: its name, and how it resizes to 299 pixels and scales bytes; null leaves all
    of it to the judge. ``tensorflow`` is (x - 128) / 128, ``symmetric`` is x / 127.5 - 1. ``moments`` is the
    precision of mean and covariance, which is divided by n - ``ddof``.
    """

    name: Literal[NAMES] = "native"  # type: ignore[valid-type]
    resolution: Positive = 32
    quantise: Literal["round", "floor"] = "round"
    codec: Codec = "png"
    caption: CaptionChoice = "first"
    caption_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    prompts: str | None = None
    prompts_sha256: Sha256 | None = None
    num_samples: Positive | None = None
    reference_split: str = "val"
    reference: Literal["split", "prompts"] = "split"
    num_reference: Positive = 2000
    reference_codec: Codec = "png"
    crop: Crop = "centre"
    resize_filter: Filter = "bicubic"
    eval_size: Positive | None = None
    extractor: str | None = None
    extractor_sha256: Sha256 | None = None
    extractor_resize: ExtractorResize | None = None
    extractor_scale: ExtractorScale | None = None
    moments: Literal["float64", "float32"] = "float64"
    ddof: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        if self.prompts is not None and self.caption != "file":
            raise SuiteError(f"caption is '{self.caption}', and prompts names a file: set caption: file.")
        if self.prompts is not None and self.prompts_sha256 is None:
            raise SuiteError(
                "prompts needs prompts_sha256, the hash of the manifest file; tr0n-bench manifest prints it, "
                "and so does sha256sum."
            )
        if self.caption_seed and self.caption != "random":
            raise SuiteError(f"caption_seed goes with caption: random, found caption: {self.caption}.")

    @property
    def size(self) -> int:
        """The side in pixels of the images that judges get."""
        return self.eval_size or self.resolution

    @property
    def content(self) -> dict[str, Any]:
        """The fields that scores depend on, as plain data. ``eval_size`` is settled, as it is what judges
        get; the generator's own resolution then says nothing more."""
        plain = {key: value for key, value in asdict(self).items() if key not in _NOT_CONTENT}
        del plain["resolution"]
        return {**plain, "eval_size": self.size}

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of :attr:`content`."""
        return content_sha256(self.content)

    @property
    def changes(self) -> dict[str, Any]:
        """Fields in which this differs from the shipped protocol of its name; none for ``native``."""
        if self.name == "native":
            return {}
        # A protocol that leaves the images' size open is the same at any.
        base = Protocol(**{**SHIPPED[self.name], "resolution": self.resolution}).content
        return {key: value for key, value in self.content.items() if value != base[key]}

    @property
    def title(self) -> str:
        """The shipped name, and what was changed: ``tr0n-2023 (codec png)``."""
        return title(self.name, self.changes)


def title(name: str, changes: Mapping[str, Any]) -> str:
    """A protocol's name with its changes, long hashes cut."""
    if not changes:
        return name
    shown = (f"{key} {_shown(value)}" for key, value in changes.items())
    return f"{name} ({', '.join(shown)})"


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def content_sha256(content: Any) -> str:
    """Hex SHA-256 of plain data in canonical JSON."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def field_names() -> list[str]:
    """The names of a protocol's fields."""
    return [item.name for item in fields(Protocol)]


def with_base(block: Mapping[str, Any]) -> dict[str, Any]:
    """A suite's ``protocol`` block with what the shipped protocol of its name gives where it is silent."""
    name = block.get("name", "native")
    base = SHIPPED.get(name, {}) if isinstance(name, str) else {}
    return {**base, **block}
