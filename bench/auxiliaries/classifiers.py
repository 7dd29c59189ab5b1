"""Loads a classifier of timm or torchvision from a local file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.assets.state import check_state, read_state
from bench.auxiliaries.classifier_files import PRESETS, ClassifierFiles, Preprocessing, class_names
from bench.auxiliaries.pictures import normalise
from bench.errors import WeightError, nearest
from bench.torchvision_guard import ensure_torchvision


class PublicClassifier(nn.Module):
    """A frozen classifier with the attribute that it reads: ``heads`` maps it to the classes, in order.

    Called with images in [-1, 1] it gives logits by head and is differentiable; ``features`` is what its last
    layer sees, (N, F). ``prepare`` and ``read`` do the same from uint8, by torchvision's transforms on Pillow
    images, as published accuracies are measured.
    """

    def __init__(self, network: nn.Module, head: str, classes: tuple[str, ...], how: Preprocessing):
        super().__init__()
        self.network: Any = network
        self.how = how
        self.heads = {head: classes}
        self._last: Any = last_layer(network)

    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        return self._named(self.network(self._resized(images_NCHW)))

    def read(self, prepared_NCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (N, F) and logits of images that :meth:`prepare` gave."""
        seen: list[Tensor] = []
        handle = self._last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            logits = self.network(prepared_NCHW)
        finally:
            handle.remove()
        features = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0].flatten(1)
        return features, self._named(logits)

    def prepare(self, images_NCHW: np.ndarray) -> Tensor:
        """uint8 (N, 3, H, W) → normalised float32 (N, 3, size, size), on the CPU."""
        ensure_torchvision()
        from PIL import Image
        from torchvision import transforms

        mode = transforms.InterpolationMode(self.how.interpolation)
        transform = transforms.Compose(
            [
                transforms.Resize(int(self.how.size / self.how.crop), mode),
                transforms.CenterCrop(self.how.size),
                transforms.ToTensor(),
                transforms.Normalize(self.how.mean, self.how.std),
            ]
        )
        return torch.stack([transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images_NCHW])

    def _named(self, logits: Tensor) -> dict[str, Tensor]:
        (head,) = self.heads
        return {head: logits}

    def _resized(self, images_NCHW: Tensor) -> Tensor:
        """The same geometry on tensors in [-1, 1], differentiable: antialiased, without rounding."""
        how, (height, width) = self.how, images_NCHW.shape[-2:]
        x = (images_NCHW + 1) / 2
        short = int(how.size / how.crop)
        if min(height, width) != short:
            # As torchvision counts: the longer side is rounded down.
            side = tuple(short * length // min(height, width) for length in (height, width))
            x = F.interpolate(x, side, mode=how.interpolation, align_corners=False, antialias=True)
        top, left = (round((side - how.size) / 2) for side in x.shape[-2:])
        return normalise(x[..., top : top + how.size, left : left + how.size], how.mean, how.std)


def last_layer(network: Any) -> nn.Module:
    """The layer that gives the logits. Raises WeightError where none is found."""
    if hasattr(network, "get_classifier") and isinstance(network.get_classifier(), nn.Module):
        return network.get_classifier()
    linear = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not linear:
        raise WeightError(f"{type(network).__name__} has no last layer to take features from.")
    return linear[-1]


def preprocessing(files: ClassifierFiles) -> Preprocessing:
    """The preset with the values that the suite replaces. Raises WeightError where timm states none."""
    how = _stated_by_timm(files.model) if files.preset == "timm" else PRESETS[files.preset]
    names = ("size", "crop", "mean", "std", "interpolation")
    return replace(how, **{name: value for name in names if (value := getattr(files, name)) is not None})


def _stated_by_timm(model: str) -> Preprocessing:
    ensure_torchvision()
    import timm

    found = timm.get_pretrained_cfg(model)
    if found is None:
        raise WeightError(f"timm states no preprocessing for '{model}'. Use preset: imagenet, or cifar10.")
    return Preprocessing(
        size=found.input_size[-1], crop=found.crop_pct, mean=found.mean, std=found.std,
        interpolation="bicubic" if found.interpolation == "bicubic" else "bilinear",
    )  # fmt: skip


def load_classifier(files: ClassifierFiles, device: torch.device) -> PublicClassifier:
    """The network of a configuration on ``device``: eval mode, frozen, float32.

    Raises WeightError where a file is missing, is code and not trusted, or does not fit the architecture,
    naming the keys; and for an architecture that the library does not have.
    """
    state = read_state(
        files.weights, published=files.assets["weights"], sha256=files.sha256, trust=files.trust,
        inner="state_dict",
    )  # fmt: skip
    classes = class_names(files)
    network = _build(files, len(classes))
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = network.state_dict()
    # Counts of batches, which older files lack and evaluation does not read.
    state |= {k: v for k, v in own.items() if k.endswith("num_batches_tracked") and k not in state}
    what = f"{files.library}'s {files.model} with {len(classes)} classes"
    check_state(state, own, what=what, path=files.weights)
    network.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()})
    classifier = PublicClassifier(network, files.head, classes, preprocessing(files))
    return classifier.to(device).eval().requires_grad_(False)


def _build(files: ClassifierFiles, num_classes: int) -> Any:
    ensure_torchvision()
    if files.library == "timm":
        import timm

        base = files.model.partition(".")[0]
        if not timm.is_model(base):
            raise WeightError(f"timm has no model '{base}'.{nearest(base, timm.list_models())}")
        return timm.create_model(files.model, pretrained=False, num_classes=num_classes)
    from torchvision import models

    names = models.list_models(module=models)
    if files.model not in names:
        raise WeightError(
            f"torchvision has no classifier '{files.model}'.{nearest(files.model, names)} "
            f"It has: {', '.join(names)}."
        )
    return models.get_model(files.model, weights=None, num_classes=num_classes)
