"""Generators of diffusers' format, on small random models in its published layout.

Beside diffusers' own pipelines (0.42.1, CPU, float32, images in [0, 1]): DDIM equal to the bit after 7 steps;
Stable Diffusion (ancestral noise) and XL within 1.2e-7, at 1 step and at 4 guided ones; images one by one
within 9.5e-7.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import yaml
from generators import diffusers_folders as folders
from safetensors.torch import load_file, save_file
from support import SMALL_SUITE

from bench.errors import SuiteError, WeightError
from bench.generators import text_to_image
from bench.generators.autoencoder_kl import AutoencoderKl
from bench.generators.base import context_rows
from bench.generators.diffusion import Diffusion
from bench.generators.enlarge import enlarge
from bench.generators.text_to_image import TextToImage
from bench.identity import weight_hashes
from bench.streams import Streams
from bench.types import Condition

CPU = torch.device("cpu")
STREAMS = Streams.from_seed(3, "diffusers")
PROMPTS = ["a red dog", "cat", "the big blue horse on a hill"]
CONDITIONS = [Condition(id=str(i), kind="text", text=text) for i, text in enumerate(PROMPTS)]
SIZE = folders.RESOLUTION


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    return folders.write_unconditional(tmp_path_factory.mktemp("ddpm") / "pipeline")


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    """Folders of a small Stable Diffusion (with ancestral noise) and of a small XL."""
    folder = tmp_path_factory.mktemp("stable")
    small = folders.write_text_to_image(folder / "sd", scheduler="EulerAncestralDiscreteScheduler")
    return {"sd": small, "xl": folders.write_text_to_image(folder / "xl", large=True)}


# --- unconditional


def test_ddim_is_the_pipelines_own(unconditional):
    from diffusers import DDIMPipeline

    generator = Diffusion(weights=str(unconditional), resolution=SIZE, steps=7).load(CPU)
    assert generator.latent.dim == 3 * SIZE * SIZE
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        ours = generator.decode(noise.flatten(1))
    pipeline = DDIMPipeline.from_pretrained(unconditional)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(4), num_inference_steps=7, output_type="np"
    )
    off = ((ours + 1) / 2 - torch.from_numpy(theirs.images).permute(0, 3, 1, 2)).abs().max()
    assert off < 2e-6, off
    assert ours.std() > 0.1


def test_ddim_gradients_do_not_depend_on_checkpoints_or_company(unconditional):
    settings = {"weights": str(unconditional), "resolution": SIZE, "steps": 3}
    found = []
    for checkpointed in (True, False):
        generator = Diffusion(**settings, checkpointed=checkpointed).load(CPU)
        z = (0.3 * generator.latent.prior(STREAMS)).requires_grad_()
        images = generator.decode(z)
        found.append(torch.autograd.grad(images.square().sum(), z)[0])
        alone = torch.cat([generator.decode(row[None]) for row in z])
        assert torch.allclose(alone, images, atol=2e-5)
    assert torch.equal(*found)
    assert (found[0].abs().sum(1) > 0).all()


def test_timesteps_and_grey_models(unconditional, tmp_path):
    z = torch.randn(1, 3 * SIZE * SIZE, generator=torch.Generator().manual_seed(0))
    settings = {"weights": str(unconditional), "resolution": SIZE, "steps": 3}
    kept, trailing = (Diffusion(**settings, timesteps=t).load(CPU) for t in (None, "trailing"))
    assert not torch.allclose(kept.decode(z), trailing.decode(z))
    assert trailing.scheduler.timesteps.tolist() == [999, 666, 332]
    grey = folders.write_unconditional(tmp_path / "grey", channels=1)
    images = Diffusion(weights=str(grey), resolution=SIZE, steps=1).load(CPU).decode(z[:, : SIZE * SIZE])
    assert images.shape == (1, 3, SIZE, SIZE)
    large = Diffusion(weights=str(grey), resolution=2 * SIZE, steps=1).load(CPU).decode(z[:, : SIZE * SIZE])
    assert torch.allclose(large, enlarge(images, 2 * SIZE).clamp(-1, 1), atol=1e-6)


def test_what_is_refused_of_an_unconditional_model(unconditional, tmp_path):
    with pytest.raises(SuiteError, match="resolution is 40, and the model makes 16 px"):
        Diffusion(weights=str(unconditional), resolution=40).load(CPU)
    with pytest.raises(WeightError, match=r"is missing: an unconditional diffusion model.*Verify: sha256sum"):
        Diffusion(weights=str(tmp_path / "gone"), resolution=SIZE).load(CPU)
    euler = folders.write_unconditional(tmp_path / "euler", scheduler="EulerDiscreteScheduler")
    with pytest.raises(WeightError, match="has a EulerDiscreteScheduler; the deterministic map needs"):
        Diffusion(weights=str(euler), resolution=SIZE).load(CPU)
    index = (euler / "model_index.json").read_text()
    (euler / "model_index.json").write_text(index.replace("UNet2DModel", "UNet1DModel"))
    with pytest.raises(WeightError, match="names 'UNet1DModel' of diffusers for 'unet', which is not known"):
        Diffusion(weights=str(euler), resolution=SIZE).load(CPU)
    (euler / "model_index.json").write_text("{")
    with pytest.raises(WeightError, match="is not a pipeline's index"):
        Diffusion(weights=str(euler), resolution=SIZE).load(CPU)


# --- text to image


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "negative"),
    [
        ("sd", 1, 0.0, ""),
        ("sd", 4, 3.0, "fog"),
        ("xl", 1, 0.0, ""),
        ("xl", 4, 3.0, "fog"),
        ("xl", 2, 3.0, ""),
    ],
)
def test_a_pipeline_gives_what_it_gives_by_itself(stable, name, steps, guidance, negative):
    from diffusers import DiffusionPipeline

    settings = {"steps": steps, "guidance": guidance, "negative_prompt": negative}
    generator = TextToImage(weights=str(stable[name]), resolution=SIZE, **settings).load(CPU)
    context = generator.context(CONDITIONS, STREAMS)
    z = generator.latent.prior(STREAMS)
    with torch.no_grad():
        ours = generator.decode(z, context)
    pipeline = DiffusionPipeline.from_pretrained(stable[name], safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        PROMPTS, negative_prompt=[negative] * 3 if negative else None, latents=z.view(3, 4, 8, 8),
        height=SIZE, width=SIZE, num_inference_steps=steps, guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(s) for s in context["seed"].tolist()], output_type="np",
    ).images  # fmt: skip
    off = ((ours + 1) / 2 - torch.from_numpy(theirs).permute(0, 3, 1, 2)).abs().max()
    assert off < 1e-5, off
    assert (ours[0] - ours[1]).abs().max() > 0.01


@pytest.mark.parametrize("encoded", [True, False])
def test_prompts_noise_and_gradients_stay_with_their_samples(stable, monkeypatch, encoded):
    if not encoded:  # as for a pipeline whose encode_prompt is not known
        monkeypatch.setattr(text_to_image, "ENCODED", {})
    generator = TextToImage(weights=str(stable["sd"]), resolution=SIZE, steps=2).load(CPU)
    context = generator.context(CONDITIONS, STREAMS)
    assert ("prompt_embeds" in context) is encoded
    z = generator.latent.prior(STREAMS).requires_grad_()
    images = generator.decode(z, context)
    (gradient,) = torch.autograd.grad(images.square().sum(), z)
    assert (gradient.abs().sum(1) > 0).all()
    assert torch.allclose(images, generator.decode(z, context), atol=1e-6), "the scheduler's noise is fixed"
    for i in range(3):
        row = slice(i, i + 1)
        alone = generator.decode(z[row], context_rows(context, row))
        assert torch.allclose(alone[0], images[i], atol=1e-4)
        (own,) = torch.autograd.grad(alone.square().sum(), z)
        assert torch.allclose(own[i], gradient[i], rtol=1e-2, atol=1e-3)
    same = generator.context([CONDITIONS[0]] * 3, STREAMS)
    moved = generator.decode(z[:1].expand(3, -1), same)
    assert (moved[0] - moved[1]).abs().max() > 1e-3, "ancestral noise is each sample's own"


def test_prompts_as_bytes_are_prompts_again():
    texts = ["a 'quoted' \"dog\"", "", "naïve 🐶", "é" * 5000]
    again = text_to_image._as_texts(text_to_image._as_bytes(texts))
    assert again[:3] == texts[:3]
    assert again[3] == "é" * (text_to_image.PROMPT_BYTES // 2)


def test_the_native_baseline_and_a_refinement_in_a_run(stable, tmp_path):
    from bench.runner import run
    from bench.store import RunStore
    from bench.suite import load_suite

    model = {"kind": "text-to-image", "weights": str(stable["sd"]), "resolution": 32}
    matrix = {"data": "shapes", "generator": "turbo", "conditioner": "clip", "sampler": ["prior", "langevin"]}
    content = {
        "name": "native", "seed": 1, "data": {"shapes": {"kind": "shapes"}}, "generators": {"turbo": model},
        "conditioners": {"clip": {"kind": "clip"}}, "metrics": {"speed": {"kind": "speed"}},
        "samplers": {name: SMALL_SUITE["samplers"][name] for name in ("prior", "langevin")},
        "translators": SMALL_SUITE["translators"], "samples": {"num": 3, "batch_size": 2, "tile": 2},
        "variants": {"matrix": matrix},
    }  # fmt: skip
    path = tmp_path / "native.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    out = tmp_path / "run"
    assert run(load_suite(path), out, "cpu", store_url=str(tmp_path / "store")).num_failed == 0
    records = RunStore(out).records()
    assert len(records) == 2
    assert all(record.timing.phase_s["context"] > 0 for record in records)
    content["samplers"]["tr0n"] = SMALL_SUITE["samplers"]["tr0n"]
    matrix["sampler"] = "tr0n"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(SuiteError, match="makes no image without a condition"):
        load_suite(path)


def test_what_is_refused_of_a_pipeline(stable, tmp_path):
    for settings, says in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"guidance": -1.0}, "guidance must not be negative"),
        ({"negative_prompt": "fog"}, "negative_prompt has no effect"),
    ):
        with pytest.raises(SuiteError, match=says):
            TextToImage(weights="x", resolution=SIZE, **settings)
    with pytest.raises(WeightError, match="a text-to-image pipeline in diffusers' layout"):
        TextToImage(weights=str(tmp_path / "gone"), resolution=SIZE).load(CPU)
    with pytest.raises(SuiteError, match="resolution must be a multiple of 2"):
        TextToImage(weights=str(stable["sd"]), resolution=17).load(CPU)
    broken = shutil.copytree(stable["sd"], tmp_path / "broken")
    settings = {"weights": str(broken), "resolution": SIZE}
    for name in ("vocab.json", "tokenizer.json"):
        (broken / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(WeightError, match=r"tokenizer', which the pipeline needs, has none of vocab\.json"):
        TextToImage(**settings).load(CPU)
    shutil.rmtree(broken / "tokenizer")
    with pytest.raises(WeightError, match="tokenizer', which the pipeline needs, is missing or empty"):
        TextToImage(**settings).load(CPU)
    shutil.copytree(stable["sd"] / "tokenizer", broken / "tokenizer")
    (broken / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(WeightError, match="broken' cannot be loaded"):
        TextToImage(**settings).load(CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [("unet", ["my_unet", "Mine"]), ("_class_name", ["pipeline", "Mine"]), ("_class_name", "Mine")],
)
def test_code_in_a_models_folder_is_not_run(stable, tmp_path, key, value):
    folder = shutil.copytree(stable["sd"], tmp_path / "own")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, key: value}))
    for place in (folder / "unet" / "my_unet.py", folder / "pipeline.py", folder / "Mine.py"):
        place.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    with pytest.raises(WeightError, match=r"no class of diffusers or|own' cannot be loaded"):
        TextToImage(weights=str(folder), resolution=SIZE).load(CPU)
    assert not (tmp_path / "ran").exists()


def drop(state):
    del state[next(iter(state))]


def extra(state):
    state["ghost"] = torch.zeros(1)


def reshape(state):
    state[next(iter(state))] = torch.zeros(1, 2, 3)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("change", [drop, extra, reshape])
def test_a_key_that_does_not_fit_is_refused_by_name(stable, tmp_path, part, change):
    folder = shutil.copytree(stable["sd"], tmp_path / "pipeline")
    (path,) = (folder / part).glob("*.safetensors")
    state = load_file(path)
    key = "ghost" if change is extra else next(iter(state))
    change(state)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(WeightError, match=re.escape(key.rpartition(".")[2])) as caught:
        TextToImage(weights=str(folder), resolution=SIZE).load(CPU)
    assert part in str(caught.value)
    assert key.removeprefix("text_model.") in str(caught.value)


# --- autoencoders


def test_an_autoencoders_decoder(stable, tmp_path):
    from diffusers import AutoencoderKL

    folder = stable["sd"] / "vae"
    generator = AutoencoderKl(weights=str(folder), resolution=SIZE).load(CPU)
    assert [(b.name, b.dim, b.bound) for b in generator.latent.blocks] == [("z", 4 * 8 * 8, None)]
    z = generator.latent.prior(STREAMS).requires_grad_()
    images = generator.decode(z)
    theirs = AutoencoderKL.from_pretrained(folder).decode(z.view(3, 4, 8, 8) / 0.18215).sample.clamp(-1, 1)
    assert torch.allclose(images, theirs, atol=1e-6)
    (gradient,) = torch.autograd.grad(images.sum(), z)
    assert (gradient.abs().sum(1) > 0).all()
    alone = torch.cat([generator.decode(row[None]) for row in z])
    assert torch.allclose(alone, images, atol=1e-5)
    path = tmp_path / "prior.safetensors"
    save_file({"mean": torch.full((4, 1, 1), 2.0), "std": torch.tensor(0.5)}, path)
    given = AutoencoderKl(weights=str(folder), resolution=SIZE, scaling=1.0, prior=str(path))
    drawn = given.load(CPU).latent.prior(Streams.from_seed(500, "prior"))
    assert (float(drawn.mean()), float(drawn.std())) == pytest.approx((2.0, 0.5), abs=0.01)
    assert len(weight_hashes(given)) == 2
    save_file({"mean": torch.zeros(5, 1, 1), "std": torch.tensor(0.5)}, path)
    with pytest.raises(SuiteError, match=r"'mean' has shape \(5, 1, 1\)"):
        given.load(CPU)
    save_file({"mean": torch.zeros(1), "sd": torch.tensor(0.5)}, path)
    with pytest.raises(WeightError, match="missing key 'std'; unexpected key 'sd'"):
        given.load(CPU)
    with pytest.raises(WeightError, match="an AutoencoderKL in diffusers' layout"):
        AutoencoderKl(weights=str(tmp_path / "gone"), resolution=SIZE).load(CPU)
