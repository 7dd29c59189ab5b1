"""Captioners: a caption of each generated image, for the synthetic pairs of a translator.

A captioner's dataclass offers ``load(device)``; what that gives offers ``captions(images, streams)``: one
text per image in [-1, 1], (N, 3, H, W), that depends on the image and its own stream alone.
"""
