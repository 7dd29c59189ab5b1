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


WORDS = "a picture of red blue green yellow circle square star triangle small large on the left right top"


def _bert_tokenizer(folder: Path) -> int:
    """A BERT tokenizer with BLIP's special tokens; gives the number of its tokens."""
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}, do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    tokenizer.save_pretrained(folder)
    return len(tokens)


def _preprocessor(folder: Path, kind: str, size: int) -> None:
    content = {
        "image_processor_type": kind, "image_mean": OPENAI_MEAN, "image_std": OPENAI_STD, "do_resize": True,
        "size": {"height": size, "width": size}, "do_normalize": True, "do_rescale": True, "resample": 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def tiny_blip(folder: Path, seed: int = 0) -> Path:
    """BLIP for captions, two layers of width 32 on 32 px images, in transformers' layout."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

    num = _bert_tokenizer(folder)
    _preprocessor(folder, "BlipImageProcessor", 32)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = BlipTextConfig(
        vocab_size=num, encoder_hidden_size=32, projection_dim=16, max_position_embeddings=64,
        bos_token_id=5, eos_token_id=3, sep_token_id=3, pad_token_id=0, **sizes,
    )  # fmt: skip
    vision = BlipVisionConfig(
        image_size=32, patch_size=8, projection_dim=16, initializer_range=0.1, **sizes
    )  # the default, 1e-10, is for weights that are loaded
    torch.manual_seed(seed)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    model = BlipForConditionalGeneration(config)
    _lively(model)
    model.save_pretrained(folder)
    return folder


def tiny_blip2(folder: Path, seed: int = 0) -> Path:
    """BLIP-2 with OPT, two layers of width 32 on 32 px images, in transformers' layout."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        OPTConfig,
    )

    num = _bert_tokenizer(folder)
    _preprocessor(folder, "BlipImageProcessor", 32)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = Blip2VisionConfig(image_size=32, patch_size=8, initializer_range=0.1, **sizes)
    qformer = Blip2QFormerConfig(vocab_size=num, encoder_hidden_size=32, cross_attention_frequency=1, **sizes)
    text = OPTConfig(
        vocab_size=num + 1, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, word_embed_proj_dim=32, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = Blip2Config(
        vision_config=vision.to_dict(), qformer_config=qformer.to_dict(), text_config=text.to_dict(),
        num_query_tokens=4, image_token_index=num,
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    _lively(model)
    model.save_pretrained(folder)
    return folder


def _lively(model: nn.Module) -> None:
    """Larger weights, most so where text looks at the image: captions then differ from image to image."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(40 if "crossattention" in name or "language_projection" in name else 10)


def tiny_clip_folder(folder: Path, seed: int = 0) -> Path:
    """A CLIP in transformers' layout (as PickScore's): two layers of width 32, 16-dimensional embeddings."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    tiny_tokenizer(folder)
    _preprocessor(folder, "CLIPImageProcessor", 32)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=64, max_position_embeddings=16, eos_token_id=1, bos_token_id=0, **sizes)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    return folder
