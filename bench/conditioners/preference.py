"""Human preference rewards: PickScore, HPSv2 and ImageReward from their published files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.assets.missing import Published, missing_asset
from bench.assets.pickles import load_torch_file
from bench.auxiliaries.clip_files import ClipFiles
from bench.auxiliaries.hub_folder import load_pretrained, need_transformers
from bench.auxiliaries.open_clip import load_open_clip
from bench.conditioners.reward import RewardConditioner, embedded_once, shown, texts_of
from bench.errors import WeightError
from bench.extras import optional
from bench.streams import Streams
from bench.types import Condition, ConditionKind


class _Text:
    @property
    def kind(self) -> ConditionKind:
        return "text"


@dataclass(frozen=True, kw_only=True)
class PickScore(_Text):
    """Energy -PickScore(x, text) = -exp(logit scale) cos of the CLIP of yuvalkirstain/PickScore_v1.

    ``folder`` is a CLIP in transformers' layout with its tokenizer and preprocessor_config.json (PickScore's
    processor is that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K). About 20 for usual pictures. Texts longer
    than the context are cut before the end token. Source: Kirstain et al. 2023, arXiv:2305.01569.
    """

    folder: str

    @property
    def assets(self) -> dict[str, Published | None]:
        """The folder, with what is known of the public one."""
        return {
            "folder": Published(
                what="PickScore, a CLIP in transformers' layout",
                source="https://huggingface.co/yuvalkirstain/PickScore_v1, processor files from "
                "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                size="about 4 GB",
            )
        }

    def load(self, device: torch.device) -> PickScoreConditioner:
        transformers, folder = need_transformers("pickscore"), Path(self.folder)
        model, _ = load_pretrained(folder, {"clip": "CLIPModel"}, self.assets["folder"], field="folder")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            found = json.loads((folder / "preprocessor_config.json").read_text())
            mean, std = tuple(found["image_mean"]), tuple(found["image_std"])
        except (OSError, ValueError, KeyError) as error:
            raise WeightError(
                f"pickscore folder '{folder}': tokenizer or preprocessor_config.json cannot be read: "
                f"{error}. Fetch the whole folder, and the processor's files into it."
            ) from error
        return PickScoreConditioner(model.to(device), tokenizer, mean, std, device)


class PickScoreConditioner(RewardConditioner):
    """exp(logit scale) times the cosine of transformers' CLIPModel; ``dim`` is the embedding's size."""

    def __init__(self, model: Any, tokenizer: Any, mean: Any, std: Any, device: torch.device):
        self.model, self.tokenizer, self.mean, self.std, self.device = model, tokenizer, mean, std, device
        self.dim = model.config.projection_dim

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        def one(texts: list[str]) -> Tensor:
            length = self.model.config.text_config.max_position_embeddings
            found = self.tokenizer(
                texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            ids, mask = found.input_ids.to(self.device), found.attention_mask.to(self.device)
            seen = self.model.text_model(input_ids=ids, attention_mask=mask)
            return self.model.text_projection(seen.pooler_output).float()

        return embedded_once(texts_of(conditions, "pickscore"), one)

    def truncated(self, conditions: Sequence[Condition]) -> list[bool]:
        """Which conditions' texts do not fit the context, and are cut before the end token."""
        length = self.model.config.text_config.max_position_embeddings
        return [len(self.tokenizer(condition.text or "").input_ids) > length for condition in conditions]

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return self.features(images_NCHW)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Raw embeddings (N, dim) of images in [-1, 1], differentiable."""
        size = self.model.config.vision_config.image_size
        seen = self.model.vision_model(pixel_values=shown(images_NCHW, size, self.mean, self.std))
        return self.model.visual_projection(seen.pooler_output).float()

    def reward(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        cosine = F.cosine_similarity(self.features(images_NCHW), condition_ND, dim=1)
        return self.model.logit_scale.exp() * cosine


@dataclass(frozen=True, kw_only=True)
class HpsV2(_Text):
    """Energy -HPSv2(x, text): minus the cosine of the fine-tuned CLIP ViT-H-14 (about 0.2 … 0.3).

    ``weights`` is ``HPS_v2_compressed.pt`` or ``HPS_v2.1_compressed.pt`` of xswu/HPSv2: a checkpoint with the
    state dict of open_clip's ViT-H-14 below "state_dict". ``config`` replaces the architecture.
    Source: Wu et al. 2023, arXiv:2306.09341.
    """

    weights: str
    sha256: str | None = None
    trust: bool = False
    config: str | None = None
    companions: ClassVar[tuple[str, ...]] = ("config",)

    @property
    def assets(self) -> dict[str, Published | None]:
        """The files, with what is known of the public ones."""
        files: dict[str, Published | None] = {
            "weights": Published(
                what="HPSv2's fine-tuned CLIP ViT-H-14", source="https://huggingface.co/xswu/HPSv2",
                size="about 2 GB",
            )
        }  # fmt: skip
        return files | ({} if self.config is None else {"config": None})

    def load(self, device: torch.device) -> HpsConditioner:
        if not Path(self.weights).is_file():
            raise missing_asset(self.assets["weights"] or Published(what="HPSv2", source=""), self.weights)
        files = ClipFiles(
            model="ViT-H-14", pretrained="laion2b_s32b_b79k", weights=self.weights, sha256=self.sha256,
            trust=self.trust,
        )  # fmt: skip
        if self.config is not None:
            files = replace(files, pretrained=None, config=self.config)
        return HpsConditioner(load_open_clip(files, device), device)


class HpsConditioner(RewardConditioner):
    """The cosine of an open_clip CLIP; ``dim`` is the embedding's size."""

    def __init__(self, network: Any, device: torch.device):
        self.network, self.device, self.dim = network, device, network.embed_dim

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        net = self.network
        return embedded_once(
            texts_of(conditions, "hpsv2"),
            lambda texts: net.encode_text(net.tokenizer(texts).to(self.device)).float(),
        )

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return self.features(images_NCHW)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Raw embeddings (N, dim) of images in [-1, 1], differentiable."""
        net = self.network
        return net.encode_image(shown(images_NCHW, net.image_size, net.image_mean, net.image_std)).float()

    def reward(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        return F.cosine_similarity(self.features(images_NCHW), condition_ND, dim=1)


# Of the published reward model, by which its MLP's output is standardised.
IMAGE_REWARD_MEAN, IMAGE_REWARD_STD = 0.16717362830052426, 1.0333394966054072


@dataclass(frozen=True, kw_only=True)
class ImageReward(_Text):
    """Energy -ImageReward(x, text), through its own package (extra ``image-reward``).

    ``weights`` is ``ImageReward.pt`` and ``config`` its ``med_config.json``, both of THUDM/ImageReward.
    The package builds the network; images go in as tensors, so that gradients come out. Source: Xu et al.
    2023, arXiv:2304.05977.
    """

    weights: str
    config: str
    sha256: str | None = None
    makes_pairs: ClassVar[bool] = False
    companions: ClassVar[tuple[str, ...]] = ("config",)

    @property
    def assets(self) -> dict[str, Published | None]:
        """The files, with what is known of the public ones."""
        page = "https://huggingface.co/THUDM/ImageReward"
        return {
            "weights": Published(what="ImageReward.pt", source=page, size="about 1.8 GB"),
            "config": Published(what="ImageReward's med_config.json", source=page),
        }

    def load(self, device: torch.device) -> ImageRewardConditioner:
        package = optional("ImageReward.ImageReward", "image-reward", "image-reward")
        for field, published in self.assets.items():
            if published is not None and not Path(getattr(self, field)).is_file():
                raise missing_asset(published, getattr(self, field), field=field)
        model = package.ImageReward(med_config=self.config, device=str(device))
        state = load_torch_file(self.weights, sha256=self.sha256)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise WeightError(f"weight file '{self.weights}' does not fit ImageReward: {error}") from error
        return ImageRewardConditioner(model.to(device).eval().requires_grad_(False), device)


class ImageRewardConditioner(RewardConditioner):
    """The condition is the text's token ids and mask in a row, (N, 2 * 35) float32."""

    length = 35
    size = 224
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, model: Any, device: torch.device):
        self.model, self.device, self.dim = model, device, 2 * self.length

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        found = self.model.blip.tokenizer(
            texts_of(conditions, "image-reward"), padding="max_length", truncation=True,
            max_length=self.length, return_tensors="pt",
        )  # fmt: skip
        return torch.cat([found.input_ids, found.attention_mask], dim=1).float().to(self.device)

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return images_NCHW.new_zeros(len(images_NCHW), self.dim)

    def reward(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        ids, mask = condition_ND.long().split(self.length, dim=1)
        seen = self.model.blip.visual_encoder(shown(images_NCHW, self.size, self.mean, self.std))
        read = self.model.blip.text_encoder(
            ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
            return_dict=True,
        )
        value = self.model.mlp(read.last_hidden_state[:, 0].float())[:, 0]
        return (value - IMAGE_REWARD_MEAN) / IMAGE_REWARD_STD
