"""How the zoo's diffusion model is trained: small grey images, which the generator enlarges."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.generators.enlarge import reduction
from bench.zoo.augment import jitter
from bench.zoo.figures import generator_figures
from bench.zoo.training import Training, make, to_unit, update_ema
from bench.zoo.unet import NoiseUnet

DRAWN_STEPS = 15  # DDIM steps of the figures on the card
SNR_BOUND = 5.0
NUM_TIMES = 1000


def unet_config(side: int, channels: Sequence[int]) -> dict[str, Any]:
    """UNet2DModel's arguments: one residual layer per level, attention at the lowest level alone."""
    levels = len(channels)
    return {
        "sample_size": side,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": list(channels),
        "down_block_types": ["DownBlock2D"] * levels,
        "up_block_types": ["UpBlock2D"] * levels,
        "norm_num_groups": 8,
        "attention_head_dim": 32,
    }


def schedule_config() -> dict[str, Any]:
    """DDIMScheduler's arguments: the cosine schedule (arXiv:2102.09672), v-prediction (arXiv:2202.00512)."""
    return {
        "num_train_timesteps": NUM_TIMES,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",  # the first step starts from noise alone (arXiv:2305.08891)
        "set_alpha_to_one": True,
        "clip_sample": False,
    }


class Drawn(nn.Module):
    """The pushforward of a network as :func:`generator_figures` draws from it."""

    num_classes = 0

    def __init__(self, network: Any, resolution: int):
        from bench.generators.diffusion import DiffusionGenerator

        super().__init__()
        self.generator = DiffusionGenerator(
            network, network.scheduler(), network.shape, resolution=resolution, steps=DRAWN_STEPS
        )
        self.z_dim = self.generator.latent.dim

    def forward(self, latent_ND: Tensor) -> Tensor:
        return self.generator.decode(latent_ND)


class DiffusionTraining(Training):
    """Mean squared error of v at uniform times, weighted by min(SNR, 5) / (SNR + 1) (arXiv:2303.09556).

    Images are jittered at the world's resolution, made grey and reduced to ``side`` px so that enlarging
    gives them back as nearly as it can.
    """

    architecture = "noise-unet"

    def __init__(
        self, seed, device, total_steps, *, data: str, side: int, channels: list[int],
        batch_size: int = 64, lr: float = 1e-3,
    ):  # fmt: skip
        super().__init__(seed, device, total_steps)
        self.batch_size, self.lr, self.data = batch_size, lr, data
        self.train = make(data, "train", device)["images"]
        self.matrix = reduction(side, self.train.shape[-1]).to(device)
        model = NoiseUnet(unet_config(side, channels), schedule_config()).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a tenth faster
        self.modules["model"] = self.model = model
        self.modules["ema"] = self.ema = copy.deepcopy(model).requires_grad_(False)
        self.optimizers["model"] = torch.optim.AdamW(
            model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-2
        )
        self.alphas = model.scheduler().alphas_cumprod.to(device)

    def clean(self, num: int, g: torch.Generator) -> Tensor:
        """``num`` training images (num, 1, side, side) in [-1, 1]."""
        index = torch.randint(len(self.train), (num,), generator=g, device=self.device)
        x = to_unit(self.train[index]).mean(1, keepdim=True)
        if self.data == "digits":
            x = jitter(x, g, degrees=6, scale=0.06, shift=0.05)
        return (self.matrix @ x @ self.matrix.T).clamp(-1, 1)

    def step(self, t: int) -> dict[str, Tensor]:
        self.set_lr("model", self.lr * self.cosine(t, 500))
        g = self.generator(t)
        x = self.clean(self.batch_size, g)
        # One time in each of batch_size equal parts: the loss of a batch wanders less.
        part = torch.arange(self.batch_size, device=self.device)
        uniform = torch.rand(self.batch_size, generator=g, device=self.device)
        times = ((part + uniform) * (NUM_TIMES / self.batch_size)).long().clamp(max=NUM_TIMES - 1)
        noise = torch.randn(x.shape, generator=g, device=self.device)
        alpha = self.alphas[times][:, None, None, None]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        found = self.model(signal * x + spread * noise, times)
        error = (found - (signal * noise - spread * x)).square().mean((1, 2, 3))
        snr = self.alphas[times] / (1 - self.alphas[times])
        loss = (error * snr.clamp(max=SNR_BOUND) / (snr + 1)).mean()
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers["model"].step()
        update_ema(self.ema, self.model, 0.999, t)
        return {"error": loss.detach()}

    def export(self) -> nn.Module:
        return self.ema

    def evaluate(self) -> dict[str, float]:
        reference = make(self.data, "val", torch.device("cpu"))["images"]
        drawn = Drawn(self.export().cpu().eval(), reference.shape[-1])
        return {"ddim_steps": DRAWN_STEPS} | generator_figures(drawn, self.data, reference, bound=None)
