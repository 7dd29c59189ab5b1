"""Rewards from files in the published formats, and sums of several terms."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import yaml
from auxiliary_files import open_clip_of, save_safetensors, tiny_clip_config, tiny_clip_folder
from suite_examples import TOY, line_of, write
from torch import nn
from torch.nn import functional as F

from bench import identity
from bench.auxiliaries.clip_files import ClipFiles
from bench.conditioners.aesthetic import Aesthetic
from bench.conditioners.clip import Clip
from bench.conditioners.preference import HpsV2, ImageReward, ImageRewardConditioner, PickScore
from bench.conditioners.sum import Sum, Term
from bench.errors import BenchError, SuiteError, WeightError
from bench.identity import weight_hashes
from bench.plan import plan
from bench.runner import run
from bench.samplers.base import Problem
from bench.store import RunStore
from bench.streams import Streams
from bench.suite import load_suite
from bench.suite.nested import NestedConditioner
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition

ensure_torchvision()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(fields of a CLIP, open_clip's own model)."""
    folder = tmp_path_factory.mktemp("clip")
    config = tiny_clip_config(folder)
    model = open_clip_of(config)
    return {
        "config": str(config),
        "weights": str(save_safetensors(model, folder / "clip.safetensors")),
    }, model


def images(num: int = 3, side: int = 32) -> torch.Tensor:
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def texts(*prompts: str) -> list[Condition]:
    return [Condition(id=f"text:{i}", kind="text", text=text) for i, text in enumerate(prompts)]


def normalised(x: torch.Tensor) -> torch.Tensor:
    from auxiliary_files import OPENAI_MEAN, OPENAI_STD

    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    return ((x + 1) / 2 - mean) / std


