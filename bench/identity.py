"""What determines each artifact, as plain data; its content key is the hash of that.

In a key: components' configuration and algorithm versions, weights' and data's SHA-256, and the keys of what
an artifact is made from. Not in a key: paths, batch sizes, the number of samples, devices, times.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.assets.missing import Published, missing_asset
from bench.components import CODE_KINDS, resolve_path
from bench.errors import WeightError
from bench.keys import content_key
from bench.plan import Cell
from bench.protocols import Protocol
from bench.suite import Named, Suite
from bench.suite.blocks import as_before
from bench.suite.nested import Nested, nested_in
from bench.types import Condition

# Raise one when the making of that kind of artifact changes its content.
VERSIONS = {
    "pairs": 2,
    "translator": 2,
    "samples": 1,
    "snapshots": 1,
    "readout": 1,
    "reference": 1,
    "score": 5,  # 2: with intervals; 4: with pairs of groups left out; 5: the bias stays for prompts
}
# Of a component's fields: where a file lies and how much is done at once, but not what comes out.
_NOT_CONTENT = ("weights", "sha256", "batch_size", "trust")
# What of a folder does not change what is computed with it.
_NOT_IN_FOLDERS = re.compile(r"(^|/)(\..*|__pycache__|.*\.(md|png|jpe?g|gif|pyc))(/|$)", re.IGNORECASE)
_CODE = (".py", ".cpp", ".cu", ".cuh", ".h")
# What of a TR0N translator's configuration its pairs depend on; other kinds' pairs depend on all of it.
_PAIR_FIELDS = {"tr0n": ("kind", "route", "captioner", "pair_batch", "held_out", "seed")}
_NOT_TRAINING = ("num_pairs",)  # in the translator's key by itself


@dataclass(frozen=True)
class Identity:
    """``kind`` of artifact and the plain ``inputs`` that determine it."""

    kind: str
    inputs: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The artifact's content key, 16 hex characters."""
        return content_key({"kind": self.kind, "version": VERSIONS[self.kind], "inputs": self.inputs})

    @property
    def header(self) -> dict[str, Any]:
        """The inputs as stored with the artifact."""
        return {"version": VERSIONS[self.kind], **self.inputs}


@lru_cache(maxsize=4096)
def _sha256_of(path: str, size: int, modified_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path, published: Published | None = None) -> str:
    """Hex SHA-256 of a file, or of a folder's files; each is read once per process while size and time of
    change stay.

    Raises WeightError where it is missing, with what is known of the ``published`` file that belongs there.
    """
    if path.is_dir():
        return _folder_hash(path, code=published is not None and published.code)
    if not path.is_file():
        if published is not None:
            raise missing_asset(published, path)
        raise WeightError(
            f"weight file '{path}' is missing. Correct 'weights' in the suite or put the file there."
        )
    stat = path.stat()
    return _sha256_of(str(path), stat.st_size, stat.st_mtime_ns)


