"""A small diffusion model: diffusers' UNet on patches, v-prediction on a cosine schedule, DDIM as G(z)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from bench.extras import optional
from bench.generators.ddim import ddim

NUM_TRAIN_STEPS = 1000
WHAT = "the zoo's diffusion model"


def ddim_scheduler() -> Any:
    """diffusers' DDIM scheduler on the cosine schedule of arXiv:2102.09672, v-prediction of arXiv:2202.00512.

    Timesteps are "trailing", so that the first of any number of steps starts at pure noise.
    """
    return optional("diffusers", WHAT).DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


class DiffusionModel(nn.Module):
    """``denoise`` predicts v from noisy images (N, 3, 32, 32) in [-1, 1] and timesteps (N,) in 0 … 999.

    The UNet works on patches of ``patch`` × ``patch`` pixels as channels, four times as fast at 2.
    ``forward`` maps noise (N, 3072) to images by ``steps`` DDIM steps, as the zoo's other generators do.
    """

    num_classes = 0
    resolution = 32
    z_dim = 3 * 32 * 32

    def __init__(
        self, channels: tuple[int, ...] = (48, 96), layers: int = 1, patch: int = 2, steps: int = 15
    ):
        super().__init__()
        self.config = {"channels": list(channels), "layers": layers, "patch": patch, "steps": steps}
        self.patch, self.steps = patch, steps
        self.unet = optional("diffusers", WHAT).UNet2DModel(
            sample_size=self.resolution // patch,
            in_channels=3 * patch**2,
            out_channels=3 * patch**2,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            norm_num_groups=8,
            attention_head_dim=channels[-1] // 2,
        )

    def denoise(self, images_NCHW: Tensor, timesteps_N: Tensor) -> Tensor:
        """v (N, 3, 32, 32) float32."""
        patches = F.pixel_unshuffle(images_NCHW, self.patch)
        return F.pixel_shuffle(self.unet(patches, timesteps_N).sample.float(), self.patch)

    def forward(self, z_ND: Tensor) -> Tensor:
        noise = z_ND.view(-1, 3, self.resolution, self.resolution)
        return ddim(self.denoise, ddim_scheduler(), noise, self.steps).clamp(-1, 1)
