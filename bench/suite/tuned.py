"""``tuned: FILE``: settings that `tr0n-bench tune` found, laid over the suite's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import SuiteError, nearest
from bench.suite.yaml import Document, read_yaml

KEY = "tuned"
SECTIONS = ("samplers", "translators")
DESCRIPTION = (
    "A file of tr0n-bench tune, beside the suite: its settings of samplers and translators take the place "
    "of these."
)
_SINGULAR = {"samplers": "sampler", "translators": "translator"}


def read_tuned(path: Path) -> dict[str, Any]:
    """The content of a file that tune wrote. Raises SuiteError where it holds no settings."""
    content = read_yaml(path).data
    if not isinstance(content, dict) or not any(isinstance(content.get(name), dict) for name in SECTIONS):
        raise SuiteError(f"'{path}' holds no 'samplers' and no 'translators'. Write it with tr0n-bench tune.")
    return content


def apply_tuned(document: Document) -> None:
    """Takes the key out of the document and writes the file's settings into its samplers and translators.

    The path is relative to the suite. Raises SuiteError for a file that cannot be read, a component that the
    suite does not have or has under another kind.
    """
    if KEY not in document.data:
        return
    name = document.data.pop(KEY)
    if name is None:
        return
    if not isinstance(name, str):
        raise document.error((KEY,), f"takes the path of a file that tr0n-bench tune wrote, found {name!r}.")
    path = Path(document.source).parent / name
    try:
        content = read_tuned(path)
    except SuiteError as error:
        raise document.error((KEY,), str(error)) from None
    for section in SECTIONS:
        _apply(document, path, section, content.get(section) or {})


def _apply(document: Document, path: Path, section: str, found: Any) -> None:
    components: Any = document.data.get(section) or {}
    what = _SINGULAR[section]
    if not isinstance(found, dict):
        raise document.error((KEY,), f"'{path}': '{section}' must map names to settings. Tune again.")
    for name, settings in found.items():
        own = components.get(name)
        if not isinstance(own, dict):
            raise document.error(
                (KEY,),
                f"'{path}' tunes {what} '{name}', which the suite lacks.{nearest(name, components)}",
            )
        if not isinstance(settings, dict) or settings.get("kind") != own.get("kind"):
            raise document.error(
                (KEY,), f"'{path}' tuned '{name}' as another kind than '{own.get('kind')}'. Tune again."
            )
        own.update(settings)