def _folder_hash(folder: Path, *, code: bool) -> str:
    """Hex SHA-256 over the names and contents of a folder's files but hidden ones, pictures and the like; of
    a checkout (``code``) over its source files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if code and path.suffix not in _CODE:
            continue
        if not _NOT_IN_FOLDERS.search(name) and path.is_file():
            digest.update(f"{name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def weight_hashes(config: Any) -> dict[str, str]:
    """Name of each weight file that a component's configuration uses → sha256, nested ones included.

    Files of one name go by their paths. Zoo models answer from their cards; a file of the user's own is
    read. Raises WeightError if missing.
    """
    found = _weight_files(config)
    names = Counter(Path(path).name for path in {path for path, _ in found})
    return {path if names[Path(path).name] > 1 else Path(path).name: sha256 for path, sha256 in found}


def _weight_files(config: Any) -> list[tuple[str, str]]:
    """(path or zoo name, sha256) of every weight file, this configuration's own first, those of components
    inside it last."""
    found = _own_weight_files(config)
    for item in nested_in(config):
        found += _weight_files(item.config)
    return found


def _own_weight_files(config: Any) -> list[tuple[str, str]]:
    from bench.zoo.weights import model_sha256

    if not is_dataclass(config):
        return []
    paths = {str(getattr(config, name, None) or ""): known for name, known in _files(config).items()}
    found = [(path, file_hash(Path(path), known)) for path, known in paths.items() if path]
    model = getattr(config, "model", None)
    if not found and isinstance(model, str) and not getattr(config, "assets", None):
        found.append((model, model_sha256(model)))
    for value in vars(config).values():
        found += _own_weight_files(value)
    return found


def _files(config: Any) -> Mapping[str, Published | None]:
    """Fields of a configuration that hold the path of a weight file → what is known of the public one.

    A component lists them as ``assets``; without that, ``weights`` is the one and ``model`` names the zoo's.
    """
    return getattr(config, "assets", {"weights": None})


def _content(value: Any, without: Iterable[str] = ()) -> Any:
    if isinstance(value, list):
        return [_content(item) for item in value]
    if isinstance(value, Mapping):
        names = {*_NOT_CONTENT, *without}
        return {key: _content(item) for key, item in value.items() if key not in names}
    return value


def component(named: Named[Any]) -> dict[str, Any]:
    """What of a component enters a key: fields that matter, weights, algorithm version, foreign source."""
    described = {
        "config": _content(_without_nested(as_before(named), named.config), _files(named.config)),
        "weights": sorted(sha256 for _, sha256 in _own_weight_files(named.config)),
        "version": getattr(type(named.config), "version", 1),
    }
    # One by one and in order: which file belongs to which component inside matters.
    if inside := [component(item.named) for item in nested_in(named.config)]:
        described["inside"] = inside
    if named.kind in CODE_KINDS:
        source = inspect.getsourcefile(inspect.unwrap(resolve_path(named.raw["target"])))
        described["source"] = file_hash(Path(source)) if source else None
    return described


def _without_nested(value: Any, config: Any) -> Any:
    """Plain data of a configuration without the blocks of components inside it, which are told apart."""
    if isinstance(config, tuple | list):
        return [_without_nested(item, part) for item, part in zip(value, config)]
    if not is_dataclass(config) or not isinstance(value, Mapping):
        return value
    return {
        name: _without_nested(item, getattr(config, name, None))
        for name, item in value.items()
        if not isinstance(getattr(config, name, None), Nested) and name not in _files(config)
    }


def pairs(suite: Suite, cell: Cell) -> Identity:
    """Synthetic pairs; pair i depends on (translator seed, i), so their number is not in the key."""
    named = suite.translators[str(cell.translator)]
    described = component(named)
    names = _PAIR_FIELDS.get(named.kind, tuple(described["config"]))
    described["config"] = {name: described["config"][name] for name in names if name in described["config"]}
    # Other kinds of set-up train on the energy itself, and depend on all of f.
    frozen = _frozen(suite, cell, pairing=named.kind in _PAIR_FIELDS)
    return Identity("pairs", {**frozen, "synthesis": described})


Asked = Callable[[], Sequence[Condition]]  # gives the conditions of a cell's samples, where they matter


def translator(suite: Suite, cell: Cell, asked: Asked | None = None) -> Identity:
    """What is trained before sampling; where it is trained per condition, the conditions belong to it."""
    named = suite.translators[str(cell.translator)]
    inputs = {
        "pairs": pairs(suite, cell).key,
        "num_pairs": named.config.num_pairs,
        "training": component(named),
        "batch_size": named.config.batch_size,  # which changes training, if nothing else
    }
    if getattr(named.config, "per_condition", False):
        if asked is None:
            raise ValueError(f"translator '{named.name}' is trained per condition, and none were given.")
        once = {condition.id: condition for condition in asked()}
        rows = [once[name] for name in sorted(once)]
        inputs["conditions"] = conditions_digest(rows, [0] * len(rows))
    return Identity("translator", inputs)


def _frozen(suite: Suite, cell: Cell, *, pairing: bool = False) -> dict[str, Any]:
    """G and f. Pairs need of f only what a translator reads (``pairing``): one that a wrapper is around."""
    conditioner = suite.conditioners[cell.conditioner]
    while pairing and (inner := getattr(conditioner.config, "pairing", None)) is not None:
        conditioner = inner
    return {"generator": component(suite.generators[cell.generator]), "conditioner": component(conditioner)}


def samples(suite: Suite, cell: Cell, asked: Asked | None = None) -> Identity:
    """A cell's samples. Each part of them is named by its span and its conditions and seeds."""
    return Identity(
        "samples",
        {
            **_frozen(suite, cell),
            "sampler": component(suite.samplers[cell.sampler]),
            "translator": translator(suite, cell, asked).key if cell.translator is not None else None,
            # Samples are stored as PNG whatever codec they are judged under.
            "protocol": {"resolution": suite.protocol.resolution, "codec": "png"}
            | _unless_default(suite, "quantise"),
            # Kernels round otherwise at another tile: the same samples to the eye, not to the bit.
            "tile": suite.samples.tile,
        },
    )


