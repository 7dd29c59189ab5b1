"""Public networks in miniature: random weights in the published layouts, with consistent sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

OPENAI_MEAN = [0.48145466, 0.4578275, 0.40821073]
OPENAI_STD = [0.26862954, 0.26130258, 0.27577711]


def tiny_clip_config(folder: Path, *, quick_gelu: bool = True, size: int = 32) -> Path:
    """An ``open_clip_config.json`` of a ViT with 2 layers of width 64 and 16-dimensional embeddings."""
    vision = {"image_size": size, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    content = {
        "model_cfg": {"embed_dim": 16, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {
            "mean": OPENAI_MEAN, "std": OPENAI_STD, "interpolation": "bicubic", "resize_mode": "shortest",
        },
    }  # fmt: skip
    return _write(folder, content)


def tiny_siglip_config(folder: Path) -> Path:
    """The same of a SigLIP, whose text tokenizer is a hub's."""
    timm_vit = {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False}
    content = {
        "model_cfg": {
            "embed_dim": 192,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {"image_size": 32, **timm_vit, "timm_pool": "map", "timm_proj": "none"},
            "text_cfg": {
                "context_length": 16, "vocab_size": 200, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
                "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 192, "heads": 3, "layers": 1,
                "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
            },
        },
        "preprocess_cfg": {
            "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash",
        },
    }  # fmt: skip
    return _write(folder, content)


def _write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(content))
    return path


def open_clip_of(config: Path, seed: int = 0) -> nn.Module:
    """open_clip's own model of a configuration, with seeded random weights."""
    from bench.torchvision_guard import ensure_torchvision

    ensure_torchvision()
    import open_clip

    torch.manual_seed(seed)
    return open_clip.create_model(f"local-dir:{config.parent}", load_weights=False).eval()


def save_safetensors(model: nn.Module, path: Path) -> Path:
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def tiny_tokenizer(folder: Path, words: str = "a red blue green circle square star picture of") -> Path:
    """A word-level tokenizer in transformers' layout, with padding and an end token, as SigLIP's has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {word: i + 3 for i, word in enumerate(words.split())}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return folder
