"""The name → import-path tables. Adding a component is its file and one line here."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from bench.errors import SuiteError, nearest

SOURCES = {
    "shapes": "bench.worlds.shapes_source:Shapes",
    "digits": "bench.worlds.digits:Digits",
    "cifar10": "bench.worlds.cifar:Cifar10",
    "imagenet": "bench.worlds.imagenet:ImageNet",
    "coco": "bench.worlds.coco:Coco",
    "images": "bench.worlds.folder:Images",
}
GENERATORS = {
    "gan": "bench.generators.gan:Gan",
    "vae": "bench.generators.vae:Vae",
    "class-gan": "bench.generators.class_gan:ClassGan",
    "linear": "bench.generators.linear:Linear",
    "diffusion": "bench.generators.diffusion:Diffusion",
    "text-to-image": "bench.generators.text_to_image:TextToImage",
    "autoencoder-kl": "bench.generators.autoencoder_kl:AutoencoderKl",
    "nvae": "bench.generators.checkout.nvae:Nvae",
    "torchscript": "bench.generators.torchscript:TorchScript",
    "module": "bench.generators.module:Module",
    "stylegan": "bench.generators.checkout.stylegan:StyleGan",
    "biggan": "bench.generators.biggan.brock:BigGan",
    "biggan-deep": "bench.generators.biggan.deep:BigGanDeep",
}
CONDITIONERS = {
    "classifier": "bench.conditioners.classifier:Classifier",
    "clip": "bench.conditioners.clip:Clip",
    "open-clip": "bench.conditioners.open_clip:OpenClipText",
    "public-classifier": "bench.conditioners.public_classifier:PublicClassifierGuide",
    "image": "bench.conditioners.wrapped:ImageCondition",
    "interpolated": "bench.conditioners.wrapped:Interpolated",
    "sum": "bench.conditioners.sum:Sum",
    "aesthetic": "bench.conditioners.aesthetic:Aesthetic",
    "pickscore": "bench.conditioners.preference:PickScore",
    "hpsv2": "bench.conditioners.preference:HpsV2",
    "image-reward": "bench.conditioners.preference:ImageReward",
    "composition": "bench.conditioners.composition:Composition",
    "quadratic": "bench.conditioners.quadratic:Quadratic",
}
TRANSLATORS = {
    "tr0n": "bench.translator.config:Tr0nTranslator",
    "promptgen": "bench.translator.promptgen:PromptGen",
    "denoiser": "bench.translator.denoiser:Denoiser",
    "class-embedding": "bench.translator.embedding:ClassEmbedding",
    "noise-hypernetwork": "bench.translator.hypernetwork:NoiseHypernetwork",
    "nada": "bench.translator.nada:Nada",
    "noisy-classifier": "bench.translator.noisy_classifier:NoisyClassifier",
}
SAMPLERS = {
    "prior": "bench.samplers.prior:Prior",
    "langevin": "bench.samplers.langevin:Langevin",
    "translator": "bench.samplers.translate:Translate",
    "tr0n": "bench.samplers.tr0n:Tr0n",
    "ascent": "bench.samplers.ascent:Ascent",
    "best-of": "bench.samplers.best_of:BestOf",
    "rejection": "bench.samplers.best_of:Rejection",
    "fusedream": "bench.samplers.fusedream:FuseDream",
    "feed-forward": "bench.samplers.feed_forward:FeedForward",
    "ppgn": "bench.samplers.ppgn:Ppgn",
    "classifier-guidance": "bench.samplers.diffusion:ClassifierGuidance",
    "steered-diffusion": "bench.samplers.diffusion:SteeredDiffusion",
    "noise-optimisation": "bench.samplers.noise:NoiseOptimisation",
}
JUDGES = {
    "classifier": "bench.judges.classifier:ClassifierJudge",
    "clip": "bench.judges.clip:ClipJudge",
    "open-clip": "bench.judges.open_clip:OpenClipJudge",
    "public-classifier": "bench.judges.public_classifier:PublicClassifierJudge",
    "inception": "bench.judges.inception:InceptionJudge",
    "dinov2": "bench.judges.dinov2:DinoV2Judge",
    "lpips": "bench.judges.lpips:LpipsJudge",
    "aug-clip": "bench.judges.aug_clip:AugClipJudge",
    "aug-open-clip": "bench.judges.aug_clip:AugOpenClipJudge",
    "pixels": "bench.judges.pixels:PixelsJudge",
}
METRICS = {
    "fid": "bench.metrics.fid:Fid",
    "clip-score": "bench.metrics.clip_score:ClipScore",
    "fid-infinity": "bench.metrics.fid_infinity:FidInfinity",
    "kid": "bench.metrics.kid:Kid",
    "cmmd": "bench.metrics.cmmd:Cmmd",
    "inception-score": "bench.metrics.inception_score:InceptionScore",
    "prdc": "bench.metrics.prdc:Prdc",
    "diversity": "bench.metrics.diversity:Diversity",
    "memorisation": "bench.metrics.memorisation:Memorisation",
    "aug-clip": "bench.metrics.clip_score:AugClip",
    "r-precision": "bench.metrics.r_precision:RPrecision",
    "image-similarity": "bench.metrics.image_similarity:ImageSimilarity",
    "class-accuracy": "bench.metrics.accuracy:ClassAccuracy",
    "classification-score": "bench.metrics.classification_score:ClassificationScore",
    "attribute-accuracy": "bench.metrics.accuracy:AttributeAccuracy",
    "composition-accuracy": "bench.metrics.composition:CompositionAccuracy",
    "speed": "bench.metrics.speed:Speed",
}

# Kinds whose block names code by an import path, as ``target``: reading a suite does not vouch for it.
CODE_KINDS = ("python", "module")

# Table of a suite -> its components. The suite's sections have the same names.
TABLES: dict[str, dict[str, str]] = {
    "data": SOURCES,
    "generators": GENERATORS,
    "conditioners": CONDITIONERS,
    "translators": TRANSLATORS,
    "samplers": SAMPLERS,
    "judges": JUDGES,
    "metrics": METRICS,
}


# What the harness reads from a component's configuration, by table; the contracts are in each room's base.py.
MEMBERS: dict[str, tuple[str, ...]] = {
    "data": ("resolution", "attributes", "load"),
    "generators": ("resolution", "load"),
    "conditioners": ("kind", "load"),
    "translators": ("num_pairs", "steps", "batch_size", "seed", "train", "read"),
    "samplers": ("steps", "uses_translator", "init", "step", "latent"),
    "judges": ("load",),
    "metrics": ("judge", "conditions", "compute"),
}


def resolve_path(target: str) -> Any:
    """The object at ``package.module:name``. Raises SuiteError when the module or the name is not there."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise SuiteError(f"'{target}' is not an import path. Write 'package.module:name'.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SuiteError(f"cannot import '{module_name}' of '{target}': {error}. Is it installed?") from error
    except Exception as error:
        raise SuiteError(
            f"cannot import '{module_name}' of '{target}': {type(error).__name__}: {error}."
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise SuiteError(f"module '{module_name}' has no '{name}'.{nearest(name, public)}") from None


def component_class(table: str, kind: str) -> Any:
    """The configuration dataclass listed under ``kind`` in a table of :data:`TABLES`."""
    entries = TABLES[table]
    if kind not in entries:
        allowed = ", ".join([*entries, "python"])
        raise SuiteError(f"unknown kind '{kind}' in {table}.{nearest(kind, entries)} Allowed: {allowed}.")
    return resolve_path(entries[kind])


def missing_members(table: str, config: Any) -> list[str]:
    """Names of :data:`MEMBERS` that a configuration object (or its class) lacks, quoted."""
    return [f"'{name}'" for name in MEMBERS[table] if not hasattr(config, name)]


def summary(cls: Any) -> str:
    """The first line of a component's docstring."""
    return next(iter((inspect.getdoc(cls) or "").splitlines()), "")