def _unless_default(suite: Suite, *names: str) -> dict[str, Any]:
    """Fields of the protocol that differ from their defaults, which are in no key."""
    default, own = asdict(Protocol()), asdict(suite.protocol)
    return {name: own[name] for name in names if own[name] != default[name]}


def snapshots(of: Identity, steps: Sequence[int]) -> Identity:
    """Images along the trajectory of samples."""
    return Identity("snapshots", {"samples": of.key, "steps": list(steps)})


def readout(suite: Suite, of: Identity, judge: Named[Any]) -> Identity:
    """What a judge sees in samples or snapshots."""
    presented = presentation(suite.protocol)
    return Identity(
        "readout",
        {"of": of.key, "judge": component(judge)} | ({"presented": presented} if presented else {}),
    )


def presentation(protocol: Protocol) -> dict[str, Any]:
    """What becomes of stored samples before a judge sees them; empty where nothing does."""
    found: dict[str, Any] = {}
    if protocol.codec != "png":
        found["codec"] = protocol.codec
    if protocol.size != protocol.resolution:
        found |= {"size": protocol.size, "resize_filter": protocol.resize_filter}
    return found


def reference(suite: Suite, data_sha256: str, judge: Named[Any], split: str | None = None) -> Identity:
    """What a judge sees in real images: those of the protocol's reference, or all of another split."""
    return Identity(
        "reference",
        {
            "data": data_sha256,
            "split": suite.protocol.reference_split if split is None else split,
            "resolution": suite.protocol.resolution,
            "judge": component(judge),
        }
        | (_reference_selection(suite) if split is None else _unless_default(suite, "reference_codec")),
    )


def _reference_selection(suite: Suite) -> dict[str, Any]:
    """Which images are the reference and how they are stored once resized; nothing where it is as it ever
    was. Crop and filter are in the data's hash."""
    found = _unless_default(suite, "reference", "reference_codec")
    if suite.protocol.reference == "prompts":
        found |= _unless_default(suite, "caption", "caption_seed", "prompts_sha256")
    return found


def score(metric: Named[Any], evidence: Mapping[str, Any]) -> Identity:
    """A metric's result; ``evidence`` names the keys and parts of all that it sees."""
    described = component(metric)
    described["config"] = {
        key: value for key, value in described["config"].items() if key not in ("judge", "data")
    }
    return Identity("score", {"metric": described, "evidence": dict(evidence)})


_PLAIN = json.JSONEncoder(sort_keys=True, ensure_ascii=True)


def conditions_digest(conditions: Sequence[Condition], seeds: Sequence[int]) -> str:
    """16 hex characters over what each sample is asked to show and its seed, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for condition, seed in zip(conditions, seeds, strict=True):
        row: list[Any] = [condition.id, condition.kind, condition.text, dict(condition.labels), seed]
        if condition.origin is not None:
            row.append(condition.origin)
        if condition.avoid:
            row.append({"avoid": dict(condition.avoid)})
        digest.update(_PLAIN.encode(row).encode() + b"\n")
    return digest.hexdigest()
