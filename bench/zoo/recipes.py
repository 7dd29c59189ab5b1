"""How each model of the zoo is trained. A recipe owns its modules, optimisers and one training step.

Batches at step t are drawn from (recipe seed, t), so an interrupted training resumes on the same data.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.streams import Streams
from bench.worlds import shapes
from bench.zoo import networks
from bench.zoo.augment import add_noise, jitter, shift
from bench.zoo.diffusion_recipe import DiffusionTraining
from bench.zoo.figures import generator_figures
from bench.zoo.layered_recipe import LayeredAutoencoderTraining, LayeredGanTraining
from bench.zoo.training import (
    CLASS_HEADS,
    NUM_CAPTIONED,
    NUM_COMBINATIONS,
    Training,
    autocast,
    make,
    make_shapes,
    to_unit,
    update_ema,
    world_heads,
)  # fmt: skip

NORM_BATCHES = 100  # of 256 draws, for the batch statistics of a network to ship


class ClassifierTraining(Training):
    """Cross-entropy on every attribute, with shifts and noise so that gradients stay useful off the data."""

    def __init__(self, seed, device, total_steps, *, data: str, network: str, batch_size: int = 96):
        super().__init__(seed, device, total_steps)
        heads = world_heads(data)
        plain = network == "plain"
        self.architecture = "plain-classifier" if plain else "residual-classifier"
        model = (networks.PlainClassifier if plain else networks.ResidualClassifier)(heads)
        self.modules["model"] = self.model = model.to(device)
        self.optimizers["model"] = torch.optim.AdamW(self.model.parameters(), lr=2e-3, weight_decay=1e-2)
        self.data, self.batch_size = data, batch_size
        self.train, self.val = make(data, "train", device), make(data, "val", device)

    def step(self, t: int) -> dict[str, Tensor]:
        self.set_lr("model", 2e-3 * self.cosine(t))
        g = self.generator(t)
        index = torch.randint(len(self.train["images"]), (self.batch_size,), generator=g, device=self.device)
        x, values = to_unit(self.train["images"][index]), self.train["values"][index]
        x = jitter(x, g, degrees=12, scale=0.12, shift=0.12) if self.data == "digits" else shift(x, g, 1)
        x = add_noise(x, g, 0.25)
        with autocast(self.device):
            logits = self.model(x)
        loss = torch.stack(
            [
                F.cross_entropy(out.float(), values[:, i], label_smoothing=0.02)
                for i, out in enumerate(logits.values())
            ]
        ).sum()
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["model"].step()
        return {"loss": loss.detach()}

    def export(self) -> nn.Module:
        return self.model

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        model = self.model.eval()
        right = dict.fromkeys(model.heads, 0)
        for images, values in zip(self.val["images"].split(500), self.val["values"].split(500)):
            for i, (name, out) in enumerate(model(to_unit(images)).items()):
                right[name] += int((out.argmax(1) == values[:, i]).sum())
        model.train()
        return {f"accuracy_{name}": count / len(self.val["images"]) for name, count in right.items()}


class ClipTraining(Training):
    """Symmetric contrastive loss; pairs that share all attributes are not counted as negatives.

    Half of each batch are settings (color, size, position, background) shown with every shape, so that
    the shape alone tells the captions apart.
    """

    architecture = "clip"

    def __init__(self, seed, device, total_steps, *, network: str, batch_size: int = 128):
        super().__init__(seed, device, total_steps)
        from bench.zoo.clip import VOCABULARY, ZooClip
        from bench.zoo.weights import WEIGHTS_DIR

        self.model = ZooClip(network, WEIGHTS_DIR / VOCABULARY).to(device)
        self.modules["model"] = self.model
        decay = [p for p in self.model.parameters() if p.ndim >= 2]
        rest = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
        self.optimizers["model"] = torch.optim.AdamW(groups, lr=1.5e-3, betas=(0.9, 0.98))
        self.batch_size = batch_size
        self.train, self.val = (
            make_shapes(split, num, device) for split, num in (("train", NUM_CAPTIONED), ("val", 4000))
        )
        for part in (self.train, self.val):
            flat = [caption for five in part["captions"] for caption in five]
            part["tokens"] = self.model.tokenizer(flat).view(len(part["images"]), 5, -1).to(device)
            radix = torch.tensor([1, 8, 64, 128, 640], device=device)
            part["key"] = (part["values"] * radix).sum(1)
        # Images sorted by key, so that all shapes in one setting can be found: the hard negatives.
        self.by_key = self.train["key"].argsort(stable=True)
        self.count = torch.bincount(self.train["key"], minlength=NUM_COMBINATIONS)
        self.first = self.count.cumsum(0) - self.count

    def draw_batch(self, g: torch.Generator) -> Tensor:
        """Indices (batch_size,) of training images: one half uniform, the other all shapes of settings."""
        half = self.batch_size // 2
        index = torch.randint(
            len(self.train["images"]), (self.batch_size - half,), generator=g, device=self.device
        )
        num_shapes = len(shapes.SHAPES)
        settings = torch.randint(
            NUM_COMBINATIONS // num_shapes, (half // num_shapes, 1), generator=g, device=self.device
        )
        key = (settings * num_shapes + torch.arange(num_shapes, device=self.device)).flatten()
        pick = torch.rand(len(key), generator=g, device=self.device) * self.count[key]
        return torch.cat([index, self.by_key[self.first[key] + pick.long()]])

    def step(self, t: int) -> dict[str, Tensor]:
        self.set_lr("model", 1.5e-3 * self.cosine(t, 300))
        g = self.generator(t)
        index = self.draw_batch(g)
        which = torch.randint(5, (self.batch_size,), generator=g, device=self.device)
        x = add_noise(shift(to_unit(self.train["images"][index]), g, 1), g, 0.25)
        with autocast(self.device):
            image, text, scale = self.model(x, self.train["tokens"][index, which])
        logits = scale * F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T
        key = self.train["key"][index]
        same = (key[:, None] == key[None, :]) & ~torch.eye(len(key), dtype=torch.bool, device=self.device)
        logits = logits.masked_fill(same, float("-inf"))
        target = torch.arange(len(key), device=self.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers["model"].step()
        with torch.no_grad():
            self.model.clip.logit_scale.clamp_(0, math.log(100))
        return {"loss": loss.detach()}

    def export(self) -> nn.Module:
        return self.model

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Text-to-image R@1 among 100 images with distinct attributes, caption wording at random."""
        model = self.model.eval()
        images = torch.cat([model.encode_image(to_unit(part)) for part in self.val["images"].split(500)])
        texts = torch.cat([model.encode_text(part) for part in self.val["tokens"].flatten(0, 1).split(500)])
        images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1).view(len(images), 5, -1)
        order = np.random.default_rng(0)
        right = total = 0
        for trial in range(30):
            seen: dict[int, int] = {}
            for i in order.permutation(len(images)):
                seen.setdefault(int(self.val["key"][i]), int(i))
                if len(seen) == 100:
                    break
            index = torch.tensor(list(seen.values()), device=self.device)
            scores = texts[index, trial % 5] @ images[index].T
            right += int((scores.argmax(1) == torch.arange(100, device=self.device)).sum())
            total += 100
        matching = float((texts.mean(1) * images).sum(1).mean())
        figures = {"retrieval_r1_of_100": right / total, "mean_matching_cosine": matching}
        figures["shape_told_from_all_others"] = self.shape_accuracy(images)
        model.train()
        return figures

    def shape_accuracy(self, images: Tensor) -> float:
        """Share of 500 images whose own caption beats the seven that name another shape."""
        num, kinds = 500, len(shapes.SHAPES)
        values = self.val["values"][:num].repeat_interleave(kinds, 0).cpu()
        values[:, 0] = torch.arange(kinds).repeat(num)
        names = shapes.attribute_values(1)
        rows = [{name: names[name][k] for name, k in zip(names, row)} for row in values.tolist()]
        texts = [five[0] for five in shapes.captions(rows, Streams.from_seed(len(rows), "clip-shapes"))]
        embedded = torch.cat(
            [
                self.model.encode_text(self.model.tokenizer(texts[i : i + 500]).to(self.device))
                for i in range(0, len(texts), 500)
            ]
        )
        scores = (F.normalize(embedded, dim=1).view(num, kinds, -1) @ images[:num, :, None])[:, :, 0]
        return float((scores.argmax(1) == self.val["values"][:num, 0]).float().mean())


