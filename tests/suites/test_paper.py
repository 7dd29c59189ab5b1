"""The paper's suites: each reads, plans, and runs end to end on small files of the real formats.

What ``--set`` changes here is what it takes on a machine without the public weights: paths and hashes, sizes
of networks, and counts. Everything else runs as shipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from auxiliary_files import open_clip_of, save_safetensors, tiny_blip, tiny_blip2, tiny_clip_config
from generators import diffusers_folders, miniature_checkout, test_nvae
from generators.biggan_files import brock_file
from inception_files import write_weights
from PIL import Image

from bench.plan import plan
from bench.protocols.ledger import chosen_row, read_ledger
from bench.protocols.verdicts import declared_in, reproductions
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite
from bench.worlds.coco import write_coco

SUITES = Path(__file__).parents[2] / "suites"
PAPER = sorted((SUITES / "paper").glob("*.yaml"))
OURS = {
    "ablations", "fusedream-coco", "tr0n-cifar10-classconditional", "tr0n-coco-biggan512",
    "tr0n-coco-biggan512-laionclip", "tr0n-coco-styleganxl-blip2", "tr0n-ffhq-nvae-text",
    "tr0n-ffhq-stylegan2-text", "turbo-noise-optimisation",
}  # fmt: skip
NUM = 2


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_suite_reads_and_plans_without_any_file(path):
    suite = load_suite(path)
    assert suite.name == path.stem
    assert len(plan(suite).cells) >= 1
    ledger = read_ledger(SUITES / "published.csv")
    for variant in suite.variants:
        for wanted in variant.reproduces:
            chosen_row(ledger, wanted)


def test_the_paper_s_settings_are_those_of_its_scripts():
    assert {path.stem for path in PAPER} >= OURS
    suite = load_suite(SUITES / "paper" / "tr0n-coco-biggan512.yaml")
    assert (suite.protocol.title, suite.samples.num) == ("tr0n-2023", 40_504)
    tr0n, translator = suite.samplers["tr0n"].config, suite.translators["default"].config
    assert (tr0n.steps, tr0n.step_size, tr0n.momentum, tr0n.noise_std) == (100, 5.0, 0.99, 0.01)
    assert (tr0n.auxiliary_lr, tr0n.clip_norm, tr0n.start) == (5e-3, 1.0, "mixture_mean")
    assert (translator.num_pairs, translator.steps, translator.batch_size) == (10**6, 625_000, 16)
    assert (translator.route, translator.components, translator.captioner.top_p) == ("caption", 10, 0.9)
    assert suite.conditioners["clip"].config.views == 50
    headline = load_suite(SUITES / "paper" / "tr0n-coco-styleganxl-blip2.yaml")
    row = chosen_row(read_ledger(SUITES / "published.csv"), headline.variants[0].reproduces[0])
    assert (row.system, row.low) == ("TR0N", 10.9)


# --- small files of the real formats -------------------------------------------------------------------


def clip(table: str, name: str, folder: Path, seed: int) -> list[str]:
    """A CLIP of the layout that ``name`` of the suite loads, two layers deep."""
    config = tiny_clip_config(folder / f"{table}-{name}")
    weights = save_safetensors(open_clip_of(config, seed), config.parent / "model.safetensors")
    fields = {"config": config, "weights": weights, "pretrained": "null", "sha256": "null", "trust": "false"}
    return [f"{table}.{name}.{key}={value}" for key, value in fields.items()]


def coco(folder: Path, side: int) -> list[str]:
    """Photographs of MS-COCO's kind, wider or higher than square, as JPEG files."""
    root = folder / "coco"
    texts = [('a "red" circle / square',), ("a blue star 🦊",), ("green",)]
    write_coco(root, "val2014", np.zeros((3, 3, 2, 2), np.uint8), texts, ids=[42, 73, 139], codec="jpg")
    listed = root / "annotations" / "captions_val2014.json"
    listed.write_text(listed.read_text().replace('"width": 2, "height": 2, ', ""))
    draws = np.random.default_rng(0)
    for k, path in enumerate(sorted((root / "val2014").iterdir())):
        pixels = draws.integers(0, 256, (40 + 3 * k, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((150, 120 + 9 * k)).save(path)
    return [f"data.coco.root={root}", f"data.coco.resolution={side}", f"protocol.resolution={side}",
            f"protocol.eval_size={side}"]  # fmt: skip


def faces(folder: Path, side: int) -> list[str]:
    root, prompts = folder / "faces", folder / "prompts.txt"
    root.mkdir()
    draws = np.random.default_rng(1)
    for k in range(3):
        Image.fromarray(draws.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / f"{k:05d}.png")
    prompts.write_text("a face\na smiling face\n")
    return [f"data.ffhq.root={root}", f"data.ffhq.prompts={prompts}", f"data.ffhq.resolution={side}",
            f"protocol.resolution={side}"]  # fmt: skip


def biggan(folder: Path) -> list[str]:
    name = "generators.biggan512"
    return [f"{name}.weights={brock_file(folder)}", f"{name}.resolution=128", f"{name}.width=4",
            f"{name}.num_classes=7"]  # fmt: skip


def stylegan(folder: Path, name: str, **arguments) -> list[str]:
    repo = miniature_checkout.write_checkout(folder / "stylegan")
    sha256 = miniature_checkout.write_pickle(repo, folder / "network.pkl", **arguments)
    fields = {
        "weights": folder / "network.pkl",
        "repo": repo,
        "sha256": sha256,
        "resolution": arguments.get("img_resolution", 16),
    }
    return [f"generators.{name}.{key}={value}" for key, value in fields.items()]


def nvae(folder: Path) -> list[str]:
    (folder / "nvae").mkdir()
    fields = test_nvae.write(folder / "nvae")
    return [f"generators.nvae.{key}={value}" for key, value in fields.items() if key != "trust"]


def cifar10(folder: Path) -> list[str]:
    """The binary version's files, with few images, and two small classifiers of timm."""
    import timm

    root = folder / "cifar-10-batches-bin"
    root.mkdir()
    draws = np.random.default_rng(2)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        rows = draws.integers(0, 256, (2, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        (root / name).write_bytes(rows.tobytes())
    found = [f"data.cifar10.root={root}"]
    for seed, place in enumerate(("conditioners.class", "judges.second")):
        torch.manual_seed(seed)
        weights = folder / f"classifier-{seed}.safetensors"
        save_safetensors(timm.create_model("mobilenetv3_small_050", num_classes=10), weights)
        found += [f"{place}.model=mobilenetv3_small_050", f"{place}.weights={weights}"]
    return found


def captioner(folder: Path, write) -> list[str]:
    place = "translators.default.captioner"
    sizes = [f"{place}.size=32", f"{place}.dtype=float32"]
    return [f"{place}.folder={write(folder / 'captioner')}", *sizes]


FILES = {
    "tr0n-coco-biggan512": lambda f: [
        *coco(f, 128), *biggan(f), *clip("conditioners", "clip", f, 0), *clip("judges", "clip-h", f, 1),
        *captioner(f, tiny_blip),
    ],
    "tr0n-coco-biggan512-laionclip": lambda f: [
        *coco(f, 128), *biggan(f), *clip("conditioners", "clip", f, 0), *clip("judges", "clip-l", f, 1),
    ],
    "fusedream-coco": lambda f: [
        *coco(f, 128), *biggan(f), *clip("conditioners", "clip", f, 0), *clip("judges", "clip-h", f, 1),
    ],
    "ablations": lambda f: [
        *coco(f, 128), *biggan(f), *clip("conditioners", "clip", f, 0), *clip("judges", "clip-l", f, 1),
    ],
    "tr0n-coco-styleganxl-blip2": lambda f: [
        *coco(f, 16), *stylegan(f, "styleganxl", c_dim=3, centres=True), *clip("conditioners", "clip", f, 0),
        *clip("judges", "clip-l", f, 1), *captioner(f, tiny_blip2),
    ],
    "tr0n-ffhq-stylegan2-text": lambda f: [
        *faces(f, 16), *stylegan(f, "stylegan2"), *clip("conditioners", "clip", f, 0),
        *clip("judges", "clip-h", f, 1),
    ],
    "tr0n-ffhq-nvae-text": lambda f: [
        *faces(f, 16), *nvae(f), *clip("conditioners", "clip", f, 0), *clip("judges", "clip-h", f, 1),
    ],
    "tr0n-cifar10-classconditional": lambda f: [
        *cifar10(f), *(text.replace("resolution=16", "resolution=32") for text in nvae(f)),
        *stylegan(f, "stylegan2", img_resolution=32),
    ],
    "turbo-noise-optimisation": lambda f: [
        *coco(f, 32), *clip("conditioners", "clip", f, 0), *clip("judges", "clip-l", f, 1),
        f"generators.sd-turbo.weights={diffusers_folders.write_text_to_image(f / 'sd-turbo')}",
        "generators.sd-turbo.resolution=32",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def inception(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("inception"))


def smaller(path: Path, inception: Path) -> list[str]:
    """Counts and budgets that a test can pay."""
    suite = load_suite(path)
    made = ["samples.tile=2", "samples.batch_size=2", f"samples.num={NUM}", f"protocol.num_reference={NUM}"]
    made += [f"judges.inception.weights={inception}", "judges.inception.batch_size=2"]
    made += ["metrics.fid.allow_small_n=true"]
    if suite.protocol.num_samples is not None:
        made.append(f"protocol.num_samples={NUM}")
    for name in suite.translators:
        two = ("num_pairs", "pair_batch", "steps", "batch_size")
        made += [f"translators.{name}.{key}=2" for key in two] + [f"translators.{name}.hidden=8"]
    for name, sampler in suite.samplers.items():
        if sampler.config.steps > 2:
            made.append(f"samplers.{name}.steps={1 if name == 'fusedream-100' else 2}")
        if getattr(sampler.config, "candidates", 1) > 5:
            made.append(f"samplers.{name}.candidates=5")
    for name, conditioner in suite.conditioners.items():
        if getattr(conditioner.config, "views", 0) > 2:
            made.append(f"conditioners.{name}.views=2")
    if "inception-score" in suite.metrics:
        made.append("metrics.inception-score.splits=1")
    if suite.curve is not None:
        made += ["curve.steps=[0, 2]", "curve.num=2"]
    return made


@pytest.mark.parametrize("name", FILES)
def test_a_suite_runs_end_to_end_on_small_files(name, tmp_path, inception, monkeypatch):
    if "cifar10" in name:  # the miniature repositories, at 32 px
        monkeypatch.setitem(test_nvae.ARGUMENTS, "size", 32)
        text = miniature_checkout.NETWORKS.replace("1, 3, 4, 4", "1, 3, 8, 8")
        text = text.replace("Layer(w_dim, 16)", "Layer(w_dim, 32)").replace(
            "Layer(w_dim, 8)", "Layer(w_dim, 16)"
        )
        monkeypatch.setattr(miniature_checkout, "NETWORKS", text)
    path = SUITES / "paper" / f"{name}.yaml"
    overrides = FILES[name](tmp_path) + smaller(path, inception)
    if name == "ablations":  # eight variants and a curve: a light judge keeps the test short
        kept = [text for text in overrides if not text.startswith("judges.inception")]
        files = "config: {0}/open_clip_config.json, weights: {0}/model.safetensors"
        light = files.format(tmp_path / "judges-clip-l")
        overrides = [*kept, f"judges.inception={{kind: open-clip, {light}}}"]
    torch.manual_seed(0)
    suite = load_suite(path, overrides)
    summary = run(suite, tmp_path / "run", "cpu", store_url=str(tmp_path / "store"))
    records = RunStore(tmp_path / "run").records()
    assert summary.num_failed == 0, [record.error for record in records if record.error]
    assert len(records) == len(load_suite(path).variants)
    for record in records:
        values = {score.metric: score.value for score in record.scores}
        distances = [value for metric, value in values.items() if metric.startswith(("fid", "fd"))]
        assert distances
        assert np.isfinite(distances).all()
        assert record.protocol["name"] == load_suite(path).protocol.name
    latents = {RunStore(tmp_path / "run").read_latents(record.cell.id).tobytes() for record in records}
    assert len(latents) == len(records)  # every variant draws its own
    declared = declared_in(RunStore(tmp_path / "run").read_run(), records)
    for item in reproductions(read_ledger(SUITES / "published.csv"), records, declared):
        assert item.outcome == "not comparable"
    if name == "tr0n-coco-styleganxl-blip2":
        (item,) = reproductions(read_ledger(SUITES / "published.csv"), records, declared)
        assert item.published.low == 10.9
