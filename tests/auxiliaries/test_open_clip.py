"""CLIPs of open_clip from files in the published formats, against open_clip itself.

Measured at random weights (tiny ViT and SigLIP, CPU): image and text embeddings of the judge differ from
open_clip's own transform, tokenizer and encoders by 0.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from auxiliary_files import (
    open_clip_of,
    save_safetensors,
    tiny_clip_config,
    tiny_siglip_config,
    tiny_tokenizer,
)
from PIL import Image
from torch import nn
from torch.nn import functional as F

from bench.assets.lock import load_lock
from bench.auxiliaries.clip_files import LOCKED, ClipFiles, recipe
from bench.auxiliaries.open_clip import load_open_clip
from bench.components import CONDITIONERS, JUDGES, resolve_path
from bench.errors import SuiteError, WeightError
from bench.identity import weight_hashes
from bench.streams import Streams
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition

CPU = torch.device("cpu")
OpenClipText, OpenClipJudge = resolve_path(CONDITIONERS["open-clip"]), resolve_path(JUDGES["open-clip"])
PROMPTS = ["a red circle", "two dogs, one of them asleep", "word " * 300]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(config path, weights path, open_clip's model)."""
    folder = tmp_path_factory.mktemp("clip")
    config = tiny_clip_config(folder)
    model = open_clip_of(config)
    return str(config), str(save_safetensors(model, folder / "weights.safetensors")), model


@pytest.fixture
def files(clip):
    return {"config": clip[0], "weights": clip[1]}


def pictures(num: int = 3, height: int = 48, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 3, height, width), dtype=np.uint8)


def texts(*prompts: str) -> list[Condition]:
    return [Condition(id=f"text:{i}", kind="text", text=text) for i, text in enumerate(prompts)]


def test_the_judge_is_open_clips_own_transform_tokenizer_and_encoders(clip, files):
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    model = clip[2]
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False)
    images = pictures()
    batch = torch.stack([transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images])
    with torch.no_grad():
        expected = model.encode_image(batch, normalize=True)
        expected_text = model.encode_text(open_clip.SimpleTokenizer()(PROMPTS), normalize=True)
    readout = OpenClipJudge(**files, batch_size=3).load(CPU).readout(images, texts(*PROMPTS))
    assert np.abs(readout.image_embedding - expected.numpy()).max() < 1e-6
    assert np.abs(readout.text_embedding - expected_text.numpy()).max() < 1e-6


def test_a_siglip_uses_its_tokenizers_padding_and_its_own_constants(tmp_path):
    ensure_torchvision()
    import open_clip

    config = tiny_siglip_config(tmp_path / "model")
    model = open_clip_of(config)
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    weights = save_safetensors(model, tmp_path / "weights.safetensors")
    files = ClipFiles(config=str(config), weights=str(weights), tokenizer=str(tokenizer))
    network = load_open_clip(files, CPU)
    hub = open_clip.tokenizer.HFTokenizer(str(tokenizer), context_length=16, clean="canonicalize")
    tokens = network.tokenizer(["A red circle!", "star " * 40])
    assert torch.equal(tokens, hub(["A red circle!", "star " * 40]))
    assert tokens[0].tolist() == [3, 4, 7, *[1] * 13]
    assert tokens[1, -1] == 1
    assert network.tokenizer.truncated(["A red circle!", "star " * 15, "star " * 16]) == [False, False, True]
    with torch.no_grad():
        expected = model.double().encode_text(tokens)
        assert torch.allclose(network.double().encode_text(tokens), expected, atol=1e-6)
    assert network.image_mean == (0.5, 0.5, 0.5)
    with pytest.raises(WeightError, match=r"timm/ViT-B-16-SigLIP.*'tokenizer: path/to/folder'"):
        load_open_clip(ClipFiles(config=str(config), weights=str(weights)), CPU)