class VaeTraining(Training):
    """Evidence lower bound with a small KL weight; the KL is annealed in."""

    architecture = "vae"

    def __init__(self, seed, device, total_steps, *, data: str, z_dim: int, channels: int, beta: float):
        super().__init__(seed, device, total_steps)
        self.modules["model"] = self.model = networks.VariationalAutoencoder(z_dim, channels).to(device)
        self.optimizers["model"] = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.modules["ema"] = self.ema
        self.data, self.beta = data, beta
        self.train = make(data, "train", device)

    def step(self, t: int) -> dict[str, Tensor]:
        self.set_lr("model", 1e-3 * self.cosine(t))
        g = self.generator(t)
        index = torch.randint(len(self.train["images"]), (64,), generator=g, device=self.device)
        x = to_unit(self.train["images"][index])
        if self.data == "digits":
            x = jitter(x, g, degrees=6, scale=0.06, shift=0.05)
        with autocast(self.device):
            mean, log_variance = (part.float() for part in self.model.encode(x))
            noise = torch.randn(mean.shape, generator=g, device=self.device)
            reconstruction = self.model(mean + noise * (0.5 * log_variance).exp()).float()
        error = (reconstruction - x).square().sum(dim=(1, 2, 3)).mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        loss = error + self.beta * min(1.0, t / 2000) * kl
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 50.0)
        self.optimizers["model"].step()
        update_ema(self.ema, self.model, 0.999, t)
        return {"error": error.detach(), "kl": kl.detach()}

    def export(self) -> nn.Module:
        return self.ema

    def evaluate(self) -> dict[str, float]:
        reference = make(self.data, "val", torch.device("cpu"))["images"]
        return generator_figures(self.export(), self.data, reference, bound=None)