def published_mlp(dim: int) -> nn.Sequential:
    """The aesthetic MLP as published: keys layers.0, layers.2, layers.4, layers.6, layers.7."""
    return nn.Sequential(
        nn.Linear(dim, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
        nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["linear", "mlp"])
def test_the_aesthetic_score_is_the_published_head_on_the_unit_embedding(form, clip, tmp_path):
    fields, model = clip
    torch.manual_seed(3)
    head = nn.Linear(16, 1) if form == "linear" else published_mlp(16).eval()
    state = (
        head.state_dict() if form == "linear" else {f"layers.{k}": v for k, v in head.state_dict().items()}
    )
    torch.save(state, tmp_path / "head.pth")
    aesthetic = Aesthetic(clip=ClipFiles(**fields), weights=str(tmp_path / "head.pth")).load(CPU)
    x = images().requires_grad_()
    with torch.no_grad():
        expected = head(F.normalize(model.encode_image(normalised(x)), dim=1))[:, 0]
    condition = aesthetic.embed(texts("a", "b", "c"))
    assert condition.shape == (3, 0)
    energy = aesthetic.energy(x, condition, Streams.from_seed(3, "e"), 0)
    assert torch.allclose(energy, -expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(energy[1], x)
    assert float(gradient[1].abs().max()) > 0
    assert float(gradient[[0, 2]].abs().max()) == 0


def test_aesthetic_heads_that_do_not_fit_are_named(clip, tmp_path):
    path = tmp_path / "head.pth"
    aesthetic = Aesthetic(clip=ClipFiles(**clip[0]), weights=str(path))
    with pytest.raises(WeightError, match=r"head of the LAION aesthetic score.*improved-aesthetic-predictor"):
        weight_hashes(aesthetic)
    torch.save(nn.Linear(768, 1).state_dict(), path)
    with pytest.raises(WeightError, match=r"'weight' has shape \(1, 768\), expected \(1, 16\)"):
        aesthetic.load(CPU)
    torch.save({f"layers.{k}": v for k, v in published_mlp(16).state_dict().items() if k != "7.bias"}, path)
    with pytest.raises(WeightError, match=r"missing key 'layers\.7\.bias'"):
        aesthetic.load(CPU)


def test_pickscore_is_transformers_own_logit(tmp_path):
    from transformers import AutoTokenizer, CLIPModel

    folder = tiny_clip_folder(tmp_path / "pickscore")
    reward = PickScore(folder=str(folder)).load(CPU)
    prompts = ["a red circle", "a blue star", "star " * 40]
    tokens = AutoTokenizer.from_pretrained(folder)(
        prompts, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(folder)(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=normalised(images()),
        ).logits_per_image.diagonal()
    x = images().requires_grad_()
    condition = reward.embed(texts(*prompts))
    energy = reward.energy(x, condition, Streams.from_seed(3, "e"), 0)
    assert torch.allclose(energy, -expected, atol=1e-4)
    (gradient,) = torch.autograd.grad(energy[0], x)
    assert float(gradient[0].abs().max()) > 0
    assert float(gradient[1:].abs().max()) == 0
    assert torch.equal(reward.embed(texts(prompts[1]))[0], condition[1])
    with pytest.raises(WeightError, match=r"PickScore, a CLIP in transformers' layout.*PickScore_v1"):
        PickScore(folder=str(tmp_path / "gone")).load(CPU)


def test_hpsv2_is_the_cosine_of_the_checkpoint(clip, tmp_path):
    fields, model = clip
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "HPS_v2_compressed.pt")
    weights = str(tmp_path / "HPS_v2_compressed.pt")
    reward = HpsV2(weights=weights, config=fields["config"]).load(CPU)
    import open_clip

    with torch.no_grad():
        image = model.encode_image(normalised(images()), normalize=True)
        text = model.encode_text(open_clip.SimpleTokenizer()(["a dog", "a cat", "a tree"]), normalize=True)
    energy = reward.energy(images(), reward.embed(texts("a dog", "a cat", "a tree")), None, 0)
    assert torch.allclose(energy, -(image * text).sum(1), atol=1e-6)
    with pytest.raises(WeightError, match=r"HPSv2's fine-tuned CLIP.*xswu/HPSv2"):
        HpsV2(weights=str(tmp_path / "gone.pt")).load(CPU)


def test_image_reward_needs_its_package_and_names_the_extra(tmp_path, monkeypatch):
    config = ImageReward(weights=str(tmp_path / "ImageReward.pt"), config=str(tmp_path / "med_config.json"))
    monkeypatch.setitem(sys.modules, "ImageReward", None)
    with pytest.raises(BenchError, match=r"pip install 'tr0n-bench\[image-reward\]'"):
        config.load(CPU)


def test_image_reward_standardises_the_first_token_s_value():
    """The package's parts by their shapes: what they compute is the package's."""
    torch.manual_seed(0)
    vision, text, head = nn.Conv2d(3, 8, 32, 32), nn.Embedding(50, 8), nn.Linear(8, 1)

    def tokenizer(prompts, **options):
        assert options["max_length"] == 35
        ids = torch.tensor([[2 + len(p), 1] + [0] * 33 for p in prompts])
        return types.SimpleNamespace(input_ids=ids, attention_mask=(ids > 0).long())

    def text_encoder(ids, attention_mask, encoder_hidden_states, encoder_attention_mask, return_dict):
        seen = encoder_hidden_states.mean(1, keepdim=True)
        assert encoder_attention_mask.shape == encoder_hidden_states.shape[:-1]
        return types.SimpleNamespace(last_hidden_state=text(ids) * attention_mask[..., None] + seen)

    blip = types.SimpleNamespace(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        visual_encoder=lambda x: vision(x).flatten(2).transpose(1, 2),
    )
    reward = ImageRewardConditioner(types.SimpleNamespace(blip=blip, mlp=head), CPU)
    x = images(2, 224)
    energy = reward.energy(x, reward.embed(texts("ab", "abc")), None, 0)
    seen = vision(normalised(x)).flatten(2).mean(2)
    raw = head(text(torch.tensor([4, 5])) + seen)[:, 0]
    assert torch.allclose(energy, -(raw - 0.16717362830052426) / 1.0333394966054072, atol=1e-5)


def sum_of(clip_fields, head, weight=0.1):
    clip = {"kind": "open-clip", "views": 2, **clip_fields}
    aesthetic = {"kind": "aesthetic", "clip": clip_fields, "weights": head}
    return Sum(
        terms=(
            Term(conditioner=NestedConditioner.of(clip)),
            Term(conditioner=NestedConditioner.of(aesthetic), weight=weight),
        )
    )


@pytest.fixture
def head(tmp_path):
    torch.manual_seed(5)
    torch.save(nn.Linear(16, 1).state_dict(), tmp_path / "head.pth")
    return str(tmp_path / "head.pth")


class Plain:
    """A generator whose latent is the image."""

    resolution = 32

    def decode(self, z_ND):
        return z_ND.view(-1, 3, 32, 32)


def test_a_sum_weighs_its_terms_and_counts_each(clip, head):
    config = sum_of(clip[0], head, weight=0.3)
    guide = config.load(CPU)
    conditions, streams = texts("a dog", "a cat", "a tree"), Streams.from_seed(3, "sum")
    condition = guide.embed(conditions)
    parts = [part for _, _, part in guide.parts]
    expected = parts[0].energy(images(), parts[0].embed(conditions), streams, 4)
    expected = expected + 0.3 * parts[1].energy(images(), parts[1].embed(conditions), streams, 4)
    assert torch.allclose(guide.energy(images(), condition, streams, 4), expected, atol=1e-6)
    assert (guide.dim, guide.views, config.views, config.kind) == (16, 3, 3, "text")
    problem = Problem(Plain(), guide, condition, streams, padding=1)
    z = images().flatten(1).requires_grad_()
    problem.gradients(problem.energy(z, 0), [z])
    counts = problem.evaluations
    assert counts["auxiliary_forwards"] == counts["auxiliary_backwards"] == 6
    assert counts["auxiliary_forwards/open-clip"] == counts["auxiliary_backwards/open-clip"] == 4
    assert counts["auxiliary_forwards/aesthetic"] == 2
    assert torch.equal(guide.encode(images(), streams), parts[0].encode(images(), streams))


SUITE = {
    "name": "sums",
    "data": {"shapes": {"kind": "shapes", "num_val": 6}},
    "generators": {"gan": {"kind": "gan"}},
    "translators": {"default": {"kind": "tr0n", "num_pairs": 32, "pair_batch": 32, "hidden": 8, "steps": 2}},
    "samplers": {"tr0n": {"kind": "tr0n", "steps": 2}},
    "metrics": {"speed": {"kind": "speed"}},
    "samples": {"num": 3, "tile": 3},
    "variants": {
        "matrix": {"data": "shapes", "generator": "gan", "conditioner": ["plain", "sum"], "sampler": "tr0n"}
    },
}


def test_a_sum_shares_pairs_with_its_first_term_and_runs_through_tr0n(clip, head, tmp_path):
    plain = {"kind": "open-clip", "views": 2, **clip[0]}
    aesthetic = {"kind": "aesthetic", "clip": clip[0], "weights": head}
    terms = [{"conditioner": plain}, {"conditioner": aesthetic, "weight": 0.1}]
    conditioners = {"plain": plain, "sum": {"kind": "sum", "terms": terms}}
    suite = load_suite(write(tmp_path, yaml.safe_dump({**SUITE, "conditioners": conditioners})))
    cells = plan(suite).cells
    assert identity.translator(suite, cells[0]).key == identity.translator(suite, cells[1]).key
    assert identity.samples(suite, cells[0]).key != identity.samples(suite, cells[1]).key
    summary = run(suite, tmp_path / "run", "cpu", store_url=str(tmp_path / "store"))
    assert (summary.num_failed, summary.made["translator"]) == (0, 1)
    record = RunStore(tmp_path / "run").read_record(cells[1].id)
    assert record.timing.evaluations["auxiliary_backwards/open-clip"] == 3 * 2 * 2
    assert record.timing.evaluations["auxiliary_backwards/aesthetic"] == 3 * 2
    noted = {"quick_gelu": True, "pretrained": None}
    assert record.notes == {"conditioner": {"open-clip": noted}, "truncated_texts": 0}
    # The same files between other terms are another sum.
    swapped = [{"conditioner": plain}, {"conditioner": aesthetic, "weight": -0.1}]
    other = {**conditioners, "sum": {"kind": "sum", "terms": swapped}}
    again = load_suite(write(tmp_path, yaml.safe_dump({**SUITE, "conditioners": other})))
    assert identity.samples(again, plan(again).cells[1]).key != identity.samples(suite, cells[1]).key


def test_terms_that_do_not_go_together_are_refused(tmp_path):
    text = {"kind": "clip"}
    classes = {"kind": "classifier"}
    with pytest.raises(
        SuiteError, match=r"'classifier' takes class conditions, and the first term takes text"
    ):
        Sum(terms=tuple(Term(conditioner=NestedConditioner.of(item)) for item in (text, classes)))
    with pytest.raises(SuiteError, match=r"two terms are called 'clip'"):
        Sum(terms=tuple(Term(conditioner=NestedConditioner.of(item)) for item in (text, text)))
    block = "sum: {kind: sum, terms: [{conditioner: {kind: clip}, weigth: 2}]}"
    wrong = TOY.replace("text: {kind: clip}", block)
    with pytest.raises(SuiteError, match=rf"toy.yaml:{line_of(wrong, 'sum:')}.*Did you mean 'weight'"):
        load_suite(write(tmp_path, wrong))
    block = "taste: {kind: aesthetic, weights: head.pth, clip: {pretrained: openai, weights: clip.pt}}"
    matrix = "{data: shapes, generator: gan, conditioner: taste, sampler: tr0n}"
    suite = {
        **SUITE, "conditioners": yaml.safe_load(block), "variants": {"matrix": yaml.safe_load(matrix)},
    }  # fmt: skip
    with pytest.raises(SuiteError, match=r"'taste' makes no synthetic pairs.*kind sum"):
        load_suite(write(tmp_path, yaml.safe_dump(suite)))


def test_one_sum_of_the_zoo_is_its_only_term_times_its_weight():
    guide = Sum(terms=(Term(conditioner=NestedConditioner.of({"kind": "clip", "views": 0}), weight=2.0),))
    loaded, alone = guide.load(CPU), Clip(views=0).load(CPU)
    condition = alone.embed(texts("a red circle", "a star", "a blue square"))
    streams = Streams.from_seed(3, "one")
    expected = 2 * alone.energy(images(), condition, streams, 0)
    assert torch.allclose(loaded.energy(images(), condition, streams, 0), expected)
    assert torch.allclose(loaded.plain_energy(images(), condition), expected)
