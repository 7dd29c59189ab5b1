"""The lock file: every asset that the harness knows, with its address, hash, size and license.

``assets.yaml`` maps a name to the fields of :class:`Asset`, in the order in which they are listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.assets import AssetError
from bench.errors import nearest

LOCK = Path(__file__).parent / "assets.yaml"

ALLOWED = {
    "name": "lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit",
    "url": "an https:// address with a host and without user, password, fragment and spaces",
    "sha256": "64 hex digits in lower case, or null",
    "sha256_prefix": "the first 8 to 63 hex digits of sha256, in lower case, or null",
    "bytes": "a whole number from 1, or null",
    "file": "a file name of letters, digits, '.', '_' and '-', beginning with a letter or digit",
    "license": "one line of text",
    "what": "one line of text",
}


def _https(url: str) -> str:
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and not re.search(r"[\s#@]", url)
    if parts.scheme != "https" or not parts.hostname or parts.port == 0 or not plain:
        raise ValueError(ALLOWED["url"])
    return url


Line = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]


class Asset(BaseModel):
    """One public file. ``sha256`` and ``bytes`` are None where unknown.

    ``sha256_prefix`` is what the publisher states in a file name. It is compared too, but eight digits
    can be forged, so it does not stand in for ``sha256``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    url: Annotated[str, AfterValidator(_https)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,63}$")] | None = None
    bytes: Annotated[int, Field(ge=1)] | None
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
    license: Line
    what: Line

    @model_validator(mode="after")
    def _prefix_fits(self) -> Asset:
        if self.sha256 and self.sha256_prefix and not self.sha256.startswith(self.sha256_prefix):
            raise ValueError("sha256 does not begin with sha256_prefix")
        return self


def load_lock(path: Path | None = None) -> dict[str, Asset]:
    """Name → asset of a lock file, the package's own by default.

    Raises AssetError naming the file, the asset and the key.
    """
    path = path or LOCK
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated_keys(path, yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AssetError(f"lock file '{path}' cannot be read: {error}. Restore or correct it.") from error
    if not isinstance(content, dict):
        raise AssetError(f"lock file '{path}' holds {_kind(content)}, expected a mapping of names to assets.")
    assets: dict[str, Asset] = {}
    files: dict[str, str] = {}
    for name, fields in content.items():
        asset = _asset(path, name, fields)
        # two assets of one file would overwrite each other, in any case on some file systems
        other = files.setdefault(asset.file.lower(), asset.name)
        if other != asset.name:
            raise AssetError(
                f"{path}: {name}: file: '{asset.file}' is also the file of '{other}'. Use another name."
            )
        assets[asset.name] = asset
    return assets


def find_asset(name: str, assets: Mapping[str, Asset] | None = None) -> Asset:
    """The asset of that name. Raises AssetError naming the nearest one."""
    assets = load_lock() if assets is None else assets
    if name not in assets:
        raise AssetError(
            f"there is no asset '{name}'.{nearest(name, assets)} Known: {', '.join(assets) or 'none'}."
        )
    return assets[name]


def _asset(path: Path, name: Any, fields: Any) -> Asset:
    if not isinstance(fields, dict):
        raise AssetError(f"{path}: {name}: found {_kind(fields)}, expected a mapping of an asset's fields.")
    allowed = [key for key in Asset.model_fields if key != "name"]
    for key in fields:
        if key not in allowed:
            raise AssetError(
                f"{path}: {name}: unknown key '{key}'.{nearest(key, allowed)} Allowed: {', '.join(allowed)}."
            )
    try:
        return Asset.model_validate({"name": name, **fields})
    except ValidationError as error:
        first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else "sha256_prefix"
    if first["type"] == "missing":
        raise AssetError(f"{path}: {name}: the key '{key}' is missing. It takes {ALLOWED[key]}.")
    found = {"name": name, **fields}[key]
    raise AssetError(f"{path}: {name}: {key}: found {found!r}, allowed: {ALLOWED[key]}.")


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    """PyYAML keeps the last of two equal keys in silence: the wrong hash might win."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if key.value in seen:
            raise AssetError(f"{path}:{key.start_mark.line + 1}: the key '{key.value}' is there twice.")
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        _refuse_repeated_keys(path, value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