class GanTraining(Training):
    """Hinge loss, spectral norm, translation augmentation (DiffAugment, arXiv:2006.10738), EMA generator.

    With ``classes`` the generator has a class embedding and the discriminator a projection.
    """

    architecture = "generator"

    def __init__(
        self, seed, device, total_steps, *, data: str, classes: bool, z_dim: int = 64, channels: int = 24,
        batch_size: int = 64, lr: float = 4e-4,
    ):  # fmt: skip
        super().__init__(seed, device, total_steps)
        self.data, self.batch_size, self.classes, self.lr = data, batch_size, classes, lr
        self.train = make(data, "train", device)
        self.num_classes = 0
        if classes:
            sizes = [len(values) for values in list(world_heads(data).values())[:CLASS_HEADS]]
            self.num_classes = math.prod(sizes)
            label = torch.zeros_like(self.train["values"][:, 0])
            for column, size in zip(self.train["values"].unbind(1), sizes):
                label = label * size + column
            self.train["label"] = label
        model = networks.Generator(z_dim, 32 if classes else 0, self.num_classes, channels).to(device)
        self.modules["generator"] = self.model = model
        self.modules["discriminator"] = self.critic = networks.Discriminator(self.num_classes).to(device)
        self.modules["ema"] = self.ema = copy.deepcopy(model).requires_grad_(False)
        for module in self.modules.values():
            # A quarter faster on CPUs with bfloat16 units.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        betas = (0.0, 0.99)
        self.optimizers["generator"] = torch.optim.Adam(model.parameters(), lr=lr, betas=betas)
        self.optimizers["discriminator"] = torch.optim.Adam(self.critic.parameters(), lr=lr, betas=betas)

    def draw(self, num: int, g: torch.Generator, model: networks.Generator) -> tuple[Tensor, Tensor | None]:
        """Latents of the prior (normal clamped to [-2, 2], as TR0N uses) and class labels."""
        z = torch.randn(num, model.z_dim, generator=g, device=self.device).clamp(-2, 2)
        if not self.classes:
            return z, None
        label = torch.randint(self.num_classes, (num,), generator=g, device=self.device)
        return torch.cat([z, model.embedding(label)], dim=1), label

    def step(self, t: int) -> dict[str, Tensor]:
        g = self.generator(t)
        # Constant after a warm-up, then to zero over the last quarter.
        lr = self.lr * min(1.0, 4 * (self.total_steps - t) / self.total_steps) * min(1.0, (t + 1) / 300)
        self.set_lr("generator", lr)
        self.set_lr("discriminator", lr)
        index = torch.randint(len(self.train["images"]), (self.batch_size,), generator=g, device=self.device)
        real_label = self.train["label"][index] if self.classes else None
        real = shift(to_unit(self.train["images"][index]), g, 4).contiguous(memory_format=torch.channels_last)
        latent, label = self.draw(self.batch_size, g, self.model)
        with autocast(self.device):
            fake = shift(self.model(latent), g, 4)
            labels = None if label is None or real_label is None else torch.cat([real_label, label])
            both = self.critic(torch.cat([real, fake.detach().to(real.dtype)]), labels).float()
            real_out, fake_out = both.chunk(2)
        loss_d = (F.relu(1 - real_out) + F.relu(1 + fake_out)).mean()
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        loss_d.backward()
        self.optimizers["discriminator"].step()
        # The same fakes serve the generator's step: its graph is still at hand.
        self.critic.requires_grad_(False)
        with autocast(self.device):
            loss_g = -self.critic(fake, label).float().mean()
        self.optimizers["generator"].zero_grad(set_to_none=True)
        loss_g.backward()
        self.optimizers["generator"].step()
        self.critic.requires_grad_(True)
        update_ema(self.ema, self.model, 0.999, t)
        return {"d": loss_d.detach(), "g": loss_g.detach(), "real": real_out.mean().detach()}

    @torch.no_grad()
    def export(self) -> nn.Module:
        """The averaged generator with batch statistics estimated anew over batches of the prior."""
        model = copy.deepcopy(self.ema).train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # cumulative average
        for k in range(NORM_BATCHES):
            model(self.draw(256, self.generator(10_000_000 + k), model)[0])
        return model.eval()

    def evaluate(self) -> dict[str, float]:
        reference = make(self.data, "val", torch.device("cpu"))["images"]
        return generator_figures(self.export(), self.data, reference)


