"""Small random models in diffusers' published layout, written into a folder by the tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bench.torchvision_guard import ensure_torchvision

ensure_torchvision()
RESOLUTION = 16


def write_unconditional(folder: Path, scheduler: str = "DDPMScheduler", channels: int = 3) -> Path:
    """A DDPMPipeline: UNet2DModel at 16 px."""
    import diffusers

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=RESOLUTION, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), norm_num_groups=4, attention_head_dim=8,
    )  # fmt: skip
    made = getattr(diffusers, scheduler)(num_train_timesteps=1000)
    diffusers.DDPMPipeline(unet=unet, scheduler=made).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path) -> object:
    """CLIP's byte-pair tokenizer with letters alone: every word is spelt."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{x}</w>" for x in letters]]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def vae(scale: int = 2):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8,) * scale,
        down_block_types=("DownEncoderBlock2D",) * scale, up_block_types=("UpDecoderBlock2D",) * scale,
        norm_num_groups=4, sample_size=RESOLUTION,
    )  # fmt: skip


def write_text_to_image(
    folder: Path, *, large: bool = False, scheduler: str = "EulerDiscreteScheduler"
) -> Path:
    """A StableDiffusionPipeline, or (``large``) a StableDiffusionXLPipeline."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(1)
    tokenizer = write_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=54, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=8,
    )  # fmt: skip
    extra = {}
    if large:
        extra = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 8,
        }  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4, attention_head_dim=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16 if large else 8, **extra,
    )  # fmt: skip
    schedule = getattr(diffusers, scheduler)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    parts = {"vae": vae(), "text_encoder": CLIPTextModel(text), "tokenizer": tokenizer}
    parts |= {"unet": unet, "scheduler": schedule}
    if large:
        second = CLIPTextModelWithProjection(text)
        pipeline = diffusers.StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer)
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)
    return folder