def test_the_energy_is_minus_the_mean_cosine_after_bilinear_resizing(clip, files):
    conditioner = OpenClipText(**files, views=0).load(CPU)
    images = torch.from_numpy(pictures(2, 48, 48)).float() / 127.5 - 1
    condition = conditioner.embed(texts("a red circle", "a dog"))
    x = F.interpolate((images + 1) / 2, (32, 32), mode="bilinear", align_corners=False)
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (conditioner.network.image_mean, conditioner.network.image_std)
    )
    with torch.no_grad():
        expected = -F.cosine_similarity(clip[2].encode_image((x - mean) / std), condition)
    energy = conditioner.energy(images, condition, Streams.from_seed(2, "e"), 0)
    assert torch.allclose(energy, expected, atol=1e-6)


def test_each_sample_has_its_own_gradient_whatever_its_neighbours(files):
    conditioner = OpenClipText(**files, views=2).load(CPU)
    images = (torch.from_numpy(pictures(3, 32, 32)).float() / 127.5 - 1).requires_grad_()
    condition, streams = conditioner.embed(texts("a", "b", "c")), Streams.from_seed(3, "g")
    energy = conditioner.energy(images, condition, streams, 0)
    (gradient,) = torch.autograd.grad(energy[1], images, retain_graph=True)
    assert float(gradient[1].abs().max()) > 0
    assert float(gradient[[0, 2]].abs().max()) == 0
    alone = conditioner.energy(images[1:2], condition[1:2], streams[1:2], 0)
    assert torch.allclose(alone, energy[1:2], atol=1e-6)


def test_long_captions_keep_their_end_token_and_are_counted(files):
    tokenizer = load_open_clip(ClipFiles(**files), CPU).tokenizer
    tokens = tokenizer(["dog " * 75, "dog " * 76])
    assert tokens.shape == (2, 77)
    assert tokens[:, -1].tolist() == [tokenizer.inner.eot_token_id] * 2
    assert tokenizer.truncated(["dog " * 75, "dog " * 76]) == [False, True]


def test_openais_archive_is_code_and_needs_trust(tmp_path, clip, files):
    archive = nn.Module()
    for name, value in clip[2].state_dict().items():
        *parents, leaf = name.split(".")
        module = archive
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        module.register_buffer(leaf, value.half())
    for name, size in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        archive.register_buffer(name, torch.tensor(size))
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(archive).save(str(path))
    with pytest.raises(WeightError, match=r"TorchScript.*trust: true"):
        load_open_clip(ClipFiles(config=files["config"], weights=str(path)), CPU)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network = load_open_clip(
        ClipFiles(config=files["config"], weights=str(path), trust=True, sha256=sha256), CPU
    )
    assert network.clip.visual.proj.dtype == torch.float32
    assert torch.equal(network.clip.visual.proj, clip[2].visual.proj.half().float())


