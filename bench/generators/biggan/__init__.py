"""BigGAN (Brock et al. 2019, arXiv:1809.11096) and BigGAN-deep, from the published PyTorch state dicts.

``brock`` reads the format of ajbrock/BigGAN-PyTorch, which TR0N and FuseDream use; ``deep`` reads that of
huggingface/pytorch-pretrained-BigGAN. Both give a latent of noise ``z`` and class embedding ``y``.
"""
