"""Inception weight files in the published key format, with random weights that keep the signal's size."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch

from bench.torchvision_guard import ensure_torchvision


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Under the names and shapes of ``pt_inception-2015-12-05-6726825d.pth``."""
    ensure_torchvision()
    import torch_fidelity.feature_extractor_inceptionv3 as theirs

    network = theirs.FeatureExtractorInceptionV3
    with (
        mock.patch.object(theirs, "load_state_dict_from_url", return_value={}),
        mock.patch.object(network, "load_state_dict"),
    ):
        state = network("random", ["2048"]).state_dict()
    draws = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        if value.ndim == 4:  # He et al. 2015: the variance stays from layer to layer
            fan_in = value[0].numel()
            state[name] = torch.randn(value.shape, generator=draws) * (2 / fan_in) ** 0.5
        elif name.endswith(("bn.bias", "running_mean")):
            state[name] = 0.1 * torch.randn(value.shape, generator=draws)
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 1 + 0.2 * torch.rand(value.shape, generator=draws)
    return state


def write_weights(folder: Path, seed: int = 0, name: str = "pt_inception-2015-12-05-6726825d.pth") -> Path:
    """The path of such a file."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(random_state(seed), folder / name)
    return folder / name
