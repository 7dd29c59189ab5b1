"""The contract of every listed component, and one added from outside the package."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from suite_examples import TOY, write

from bench.components import MEMBERS, TABLES, component_class, missing_members, resolve_path, summary
from bench.errors import SuiteError
from bench.samplers.base import Problem
from bench.samplers.draw import draw
from bench.streams import Streams
from bench.suite import load_suite
from bench.suite.blocks import build_component, field_names
from bench.suite.schema import suite_schema
from bench.suite.yaml import Document
from bench.types import Condition

LISTED = [(table, kind) for table, entries in TABLES.items() for kind in entries]
# Values for fields without a default.
REQUIRED = {
    "root": "/data/coco",
    "weights": "/models/inception.pth",
    "judge": "one",
    "clip": {"pretrained": "openai", "weights": "clip.safetensors"},
    "config": "open_clip_config.json",
    "folder": "/models/folder",
    "terms": [{"conditioner": {"kind": "clip"}}],
    "model": "resnet18",
    "conditioner": {"kind": "clip"},
    "repo": "/repos/code",
    "target": "torch.nn:Identity",
    "latent": [{"dim": 4}],
    "resolution": 64,
}
# Fields with a default that needs another field beside it.
BESIDE = {
    **{kind: {"pretrained": "openai"} for kind in ("open-clip", "aug-open-clip")},
    "composition": {"terms": [{"text": "{text}"}]},
    "diffusion": {"weights": "/models/ddpm"},
}


@pytest.mark.parametrize(("table", "kind"), LISTED)
def test_every_listed_component_keeps_its_contract(table, kind):
    cls = component_class(table, kind)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert summary(cls), "a component says what it is in its first line"
    assert summary(cls) != summary(dataclasses.make_dataclass(cls.__name__, ["x"]))
    assert "kind" not in field_names(cls)
    assert table != "metrics" or "data" not in field_names(cls)

    missing = dataclasses.MISSING
    needed = [
        f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing
    ]
    block = {"kind": kind, **{name: REQUIRED[name] for name in needed}, **BESIDE.get(kind, {})}
    named = build_component(Document({}, "f"), table, "mine", block)
    assert missing_members(table, named.config) == []
    again = build_component(Document({}, "f"), table, "mine", json.loads(json.dumps(named.raw)))
    assert again == named
    assert again.config == named.config
    hash(named.config)


@pytest.mark.parametrize(("table", "kind"), LISTED)
def test_the_schema_knows_exactly_the_fields_of_every_component(table, kind):
    schema = suite_schema()
    entry = schema["$defs"][f"{table}-{kind}"]
    extra = ["data"] if table == "metrics" else []
    assert sorted(entry["properties"]) == sorted(["kind", *field_names(component_class(table, kind)), *extra])
    assert entry["properties"]["kind"] == {"const": kind}
    assert entry["additionalProperties"] is False
    assert entry["description"].startswith(summary(component_class(table, kind)).replace("``", "'")[:20])
    choices = schema["properties"][table]["additionalProperties"]
    assert kind in choices["properties"]["kind"]["enum"]


def test_tables_and_members_cover_the_same_rooms():
    assert set(MEMBERS) == set(TABLES)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("bench.types", "is not an import path"),
        (":x", "is not an import path"),
        ("bench.nowhere:x", "cannot import 'bench.nowhere'"),
        ("bench.types:Scores", "module 'bench.types' has no 'Scores'. Did you mean 'Score'?"),
    ],
)
def test_paths_that_lead_nowhere(target, says):
    with pytest.raises(SuiteError, match=re.escape(says)):
        resolve_path(target)


def test_a_generator_from_outside_the_package(tmp_path):
    text = TOY.replace(
        "kind: python\n    target: my_pkg.my_module:build", "kind: {kind}\n    target: {target}"
    )
    for target in ("my_pkg.my_module:build", "my_pkg.my_module:Stripes"):
        filled = text.replace("{kind}", "python").replace("{target}", target)
        suite = load_suite(write(tmp_path, filled))
        generator = suite.generators["stripes"].config.load(torch.device("cpu"))
        conditioner = suite.conditioners["near"].config.load(torch.device("cpu"))
        streams = Streams.from_seed(6, "outside")
        conditions = [Condition(id=str(i), kind="class", labels={"target": str(i % 5)}) for i in range(6)]

        def energy(sampler: str) -> float:
            problem = Problem(generator, conditioner, conditioner.embed(conditions), streams)  # noqa: B023
            images = draw(suite.samplers[sampler].config, problem).images  # noqa: B023
            assert images.shape == (6, 3, 8, 8)
            assert images.abs().max() <= 0.5  # the contrast that the suite asked for
            assert torch.equal(images[:, :, 0], images[:, :, -1])  # stripes
            return float(problem.image_energy(images, 0).mean())

        assert energy("langevin") < energy("prior")


def test_the_guide_shows_code_that_works(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "bench" / "docs" / "adding-a-component.md").read_text(
        encoding="utf-8"
    )
    assert len(text.splitlines()) <= 100, "two screens"
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "guide_component.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    block = {"kind": "python", "target": "guide_component:Stripes", "args": {"resolution": 16}}
    config = build_component(Document({}, "f"), "generators", "mine", block).config
    generator = config.load(torch.device("cpu"))
    images = generator.decode(generator.latent.prior(Streams.from_seed(2, "guide")))
    assert images.shape == (2, 3, 16, 16)
    for table, entries in TABLES.items():
        room = {"data": "SOURCES"}.get(table, table.upper())
        assert f"`{room}`" in text, entries
        row = next(line for line in text.splitlines() if line.startswith(f"| `{room}`"))
        assert all(member in row for member in MEMBERS[table]), row
