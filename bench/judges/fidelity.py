"""Any judge as a torch-fidelity feature extractor, so that torch-fidelity itself can score the same files."""

from __future__ import annotations

from typing import Any

import torch

from bench.judges.base import Judge
from bench.torchvision_guard import ensure_torchvision


def register(name: str, judge: Judge) -> str:
    """Registers ``judge`` with torch-fidelity under ``name`` and returns the name.

    Use it as ``torch_fidelity.calculate_metrics(fid=True, feature_extractor=name,
    feature_layer_fid="features", ...)``. Images reach the judge as uint8, features return as float32.
    """
    ensure_torchvision()
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import register_feature_extractor

    class JudgeExtractor(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any):
            super().__init__(name, features_list)
            self.eval()

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> torch.Tensor:
            return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features = judge.readout(x.cpu().numpy()).features
            return (torch.from_numpy(features).to(x.device),)

    register_feature_extractor(name, JudgeExtractor)
    return name
