"""The shipped protocols: what each public evaluation does, field by field, with the source of each.

Versions read: layer6ai-labs/tr0n @ 1849089, mseitzer/pytorch-fid @ b9c1811, toshas/torch-fidelity @ 5e211a9,
GaParmar/clean-fid @ e88c4d6, mlcommons/inference @ b66003e, mingukkang/GigaGAN @ 9fba242,
stanford-crfm/helm @ 63754d0. Where a source leaves a field open the comment says so.
"""

from __future__ import annotations

from typing import Any

# The TF-Inception of 2015-12-05 ported to PyTorch. pytorch-fid (pt_inception-…) and torch-fidelity
# (weights-inception-…) publish the same file: torch hub's name carries the first digits of its hash.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION = {"extractor": "inception-2015-12-05", "extractor_sha256": INCEPTION_SHA256}
NUM_VAL2014 = 40_504
MANY = 1_000_000  # all images there are

SHIPPED: dict[str, dict[str, Any]] = {
    # What the suite says and nothing else: the built-in worlds' protocol.
    "native": {},
    # TR0N's evaluator: modules/trainers/hybrid_evaluator_synthetic_biggan.py, modules/metrics/pytorch_fid.
    "tr0n-2023": {
        **INCEPTION,
        "resolution": 512,
        "quantise": "floor",  # torchvision's ToPILImage multiplies floats by 255 and cuts off
        "codec": "jpeg-75",  # PIL's save to .jpg without options
        "caption": "first",
        "num_samples": NUM_VAL2014,
        "num_reference": NUM_VAL2014,
        "crop": "centre-round",  # torchvision's center_crop to the short side
        "resize_filter": "bilinear",  # torchvision's Resize on a PIL image
        "eval_size": 512,  # the generator's size
        "extractor_resize": "pytorch-fid",
        "extractor_scale": "symmetric",
    },
    # Ours: what we recommend for MS-COCO. The manifest is frozen by whoever has the captions
    # (tr0n-bench manifest), and its hash then belongs to the suite.
    "coco30k-clean-v1": {
        **INCEPTION,
        "resolution": 256,
        "caption": "file",
        "num_samples": 30_000,
        "num_reference": NUM_VAL2014,
        "crop": "centre",
        "resize_filter": "bicubic",
        "eval_size": 256,
        "extractor_resize": "clean",
        "extractor_scale": "tensorflow",
    },
    # The three libraries as they treat two folders of images: no crop, no size of their own before 299.
    "torch-fidelity": {
        **INCEPTION,
        "num_reference": MANY,
        "crop": "none",
        "extractor_resize": "torch-fidelity",
        "extractor_scale": "tensorflow",
    },
    "clean-fid": {
        **INCEPTION,
        "num_reference": MANY,
        "crop": "none",
        "extractor_resize": "clean",
        "extractor_scale": "tensorflow",
    },
    "pytorch-fid": {
        **INCEPTION,
        "num_reference": MANY,
        "crop": "none",
        "extractor_resize": "pytorch-fid",
        "extractor_scale": "symmetric",
    },
    # text_to_image/tools: 5,000 fixed captions, raw bytes from the log, a vendored pytorch-fid; statistics of
    # val2014 come as a file whose crop and resize before 299 are not stated (none is assumed).
    "mlperf-sdxl-5k": {
        **INCEPTION,
        "resolution": 1024,
        "eval_size": 1024,
        "caption": "file",
        "num_samples": 5_000,
        "num_reference": NUM_VAL2014,
        "crop": "none",
        "extractor_resize": "pytorch-fid",
        "extractor_scale": "symmetric",
    },
    # evaluation/evaluation.py: CenterCropLongEdge and Pillow's Lanczos to 256 on both sets, then clean-fid;
    # every file of val2014 is the reference. The captions came with the samples (captions.txt).
    "gigagan-30k": {
        **INCEPTION,
        "resolution": 256,
        "caption": "file",
        "num_samples": 30_000,
        "num_reference": NUM_VAL2014,
        "crop": "centre-round",
        "resize_filter": "lanczos",
        "eval_size": 256,
        "extractor_resize": "clean",
        "extractor_scale": "tensorflow",
    },
    # metrics/image_generation/fidelity_metrics.py: both sets squeezed to 512 x 512 by Pillow's ANTIALIAS
    # (Lanczos) without a crop, the gold JPEG files saved as JPEG again, then pytorch-fid. The gold images
    # are those of the prompts; their number is the scenario's.
    "heim": {
        **INCEPTION,
        "resolution": 512,
        "caption": "file",
        "reference": "prompts",
        "num_reference": MANY,
        "reference_codec": "jpeg-75",
        "crop": "none",
        "resize_filter": "lanczos",
        "eval_size": 512,
        "extractor_resize": "pytorch-fid",
        "extractor_scale": "symmetric",
    },
}
NAMES = tuple(SHIPPED)
