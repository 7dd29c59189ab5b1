"""How the layered GANs are trained: outlines first, then codes, then whole images.

1. An autoencoder learns to take images apart into codes (backdrop, color, place, outline) and to lay the
   layers over each other again. No labels are used. It is a model of the zoo of its own.
2. Mapping networks learn to draw each code from normal noise, against a critic of codes of real images, as in
   adversarial autoencoders (Makhzani et al. 2015, arXiv:1511.05644), read the other way round.
3. Mapping networks and outlines learn together against critics of whole images: of pixels, and of a frozen
   classifier's feature maps, as in Projected GANs (Sauer et al. 2021, arXiv:2111.01007).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.zoo import networks
from bench.zoo.augment import shift
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
    """Stages 2 and 3. ``map_steps`` is how long the second lasts.

    ``classes`` adds BigGAN's class embedding (shape × color), told to the critics by projection.
    ``autoencoder`` names the model to start from, ``features`` a classifier of the zoo for stage 3 that is
    neither a guide nor a judge.
    """

    architecture = "layered-generator"

    def __init__(
        self, seed, device, total_steps, *, data: str, classes: bool, autoencoder: str, features: str,
        map_steps: int, batch_size: int = 32,
    ):  # fmt: skip
        super().__init__(seed, device, total_steps)
        from bench.zoo.weights import load_model

        self.data, self.batch_size, self.classes, self.map_steps = data, batch_size, classes, map_steps
        self.train = make(data, "train", device)
        self.num_classes = 0
        if classes:
            sizes = [len(values) for values in list(world_heads(data).values())[:CLASS_HEADS]]
            self.num_classes = math.prod(sizes)
            self.label = self.train["values"][:, 0] * sizes[1] + self.train["values"][:, 1]
        self.features = load_model(features, device)
        widths = tuple(x.shape[1] for x in self.features.maps(torch.zeros(1, 3, 32, 32, device=device)))
        self.model = model = LayeredGenerator(16 if classes else 0, self.num_classes).to(device)
        self.code_critic = CodeCritic(self.num_classes).to(device)
        self.critic = networks.Discriminator(self.num_classes, feature_channels=widths).to(device)
        start = load_model(autoencoder, device)
        model.painter.load_state_dict(start.painter.state_dict())
        self.codes = encode_all(start, self.train["images"])
        model.set_scale(self.codes.mean(0), self.codes.std(0))
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.modules = {
            "generator": model, "code_critic": self.code_critic, "critic": self.critic, "ema": self.ema
        }  # fmt: skip
        mapping = [p for name, p in model.named_parameters() if name.startswith(("mapping", "embedding"))]
        adam = torch.optim.Adam
        self.optimizers = {
            "mapping": adam(mapping, lr=1e-3, betas=(0.0, 0.99)),
            "code_critic": adam(self.code_critic.parameters(), lr=1e-3, betas=(0.0, 0.99)),
            "generator": adam(model.parameters(), lr=1e-4, betas=(0.0, 0.99)),
            "critic": adam(self.critic.parameters(), lr=4e-4, betas=(0.0, 0.99)),
        }

    def step(self, t: int) -> dict[str, Tensor]:
        if t < self.map_steps:
            return self.map_codes(t)
        return self.finish(t, t - self.map_steps, self.total_steps - self.map_steps)

    def draw(self, num: int, g: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Latents of the prior (normal clamped to [-2, 2], as TR0N uses) and class labels."""
        z = torch.randn(num, self.model.z_dim, generator=g, device=self.device).clamp(-2, 2)
        if not self.classes:
            return z, None
        label = torch.randint(self.num_classes, (num,), generator=g, device=self.device)
        return torch.cat([z, self.model.embedding(label)], dim=1), label

    def pick(self, num: int, largest: int, g: torch.Generator) -> Tensor:
        return torch.randint(largest, (num,), generator=g, device=self.device)

    def map_codes(self, t: int) -> dict[str, Tensor]:
        g = self.generator(t)
        rate = 1e-3 * min(1.0, (t + 1) / 200) * min(1.0, 2 * (self.map_steps - t) / self.map_steps)
        self.set_lr("mapping", rate)
        self.set_lr("code_critic", rate)
        index = self.pick(CODE_BATCH, len(self.codes), g)
        real = self.model.standard(self.codes[index])
        real_label = self.label[index] if self.classes else None
        latent, label = self.draw(CODE_BATCH, g)
        fake = self.model.standard(self.model.codes(latent))
        real = real.requires_grad_()
        real_out = self.code_critic(real, real_label)
        fake_out = self.code_critic(fake.detach(), label)
        (slope,) = torch.autograd.grad(real_out.sum(), real, create_graph=True)
        penalty = slope.square().sum(1).mean()  # R1, as in Mescheder et al. 2018, arXiv:1801.04406
        loss_d = F.softplus(-real_out).mean() + F.softplus(fake_out).mean() + 0.02 * penalty
        self.optimizers["code_critic"].zero_grad(set_to_none=True)
        loss_d.backward()
        self.optimizers["code_critic"].step()
        loss_g = F.softplus(-self.code_critic(fake, label)).mean()
        self.optimizers["mapping"].zero_grad(set_to_none=True)
        loss_g.backward()
        self.optimizers["mapping"].step()
        update_ema(self.ema, self.model, 0.999, t)
        return {"d": loss_d.detach(), "g": loss_g.detach()}

    def finish(self, t: int, k: int, total: int) -> dict[str, Tensor]:
        if k == 0:
            self.model.load_state_dict(self.ema.state_dict())
        g = self.generator(t)
        fade = min(1.0, 2 * (total - k) / total)
        self.set_lr("critic", 4e-4 * fade * min(1.0, (k + 1) / 100))
        index = self.pick(self.batch_size, len(self.train["images"]), g)
        real = shift(to_unit(self.train["images"][index]), g, 2)
        latent, label = self.draw(self.batch_size, g)
        real_label = self.label[index] if self.classes else None
        labels = None if label is None or real_label is None else torch.cat([real_label, label])
        with autocast(self.device):
            fake = shift(self.model(latent), g, 2)
            both = torch.cat([real, fake.detach()])
            real_out, fake_out = self.critic(both, labels, self.features.maps(both)).float().chunk(2)
        loss_d = (F.relu(1 - real_out) + F.relu(1 + fake_out)).mean()
        self.optimizers["critic"].zero_grad(set_to_none=True)
        loss_d.backward()
        self.optimizers["critic"].step()
        if k < min(500, total // 4):  # critics first: the generator is further than they are
            return {"d": loss_d.detach()}
        self.set_lr("generator", 1e-4 * fade)
        self.critic.requires_grad_(False)
        with autocast(self.device):
            loss_g = -self.critic(fake, label, self.features.maps(fake)).float().mean()
        self.optimizers["generator"].zero_grad(set_to_none=True)
        loss_g.backward()
        self.optimizers["generator"].step()
        self.critic.requires_grad_(True)
        update_ema(self.ema, self.model, 0.999, 100 + k)
        return {"d": loss_d.detach(), "g": loss_g.detach()}

    def export(self) -> nn.Module:
        return self.ema

    def evaluate(self) -> dict[str, float]:
        reference: Any = make(self.data, "val", torch.device("cpu"))["images"]
        return generator_figures(self.export(), self.data, reference)
