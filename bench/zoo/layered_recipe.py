"""How the layered GANs are trained: codes first, then how to draw them.

1. An autoencoder learns to take images apart into codes (backdrop, color, place, outline) and to lay the
   layers over each other again. No labels are used. It is a model of the zoo of its own.
2. Mapping networks learn to draw each code from normal noise, against a critic of codes of real images: the
   critic of adversarial autoencoders (Makhzani et al. 2015, arXiv:1511.05644), from the other side.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.zoo.figures import generator_figures
from bench.zoo.layered import CODES, SHOWS_CLASS, LayeredAutoencoder, LayeredGenerator
from bench.zoo.training import CLASS_HEADS, Training, autocast, make, to_unit, update_ema, world_heads

CODE_BATCH = 256
ENCODED = 20_000


class CodeCritic(nn.Module):
    """One critic per part of the code; with classes a projection term for the parts that show them."""

    def __init__(self, num_classes: int, width: int = 128):
        super().__init__()
        self.bodies = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(dim, width), nn.LeakyReLU(0.2),
                    nn.Linear(width, width), nn.LeakyReLU(0.2),
                    nn.Linear(width, width), nn.LeakyReLU(0.2),
                )
                for name, dim in CODES.items()
            }
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in CODES})
        self.embeddings = nn.ModuleDict(
            {name: nn.Embedding(num_classes, width) for name in SHOWS_CLASS if num_classes}
        )

    def forward(self, codes: Tensor, label: Tensor | None) -> Tensor:
        """One logit per part, (N, parts)."""
        columns = []
        for name, part in zip(CODES, codes.split(list(CODES.values()), dim=1)):
            h = self.bodies[name](part)
            out = self.heads[name](h)[:, 0]
            if label is not None and name in self.embeddings:
                out = out + (self.embeddings[name](label) * h).sum(1) / math.sqrt(h.shape[1])
            columns.append(out)
        return torch.stack(columns, dim=1)


@torch.no_grad()
def encode_all(model: LayeredAutoencoder, images: Tensor) -> Tensor:
    """Codes of real uint8 images (N, 3, 32, 32)."""
    return torch.cat([model.encode(to_unit(part)) for part in images[:ENCODED].split(500)])


class LayeredAutoencoderTraining(Training):
    """Mean squared error on half of the pixels; a little noise on the codes makes near ones look alike."""

    architecture = "layered-autoencoder"

    def __init__(self, seed, device, total_steps, *, data: str, batch_size: int = 64):
        super().__init__(seed, device, total_steps)
        self.data, self.batch_size = data, batch_size
        self.train = make(data, "train", device)
        self.model = LayeredAutoencoder().to(device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.modules = {"model": self.model, "ema": self.ema}
        self.optimizers = {"model": torch.optim.Adam(self.model.parameters(), lr=2e-3)}

    def step(self, t: int) -> dict[str, Tensor]:
        g = self.generator(t)
        self.set_lr("model", 2e-3 * self.cosine(t))
        index = torch.randint(len(self.train["images"]), (self.batch_size,), generator=g, device=self.device)
        x = to_unit(self.train["images"][index])
        with autocast(self.device):
            codes = self.model.encode(x)
        codes = codes.float()
        noisy = codes + 0.03 * torch.randn(codes.shape, generator=g, device=self.device)
        # Half of the pixels tell as much as all of them, and cost half.
        pixels = torch.randperm(x[0, 0].numel(), generator=g, device=self.device)[: x[0, 0].numel() // 2]
        # Soft edges first: behind a sharp one the inside gets no gradient.
        slope = 4.0 * min(1.0, 0.1 + 1.8 * t / self.total_steps)
        painter = self.model.painter
        seen = painter.pixels(noisy, painter.get_buffer("grid")[:, pixels], slope)
        loss = (seen - x.flatten(2)[:, :, pixels]).square().mean() + 1e-4 * codes.square().mean()
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers["model"].step()
        update_ema(self.ema, self.model, 0.995, t)
        return {"error": loss.detach()}

    def export(self) -> nn.Module:
        return self.ema

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean squared error on held-out images in [-1, 1], by value of the first attribute and in all."""
        val = make(self.data, "val", self.device)
        model = self.ema.eval()
        errors = torch.cat(
            [(model(x) - x).square().mean((1, 2, 3)) for x in map(to_unit, val["images"].split(500))]
        )
        name, values = next(iter(world_heads(self.data).items()))
        figures = {"error": float(errors.mean())}
        for k, value in enumerate(values):
            figures[f"error_{name}_{value}"] = float(errors[val["values"][:, 0] == k].mean())
        return figures


