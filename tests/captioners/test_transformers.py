"""BLIP and BLIP-2 from transformers' folder layout: decoding, seeds, faults, and resumable pairs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from auxiliary_files import tiny_blip, tiny_blip2
from scipy.stats import chisquare

from bench import needs as needs_module
from bench.captioners.transformers import TransformersCaptioner, _Nucleus
from bench.errors import SuiteError, WeightError
from bench.identity import weight_hashes
from bench.runner import run
from bench.streams import Streams
from bench.suite import load_suite
from bench.torchvision_guard import ensure_torchvision

ensure_torchvision()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return str(tiny_blip(tmp_path_factory.mktemp("blip")))


@pytest.fixture(scope="module")
def blip2(tmp_path_factory):
    return str(tiny_blip2(tmp_path_factory.mktemp("blip2")))


def images(num: int = 6, side: int = 32) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    colours = torch.rand(num, 3, 1, 1, generator=g) * 1.6 - 0.8
    return colours + 0.2 * torch.rand(num, 3, side, side, generator=g)


@pytest.mark.parametrize("which", ["blip", "blip2"])
@pytest.mark.parametrize("decoding", ["nucleus", "beam"])
def test_a_caption_depends_on_its_image_and_stream_alone(which, decoding, request):
    reader = TransformersCaptioner(folder=request.getfixturevalue(which), decoding=decoding).load(CPU)
    streams = Streams.from_seed(6, "captions")
    together = reader.captions(images(), streams)
    order = torch.tensor([3, 0, 5])
    assert reader.captions(images()[order], streams[order]) == [together[i] for i in order]
    assert reader.captions(images()[4:5], streams[4:5]) == together[4:5]
    assert len(set(together)) > 1
    other = reader.captions(images(), Streams.from_seed(6, "others"))
    assert (other == together) == (decoding == "beam")
    assert all(text and not text.startswith("a picture of ") for text in together)


def test_beam_search_is_transformers_own(blip):
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    captioner = TransformersCaptioner(folder=blip, decoding="beam")
    reader = captioner.load(CPU)
    model, tokenizer = (
        BlipForConditionalGeneration.from_pretrained(blip).eval(),
        AutoTokenizer.from_pretrained(blip),
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (reader.mean, reader.std))
    ids = tokenizer(["a picture of"] * 6, return_tensors="pt").input_ids
    found = model.generate(
        pixel_values=((images() + 1) / 2 - mean) / std,
        input_ids=ids,
        max_length=20,
        min_length=5,
        num_beams=3,
    )
    texts = [text.removeprefix("a picture of").strip() for text in tokenizer.batch_decode(found, True)]
    texts = [text or "a picture of" for text in texts]  # where the caption is nothing but its prompt
    assert reader.captions(images(), Streams.from_seed(6, "x")) == texts


def test_lengths_count_the_prompt_as_blips_own_code_does(blip, monkeypatch):
    reader = TransformersCaptioner(folder=blip, min_length=9, max_length=9).load(CPU)
    found = []
    decode = reader.tokenizer.batch_decode
    monkeypatch.setattr(
        reader.tokenizer, "batch_decode", lambda ids, **more: found.append(ids) or decode(ids, **more)
    )
    reader.captions(images(), Streams.from_seed(6, "length"))
    assert found[0].shape == (6, 9)  # [DEC] a picture of, then five more
    assert not (found[0][:, 4:] == 3).any()  # no end before that


def test_tokens_are_drawn_from_the_nucleus_with_its_own_frequencies():
    probabilities = torch.tensor([0.02, 0.4, 0.05, 0.3, 0.23])
    num = 4000
    picks = _Nucleus(0.9, Streams.from_seed(num, "nucleus"), start=3)
    scores = picks(torch.zeros(num, 3, dtype=torch.int64), probabilities.log().expand(num, -1).clone())
    counts = Counter(scores.argmax(1).tolist())
    assert set(counts) == {1, 3, 4}
    kept = np.array([0.4, 0.3, 0.23])
    assert chisquare([counts[1], counts[3], counts[4]], num * kept / kept.sum()).pvalue > 1e-3
    assert torch.isfinite(scores).sum() == num


def test_larger_images_are_seen_whole_by_interpolated_positions(blip):
    reader = TransformersCaptioner(folder=blip).load(CPU)
    small = TransformersCaptioner(folder=blip, size=32).load(CPU)
    streams = Streams.from_seed(6, "size")
    large = images(6, 48)
    assert len(reader.captions(large, streams)) == 6
    resized = torch.nn.functional.interpolate(large, (32, 32), mode="bilinear")
    assert small.captions(large, streams) == reader.captions(resized, streams)


def test_folders_that_do_not_fit_are_refused_by_name(blip, tmp_path):
    gone = TransformersCaptioner(folder=str(tmp_path / "gone"))
    for call in (lambda: gone.load(CPU), lambda: weight_hashes(gone)):
        with pytest.raises(
            WeightError, match=r"gone' is missing.*captioner in transformers' layout.*Salesforce"
        ):
            call()
    from safetensors.torch import load_file, save_file

    spoilt = tmp_path / "spoilt"
    tiny_blip(spoilt)
    state = load_file(spoilt / "model.safetensors")
    name = "vision_model.post_layernorm.weight"
    save_file({k: v for k, v in state.items() if k != name}, spoilt / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightError, match=f"missing key '{name}'"):
        TransformersCaptioner(folder=str(spoilt)).load(CPU)
    old = {"text_decoder.bert.embeddings.position_ids": torch.arange(64)[None]}
    save_file({**state, **old}, spoilt / "model.safetensors", {"format": "pt"})
    TransformersCaptioner(folder=str(spoilt)).load(CPU)
    save_file({**state, "extra": torch.zeros(2)}, spoilt / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightError, match="unexpected key 'extra'"):
        TransformersCaptioner(folder=str(spoilt)).load(CPU)
    save_file({**state, name: torch.zeros(7)}, spoilt / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightError, match=rf"'{name}' has shape \(7,\), expected \(32,\)"):
        TransformersCaptioner(folder=str(spoilt)).load(CPU)
    (spoilt / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightError, match=r"holds a 'bert'. *Allowed here: blip, blip-2"):
        TransformersCaptioner(folder=str(spoilt)).load(CPU)
    with pytest.raises(SuiteError, match="top_p"):
        TransformersCaptioner(folder=blip, top_p=1.5)


def suite_file(tmp_path, blip: str):
    content = {
        "name": "captions",
        "data": {"shapes": {"kind": "shapes", "num_val": 4}},
        "generators": {"gan": {"kind": "gan"}},
        "conditioners": {"clip": {"kind": "clip", "views": 0}},
        "translators": {
            "default": {
                "kind": "tr0n", "route": "caption", "captioner": {"folder": blip}, "num_pairs": 96,
                "pair_batch": 16, "hidden": 16, "steps": 2,
            }
        },
        "samplers": {"translator": {"kind": "translator"}},
        "samples": {"num": 2, "tile": 2},
        "variants": {
            "matrix": {"data": "shapes", "generator": "gan", "conditioner": "clip", "sampler": "translator"}
        },
    }  # fmt: skip
    path = tmp_path / "captions.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_pairs_that_were_interrupted_go_on_at_the_shard_that_was_lost(blip, tmp_path, monkeypatch):
    from bench.artifacts import open_store
    from bench.captioners import transformers as room
    from bench.payload import unpack

    monkeypatch.setattr(needs_module, "PAIRS_PER_PART", 32)
    suite = load_suite(suite_file(tmp_path, blip))
    captions, calls = room.BlipReader.captions, []

    def counted(self, batch, streams):
        calls.append(len(batch))
        if len(calls) == 4:  # in the second of three shards
            raise KeyboardInterrupt
        return captions(self, batch, streams)

    monkeypatch.setattr(room.BlipReader, "captions", counted)
    url = str(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        run(suite, tmp_path / "run", "cpu", store_url=url)
    store = open_store(url)
    (key,) = store.keys("pairs")
    assert len(store.names("pairs", key)) == 1
    kept = store.read("pairs", key, store.names("pairs", key)[0])
    summary = run(suite, tmp_path / "run", "cpu", store_url=url)
    assert (summary.num_failed, summary.made["pairs"]) == (0, 2)
    assert len(calls) == 4 + 4
    names = store.names("pairs", key)
    assert len(names) == 3
    assert store.read("pairs", key, names[0]) == kept
    # The same in one go elsewhere.
    run(suite, tmp_path / "again", "cpu", store_url=str(tmp_path / "other"))
    other = open_store(str(tmp_path / "other"))
    for name in names:
        (arrays, meta), (expected, about) = (unpack(s.read("pairs", key, name)) for s in (store, other))
        assert all(np.array_equal(arrays[part], expected[part]) for part in expected)
        assert meta["captions"] == about["captions"]
        assert len(meta["captions"]) == 32