def test_a_training_checkpoint_is_read_by_its_state_dict(tmp_path, clip, files):
    state = {f"module.{key}": value for key, value in clip[2].state_dict().items()}
    path = tmp_path / "epoch_8.pt"
    torch.save({"epoch": 8, "name": "x", "state_dict": state, "optimizer": {"lr": 0.1}}, path)
    network = load_open_clip(ClipFiles(config=files["config"], weights=str(path)), CPU)
    assert torch.equal(network.clip.text_projection, clip[2].text_projection)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("text_projection"), "missing key 'text_projection'"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected key 'extra'"),
        (lambda s: s.update(text_projection=torch.zeros(3, 3)), r"'text_projection' has shape \(3, 3\)"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_keys_that_do_not_fit_are_named(tmp_path, clip, files, spoil, message):
    state = dict(clip[2].state_dict())
    spoil(state)
    torch.save(state, tmp_path / "spoilt.pt")
    with pytest.raises(WeightError, match=message):
        load_open_clip(ClipFiles(config=files["config"], weights=str(tmp_path / "spoilt.pt")), CPU)


def test_quickgelu_is_what_the_weights_were_trained_with(monkeypatch, caplog):
    from bench.auxiliaries import open_clip as loader

    model, preprocess, _ = loader._build(ClipFiles(model="ViT-B-32", pretrained="openai", weights="x"))
    assert type(model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert "is built with QuickGELU" in caplog.text
    assert preprocess["size"] in (224, (224, 224))
    with pytest.raises(WeightError, match=r"trained without QuickGELU: use model: ViT-B-32"):
        recipe(ClipFiles(model="ViT-B-32-quickgelu", pretrained="laion2b_s34b_b79k", weights="x"))
    assert not recipe(ClipFiles(model="ViT-B-32", pretrained="laion2b_s34b_b79k", weights="x")).get(
        "quick_gelu"
    )


def test_models_tags_and_recipes_are_refused_by_name():
    with pytest.raises(SuiteError, match=r"'ViT-B-23' is none of open_clip's. Did you mean 'ViT-B-32'"):
        ClipFiles(model="ViT-B-23", pretrained="openai", weights="x")
    with pytest.raises(SuiteError, match=r"pretrained is missing"):
        ClipFiles(model="ViT-B-16-SigLIP", weights="x")
    with pytest.raises(WeightError, match=r"no weights 'openia'.*Did you mean 'openai'"):
        recipe(ClipFiles(model="ViT-B-32", pretrained="openia", weights="x"))
    with pytest.raises(SuiteError, match=r"remove pretrained"):
        ClipFiles(config="open_clip_config.json", pretrained="openai", weights="x")


def test_a_missing_file_is_told_with_its_source_size_and_hash(tmp_path):
    config = OpenClipText(pretrained="openai", weights=str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(
        WeightError, match=r"ViT-B-32\.pt' is missing.*openai-clip-vit-b-32.*353976522.*40d36571"
    ):
        weight_hashes(config)
    other = OpenClipText(model="ViT-B-16-SigLIP", pretrained="webli", weights=str(tmp_path / "gone"))
    with pytest.raises(
        WeightError, match=r"CLIP ViT-B-16-SigLIP, 'webli'.*huggingface.co/timm/ViT-B-16-SigLIP"
    ):
        weight_hashes(other)
    assert set(LOCKED.values()) <= set(load_lock())


def test_the_key_covers_config_and_tokenizer(tmp_path, files):
    folder = tiny_tokenizer(tmp_path / "tokenizer")
    config = OpenClipText(**files, tokenizer=str(folder))
    before = weight_hashes(config)
    assert set(before) == {"weights.safetensors", "open_clip_config.json", "tokenizer"}
    (folder / "extra.json").write_text("{}")
    assert weight_hashes(config)["tokenizer"] != before["tokenizer"]


def test_a_run_records_what_was_settled_and_how_many_captions_were_cut(tmp_path, files):
    import json

    import yaml

    from bench.plan import plan
    from bench.runner import run
    from bench.store import RunStore
    from bench.suite import load_suite
    from bench.worlds.shapes_source import Shapes

    images = Shapes(num_val=4).load("val", tmp_path)
    folder = next(tmp_path.glob("shapes-*"))
    path = folder / "annotations" / "captions_val2014.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        if annotation["image_id"] in (int(images.ids[0]), int(images.ids[2])):
            annotation["caption"] = "dog " * 200
    path.write_text(json.dumps(content))
    suite = {
        "name": "notes",
        "data": {"coco": {"kind": "coco", "root": str(folder), "resolution": 32}},
        "generators": {"gan": {"kind": "gan"}},
        "conditioners": {"clip": {"kind": "open-clip", "views": 0, **files}},
        "samplers": {"prior": {"kind": "prior"}},
        "protocol": {"reference_split": "val2014"},
        "samples": {"num": 4, "tile": 2, "shard": 2},
        "variants": {
            "matrix": {"data": "coco", "generator": "gan", "conditioner": "clip", "sampler": "prior"}
        },
    }
    (tmp_path / "notes.yaml").write_text(yaml.safe_dump(suite))
    loaded = load_suite(tmp_path / "notes.yaml")
    assert run(loaded, tmp_path / "run", "cpu", store_url=str(tmp_path / "store")).num_failed == 0
    record = RunStore(tmp_path / "run").read_record(plan(loaded).cells[0].id)
    assert record.notes["truncated_texts"] == 2
    assert record.notes["conditioner"] == {"quick_gelu": True, "pretrained": None}
