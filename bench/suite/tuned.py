"""``tuned: FILE``: sampler settings that `tr0n-bench tune` found, laid over the suite's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import nearest
from bench.suite.yaml import Document, read_yaml

KEY = "tuned"
DESCRIPTION = "A file of tr0n-bench tune, beside the suite: its samplers' settings take the place of these."


def apply_tuned(document: Document) -> None:
    """Takes the key out of the document and writes the file's settings into its samplers.

    The path is relative to the suite. Raises SuiteError for a file that cannot be read, a sampler that the
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
    content = read_yaml(path).data
    found = content.get("samplers") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise document.error((KEY,), f"'{path}' holds no 'samplers'. Write it with tr0n-bench tune.")
    samplers: Any = document.data.get("samplers") or {}
    for sampler, settings in found.items():
        own = samplers.get(sampler)
        if not isinstance(own, dict):
            raise document.error(
                (KEY,),
                f"'{path}' tunes sampler '{sampler}', which the suite lacks.{nearest(sampler, samplers)}",
            )
        if not isinstance(settings, dict) or settings.get("kind") != own.get("kind"):
            raise document.error(
                (KEY,), f"'{path}' tuned '{sampler}' as another kind than '{own.get('kind')}'. Tune again."
            )
        own.update(settings)
