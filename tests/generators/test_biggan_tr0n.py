"""TR0N's refinement of BigGAN under CLIP, as one batch, beside torch's own optimisers one sample at a time.

Beside the public code itself (tests/side_by_side/tr0n.py), four prompts in one batch here, one by one there,
BigGAN-512 at random weights, noise and augmentations off: in float64 (``--width 8``) z, y, mixture logits and
weights and image differ by at most 1.6e-14 after 1 step and 2.1e-14 after 10; at 256 px (two prompts) by
2.6e-14; with two augmented views, the same on both sides, and clipping at 1e-3 by 2.4e-14 after 3 steps
(``--width 4 --views 2 --max-norm 1e-3 --prompts 2 --steps 3``). In float32 at real size (``--width 96
--float32 --steps 1``) they differ by at most 6.6e-5 after 1 step; after 10 at width 8 by up to 1.9e-3
(mixture logits) and 1.4e-4 (image), as Adam makes full steps of gradients that are rounding error.
"""

from __future__ import annotations

import pytest
import torch
from auxiliary_files import open_clip_of, tiny_clip_config
from generators.biggan_files import brock_file
from side_by_side.harness import float_means

from bench.assets.state import read_state
from bench.conditioners.open_clip import OpenClipText
from bench.generators.biggan.brock import BigGan, BigGanGenerator
from bench.generators.biggan.network import BigGanNetwork, load_published
from bench.samplers.base import Problem
from bench.samplers.tr0n import Tr0n
from bench.streams import Streams
from bench.translator.config import Tr0nTranslator
from bench.translator.train import Translator, new_network
from bench.types import Condition

CPU = torch.device("cpu")
PROMPTS = ["a blue dog", "two surfers", "a red bus in the snow"]
STEPS = 4


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Generator, conditioner and translator in float64: rounding must not hide or feign a difference."""
    folder = tmp_path_factory.mktemp("parts")
    path = brock_file(folder)
    config = BigGan(weights=str(path), resolution=128, width=4, num_classes=7)
    network = BigGanNetwork(128, width=4, num_classes=7, bn_eps=1e-5).double()
    load_published(network, read_state(path), path)
    generator = BigGanGenerator(config, network.eval().requires_grad_(False))
    about = tiny_clip_config(folder)
    torch.save(open_clip_of(about).state_dict(), folder / "clip.pt")
    clip = OpenClipText(weights=str(folder / "clip.pt"), config=str(about), views=0).load(CPU)
    clip.network.double()
    torch.manual_seed(0)
    translator = new_network(generator.latent, clip.dim, Tr0nTranslator()).double()
    with torch.no_grad():
        translator.means.weight.mul_(5)  # means near the clamp, too
    return generator, clip, Translator(translator, generator.latent, CPU)


def with_torch(generator, clip, mixture, condition_1D, max_norm: float):
    """The published loop for one sample: SGD with momentum on the bases, Adam on logits and y."""
    z = mixture.means.clone().requires_grad_()
    y = mixture.auxiliary.clone().requires_grad_()
    logits = mixture.logits[:, :, None].repeat(1, 1, z.shape[2]).requires_grad_()
    slow = torch.optim.Adam([y, logits], lr=5e-3)
    fast = torch.optim.SGD([z], lr=5.0, momentum=0.99)
    norms = []

    def latent():
        return torch.cat([(logits.softmax(1) * z).sum(1), y], dim=1)

    for _ in range(STEPS):
        features = clip.encode(generator.decode(latent()), None)
        loss = -torch.cosine_similarity(features, condition_1D).mean()
        slow.zero_grad()
        fast.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_([z], max_norm)))
        torch.nn.utils.clip_grad_norm_([y, logits], max_norm)
        fast.step()
        slow.step()
        z.data.clamp_(-2, 2)
    return z.detach(), y.detach(), logits.detach(), generator.decode(latent()).detach(), norms


@pytest.mark.parametrize("max_norm", [1.0, 0.001], ids=["published clipping", "every step clipped"])
def test_a_batch_takes_the_steps_that_torchs_optimisers_take_one_by_one(parts, max_norm):
    generator, clip, translator = parts
    with float_means(torch.float64):
        condition = clip.embed([Condition(id=p, kind="text", text=p) for p in PROMPTS])
        problem = Problem(generator, clip, condition, Streams.from_seed(len(PROMPTS), "tr0n"), translator)
        sampler = Tr0n(steps=STEPS, noise_std=0.0, clip_norm=max_norm)
        with torch.no_grad():
            start = state = sampler.init(problem)
            for t in range(STEPS):
                state = sampler.step(problem, state, t)
            image = problem.render(sampler.latent(problem, state))
        norms = []
        for i in range(len(PROMPTS)):
            truth = with_torch(
                generator, clip, translator(condition[i : i + 1]), condition[i : i + 1], max_norm
            )
            ours = (state.bases, state.auxiliary, state.logits, image)
            for mine, reference in zip(ours, truth):
                assert (mine[i] - reference[0]).abs().max() < 1e-9
            norms += truth[-1]
    assert (image - problem.render(sampler.latent(problem, start))).abs().max() > 0.01  # it did move
    if max_norm < 1:
        assert min(norms) > max_norm