def recipe(cls: type[Training], seed: int, steps: int, description: str, **options: Any) -> dict[str, Any]:
    return {"class": cls, "seed": seed, "steps": steps, "description": description, "options": options}


RECIPES: dict[str, dict[str, Any]] = {
    "digits-classifier-guide": recipe(
        ClassifierTraining, 23, 2500, "digit classifier that guides", data="digits", network="plain"
    ),
    "digits-classifier-judge": recipe(
        ClassifierTraining, 24, 2500, "digit classifier that judges", data="digits", network="residual"
    ),
    "digits-vae": recipe(
        VaeTraining, 14, 8000, "unconditional VAE on digits", data="digits", z_dim=16, channels=16, beta=1.5
    ),
    "shapes-classifier-guide": recipe(
        ClassifierTraining, 21, 5000, "attribute classifier that guides", data="shapes", network="plain"
    ),
    "shapes-classifier-judge": recipe(
        ClassifierTraining, 22, 4000, "attribute classifier that judges", data="shapes", network="residual"
    ),
    "shapes-clip-guide": recipe(ClipTraining, 31, 1600, "CLIP that guides", network="resnet"),
    "shapes-clip-judge": recipe(ClipTraining, 32, 1400, "CLIP that judges", network="deep-resnet"),
    "shapes-autoencoder": recipe(
        LayeredAutoencoderTraining, 10, 5000, "autoencoder that the layered GANs start from", data="shapes"
    ),
    "shapes-gan": recipe(
        LayeredGanTraining, 11, 10_000, "unconditional layered GAN on shapes",
        data="shapes", classes=False, autoencoder="shapes-autoencoder",
    ),
    "shapes-biggan": recipe(
        LayeredGanTraining, 12, 10_000, "class-conditional layered GAN on shapes, latent z and embedding y",
        data="shapes", classes=True, autoencoder="shapes-autoencoder",
    ),
    "digits-biggan": recipe(
        GanTraining, 15, 5000, "class-conditional GAN on digits, latent z and class embedding y",
        data="digits", classes=True, channels=16, z_dim=32,
    ),
    "digits-diffusion": recipe(
        DiffusionTraining, 16, 5000, "unconditional diffusion model on digits",
        data="digits", side=8, channels=[32, 64],
    ),
    "shapes-vae": recipe(
        VaeTraining, 13, 5000, "unconditional VAE on shapes", data="shapes", z_dim=32, channels=24, beta=1.0
    ),
}  # fmt: skip
