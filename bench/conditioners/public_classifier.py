"""Class conditions through a public classifier of timm or torchvision."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.auxiliaries.classifier_files import ClassifierFiles
from bench.auxiliaries.classifiers import load_classifier
from bench.conditioners.classifier import ClassifierConditioner
from bench.types import ConditionKind


@dataclass(frozen=True, kw_only=True)
class PublicClassifierGuide(ClassifierFiles):
    """Energy -log p_c of a timm or torchvision classifier, from a local file.

    The condition vector is one-hot when sampling and f's probabilities when pairs are made.
    """

    @property
    def kind(self) -> ConditionKind:
        return "class"

    def load(self, device: torch.device) -> ClassifierConditioner:
        return ClassifierConditioner(load_classifier(self, device), self.heads, device)