class LayeredGanTraining(Training):
    """Mapping networks against a critic of codes, non-saturating with R1 (arXiv:1801.04406).

    ``autoencoder`` names the model whose codes they learn and whose painter the generator takes over.
    ``classes`` adds BigGAN's class embedding (shape × color), told to the critic by projection.
    """

    architecture = "layered-generator"

    def __init__(self, seed, device, total_steps, *, data: str, classes: bool, autoencoder: str):
        super().__init__(seed, device, total_steps)
        from bench.zoo.weights import load_model

        self.data, self.classes = data, classes
        self.train = make(data, "train", device)
        self.num_classes = 0
        if classes:
            sizes = [len(values) for values in list(world_heads(data).values())[:CLASS_HEADS]]
            self.num_classes = math.prod(sizes)
            self.label = self.train["values"][:, 0] * sizes[1] + self.train["values"][:, 1]
        self.model = model = LayeredGenerator(16 if classes else 0, self.num_classes).to(device)
        self.critic = CodeCritic(self.num_classes).to(device)
        start = load_model(autoencoder, device)
        model.painter.load_state_dict(start.painter.state_dict())
        self.codes = encode_all(start, self.train["images"])
        model.set_scale(self.codes.mean(0), self.codes.std(0))
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.modules = {"generator": model, "critic": self.critic, "ema": self.ema}
        mapping = [p for name, p in model.named_parameters() if not name.startswith("painter")]
        betas = (0.0, 0.99)
        self.optimizers = {
            "mapping": torch.optim.Adam(mapping, lr=1e-3, betas=betas),
            "critic": torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=betas),
        }

    def draw(self, num: int, g: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Latents of the prior (normal clamped to [-2, 2], as TR0N uses) and class labels."""
        z = torch.randn(num, self.model.z_dim, generator=g, device=self.device).clamp(-2, 2)
        if not self.classes:
            return z, None
        label = torch.randint(self.num_classes, (num,), generator=g, device=self.device)
        return torch.cat([z, self.model.embedding(label)], dim=1), label

    def step(self, t: int) -> dict[str, Tensor]:
        g = self.generator(t)
        # Constant after a warm-up, then to zero over the second half.
        rate = 1e-3 * min(1.0, (t + 1) / 200) * min(1.0, 2 * (self.total_steps - t) / self.total_steps)
        self.set_lr("mapping", rate)
        self.set_lr("critic", rate)
        index = torch.randint(len(self.codes), (CODE_BATCH,), generator=g, device=self.device)
        real = self.model.standard(self.codes[index])
        real_label = self.label[index] if self.classes else None
        latent, label = self.draw(CODE_BATCH, g)
        fake = self.model.standard(self.model.codes(latent))
        real = real.requires_grad_()
        real_out = self.critic(real, real_label)
        fake_out = self.critic(fake.detach(), label)
        (slope,) = torch.autograd.grad(real_out.sum(), real, create_graph=True)
        penalty = slope.square().sum(1).mean()
        loss_d = F.softplus(-real_out).mean() + F.softplus(fake_out).mean() + 0.01 * penalty
        self.optimizers["critic"].zero_grad(set_to_none=True)
        loss_d.backward()
        self.optimizers["critic"].step()
        loss_g = F.softplus(-self.critic(fake, label)).mean()
        self.optimizers["mapping"].zero_grad(set_to_none=True)
        loss_g.backward()
        self.optimizers["mapping"].step()
        update_ema(self.ema, self.model, 0.999, t)
        return {"d": loss_d.detach(), "g": loss_g.detach()}

    def export(self) -> nn.Module:
        return self.ema

    def evaluate(self) -> dict[str, float]:
        reference: Any = make(self.data, "val", torch.device("cpu"))["images"]
        return generator_figures(self.export(), self.data, reference)
