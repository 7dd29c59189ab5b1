"""Image and interpolated conditions: embeddings, what is refused, and TR0N end to end on the shapes world."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial import geometric_slerp
from suite_examples import TOY, line_of, write

from bench import identity
from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.conditioners.clip import Clip
from bench.conditioners.wrapped import ImageCondition, Interpolated, slerp
from bench.conditions import image_conditions, interpolated_conditions, num_ends, text_conditions
from bench.errors import DataError, SuiteError
from bench.judges.clip import ClipJudge
from bench.plan import plan
from bench.recorded import read_suite
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite
from bench.suite.nested import NestedConditioner
from bench.verify import verify
from bench.worlds.shapes_source import Shapes

CPU = torch.device("cpu")
CLIP = {"kind": "clip", "views": 0}
SUITE = {
    "name": "kinds",
    "seed": 3,
    "data": {"shapes": {"kind": "shapes", "num_val": 60}},
    "generators": {"gan": {"kind": "gan", "model": "shapes-gan"}},
    "conditioners": {
        "text": CLIP,
        "image": {"kind": "image", "conditioner": CLIP},
        "between": {"kind": "interpolated", "conditioner": CLIP, "between": "images", "values": 3},
        "sentences": {"kind": "interpolated", "conditioner": CLIP, "between": "texts", "values": 3},
    },
    "translators": {
        "default": {
            "kind": "tr0n", "num_pairs": 1024, "hidden": 256, "steps": 250, "batch_size": 128,
            "learning_rate": 0.002, "likelihood_weight": 0.1, "initial_std": 0.5,
        }
    },
    "samplers": {
        "tr0n": {
            "kind": "tr0n", "steps": 15, "step_size": 0.3, "momentum": 0.9, "candidates": 16,
            "start": "sample",
        }
    },
    "judges": {
        "clip": {"kind": "clip"},
        "attributes": {"kind": "classifier", "model": "shapes-classifier-judge"},
    },
    "metrics": {
        "attributes": {"kind": "attribute-accuracy", "judge": "attributes"},
        "fid": {"kind": "fid", "judge": "attributes", "allow_small_n": True},
        "similarity": {"kind": "image-similarity", "judge": "clip"},
    },
    "protocol": {"num_reference": 60},
    "samples": {"num": 12, "tile": 6, "batch_size": 12},
    "variants": {
        "matrix": {
            "data": "shapes", "generator": "gan", "conditioner": ["image", "between", "sentences"],
            "sampler": "tr0n",
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return Shapes(num_val=60).load("val", tmp_path_factory.mktemp("shapes"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 1.0])
def test_slerp_of_unit_vectors_is_scipys(share):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    ours = slerp(torch.tensor(a)[None], torch.tensor(b)[None], torch.tensor([share]))[0]
    assert np.abs(ours.numpy() - geometric_slerp(a, b, np.float32(share))).max() < 1e-12


def test_slerp_keeps_ends_and_lengths_between_and_takes_parallel_vectors():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert torch.allclose(slerp(a, b, torch.tensor([0.0])), a)
    assert torch.allclose(slerp(a, b, torch.tensor([1.0])), b)
    half = math.sin(math.pi / 4)
    assert torch.allclose(slerp(a, b, torch.tensor([0.5])), torch.tensor([[3 * half, half]]))
    assert torch.allclose(slerp(a, 3 * a, torch.tensor([0.5])), 2 * a)


def test_an_image_condition_is_the_embedding_of_its_picture(shapes):
    conditions = image_conditions(shapes, 4)
    conditioner = ImageCondition(conditioner=NestedConditioner.of(CLIP)).load(CPU)
    found = conditioner.embed([*conditions, conditions[1]])
    x = torch.from_numpy(shapes.images(range(4))).float() / 127.5 - 1
    expected = Clip(views=0).load(CPU).encode(x, None)
    assert torch.allclose(found[:4], expected, atol=1e-5)
    assert torch.equal(found[1], found[4])
    assert conditions[0].labels == dict(shapes.attributes[0])
    assert len({c.origin for c in conditions}) == 4
    with pytest.raises(DataError, match="needs two images or prompts"):
        interpolated_conditions(conditions[:1], 1, 1)
    with pytest.raises(DataError, match="shows no picture"):
        conditioner.embed([type(conditions[0])(id="x", kind="image")])


def test_interpolated_conditions_pair_what_follows_one_another(shapes):
    conditions = interpolated_conditions(image_conditions(shapes, num_ends(7, 3)), 7, 3)
    assert [round(c.share, 3) for c in conditions] == [0.1, 0.5, 0.9, 0.1, 0.5, 0.9, 0.1]
    first, second = conditions[0].between, conditions[3].between
    assert [c.id for c in (*first, *second)] == [f"image:{i}" for i in shapes.ids[:4]]
    conditioner = Interpolated(conditioner=NestedConditioner.of(CLIP), values=3).load(CPU)
    ends = ImageCondition(conditioner=NestedConditioner.of(CLIP)).load(CPU).embed(list(first))
    shares = torch.tensor([0.1, 0.5, 0.9])
    found = conditioner.embed(conditions[:3])
    assert torch.allclose(found, slerp(ends[:1].expand(3, -1), ends[1:].expand(3, -1), shares), atol=1e-5)
    texts = interpolated_conditions(text_conditions(shapes, num_ends(2, 1)), 2, 1)
    assert [c.share for c in texts] == [0.5, 0.5]
    inner = Clip(views=0).load(CPU)
    a, b = (inner.embed_texts([c.text]) for c in texts[0].between)
    assert torch.allclose(conditioner.embed(texts[:1]), slerp(a, b, torch.tensor([0.5])), atol=1e-5)


def test_unfit_combinations_are_refused_with_their_line(tmp_path):
    inner = "{kind: classifier, model: digits-classifier-guide}"
    wrong = TOY.replace("text: {kind: clip}", f"like: {{kind: image, conditioner: {inner}}}")
    with pytest.raises(SuiteError, match=rf"toy.yaml:{line_of(wrong, 'like:')}: .*does not embed pictures"):
        load_suite(write(tmp_path, wrong))
    wrong = TOY.replace("text: {kind: clip}", "like: {kind: image, conditioner: {kind: clip, view: 3}}")
    with pytest.raises(SuiteError, match=r"view: unknown field of kind 'clip'. Did you mean 'views'"):
        load_suite(write(tmp_path, wrong))
    between = "between: {kind: interpolated, between: texts, conditioner: {kind: clip}}"
    wrong = TOY.replace("text: {kind: clip}", between).replace("conditioner: near", "conditioner: between")
    with pytest.raises(SuiteError, match="no captions to interpolate between"):
        load_suite(write(tmp_path, wrong.replace("generator: [linear, stripes]", "generator: linear")))


def test_pairs_and_translator_are_shared_with_the_conditioner_inside(tmp_path):
    both = {**SUITE["variants"]["matrix"], "conditioner": ["text", "image", "between"]}
    path = write(tmp_path, yaml.safe_dump({**SUITE, "variants": {"matrix": both}}))
    suite = load_suite(path)
    cells = plan(suite).cells
    assert [cell.condition_kind for cell in cells] == ["text", "image", "interpolated"]
    assert len({identity.translator(suite, cell).key for cell in cells}) == 1
    assert len({identity.samples(suite, cell).key for cell in cells}) == 3
    again = load_suite(write(tmp_path, suite.to_yaml(), "again.yaml"))
    assert again == suite


def test_a_run_whose_code_is_inside_another_component_is_not_built(tmp_path):
    results = RunStore(tmp_path)
    block = {"kind": "image", "conditioner": {"kind": "python", "target": "os:getcwd"}}
    results.write_run({"suite": {"conditioners": {"mine": block}}})
    with pytest.raises(Exception, match=r"names code of its own \(conditioners.mine\)"):
        read_suite(results, python=False)


def test_tr0n_follows_references_and_what_lies_between_them(tmp_path):
    suite = load_suite(write(tmp_path, yaml.safe_dump(SUITE)))
    out, url = tmp_path / "run", str(tmp_path / "store")
    summary = run(suite, out, "cpu", store_url=url)
    assert (summary.num_failed, summary.made["translator"]) == (0, 1)
    results, cells = RunStore(out), plan(suite).cells
    image, between, sentences = [
        {s.metric: s.value for s in results.read_record(cell.id).scores} for cell in cells
    ]
    assert image["shape-and-color-accuracy"] >= 0.5  # one in 48 by chance
    assert not {"attribute-accuracy", "image-similarity"} & between.keys()
    assert "fid" in between
    assert "fid" in sentences
    data = Assembly(suite, CPU).images("shapes")
    judge = ClipJudge().load(CPU)
    shown = judge.readout(data.images(range(12))).image_embedding
    seen = judge.readout(results.read_images(cells[0].id)).image_embedding
    assert image["image-similarity"] == pytest.approx(float((shown * seen).sum(1).mean()), abs=1e-5)
    assert image["image-similarity"] > float((np.roll(shown, 1, 0) * seen).sum(1).mean()) + 0.1
    references = shown[:8]
    drawn = judge.readout(results.read_images(cells[1].id)).image_embedding
    table = results.read_samples(cells[1].id)
    near = {share: [] for share in (0.1, 0.5, 0.9)}
    for i, origin in enumerate(table["origin"]):
        share, pair = round(json.loads(origin)[2], 3), i // 3
        near[share].append(drawn[i] @ references[2 * pair + 1] - drawn[i] @ references[2 * pair])
    assert np.mean(near[0.1]) < 0 < np.mean(near[0.9])
    verdicts = verify(out, open_store(url))
    assert [fault for verdict in verdicts for fault in verdict.faults] == []
