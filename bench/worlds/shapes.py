"""The ``shapes`` world: antialiased coloured shapes with exactly known attributes and captions.

Image i of a split depends on (seed, split, i) alone. Scenes are drawn by supersampled implicit
functions in tensor operations, so a GPU renders a training set in a second and a CPU in a few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.streams import Streams

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (250, 140, 10),
    "yellow": (245, 225, 40),
    "green": (35, 150, 55),
    "cyan": (60, 215, 225),
    "blue": (35, 70, 220),
    "purple": (135, 45, 180),
    "pink": (250, 150, 195),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 14),
    "white": (244, 244, 242),
    "gray": (128, 130, 132),
    "brown": (88, 58, 34),
}
# Radii and offsets in units of half the image side.
SIZES: dict[str, float] = {"small": 0.34, "large": 0.56}
POSITIONS: dict[str, tuple[float, float]] = {
    "center": (0.0, 0.0),
    "top left": (-0.40, -0.40),
    "top right": (0.40, -0.40),
    "bottom left": (-0.40, 0.40),
    "bottom right": (0.40, 0.40),
}
CORNERS = tuple(name for name in POSITIONS if name != "center")
SUPERSAMPLING = 4


def attribute_values(objects: int) -> dict[str, tuple[str, ...]]:
    """Attribute names and their ordered values; with two objects the second's names end in ``2``."""
    single = {"shape": SHAPES, "color": tuple(COLORS), "size": tuple(SIZES), "position": tuple(POSITIONS)}
    if objects == 1:
        return {**single, "background": tuple(BACKGROUNDS)}
    pair: dict[str, tuple[str, ...]] = {}
    for suffix in ("", "2"):
        pair |= {"shape" + suffix: SHAPES, "color" + suffix: tuple(COLORS), "position" + suffix: CORNERS}
    return {**pair, "background": tuple(BACKGROUNDS)}


@dataclass(frozen=True)
class Scenes:
    """N scenes: attribute indices (N, A) in the order of :func:`attribute_values`, and jitter.

    Per object: centre offset (N, O, 2) and log radius (N, O) in units of half the side and of 1,
    rotation (N, O) in radians, brightness (N, O + 1) added to colours and background in [0, 1] units.
    """

    values: Tensor
    offset: Tensor
    log_radius: Tensor
    rotation: Tensor
    brightness: Tensor
    objects: int


def sample_scenes(streams: Streams, objects: int = 1) -> Scenes:
    """Scenes with independent uniform attributes; two objects sit in different corners."""
    names = attribute_values(objects)
    columns = {name: streams.integers(f"scene:{name}", len(values)) for name, values in names.items()}
    if objects == 2:  # the second corner: one of the other three, uniform
        shift = 1 + streams.integers("scene:corner", len(CORNERS) - 1)
        columns["position2"] = (columns["position"] + shift) % len(CORNERS)
    return Scenes(
        values=torch.stack(list(columns.values()), dim=1),
        offset=streams.uniform("scene:offset", (objects, 2), low=-0.06, high=0.06),
        log_radius=streams.uniform("scene:radius", (objects,), low=-0.06, high=0.06),
        rotation=streams.uniform("scene:rotation", (objects,), low=-0.14, high=0.14),
        brightness=streams.uniform("scene:brightness", (objects + 1,), low=-0.03, high=0.03),
        objects=objects,
    )


def labels(scenes: Scenes) -> list[dict[str, str]]:
    """The attribute values of each scene by name."""
    names = attribute_values(scenes.objects)
    rows = scenes.values.tolist()
    return [{name: values[k] for (name, values), k in zip(names.items(), row)} for row in rows]


def _star(u: Tensor, v: Tensor) -> Tensor:
    angle = torch.atan2(u, -v).abs() % (2 * math.pi / 5)
    angle = torch.minimum(angle, 2 * math.pi / 5 - angle)
    outer, inner = 1.12, 0.47
    dx, dy = inner * math.cos(math.pi / 5) - outer, inner * math.sin(math.pi / 5)
    radius = (u * u + v * v).sqrt()
    # Signed area of (edge, point - vertex): positive on the centre's side.
    return dx * (radius * angle.sin()) - dy * (radius * angle.cos() - outer) >= 0


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return (v <= 0.55) & (0.8660254 * u - 0.5 * v <= 0.55) & (-0.8660254 * u - 0.5 * v <= 0.55)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    radius2 = u * u + v * v
    return (radius2 <= 1.0) & (radius2 >= 0.30)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return (torch.minimum(u.abs(), v.abs()) <= 0.31) & (torch.maximum(u.abs(), v.abs()) <= 1.0)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    x, y = 1.18 * u, -1.18 * v + 0.12
    return (x * x + y * y - 1.0) ** 3 - x * x * y**3 <= 0


# Membership of points in each shape; v points down, circumscribed radius about 1.
_INSIDE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda u, v: u * u + v * v <= 1.0,
    "square": lambda u, v: torch.maximum(u.abs(), v.abs()) <= 0.82,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "diamond": lambda u, v: u.abs() / 0.74 + v.abs() / 1.1 <= 1.0,
    "heart": _heart,
}


def render(scenes: Scenes, resolution: int = 32, chunk: int = 512) -> Tensor:
    """uint8 images (N, 3, resolution, resolution) on the scenes' device."""
    device = scenes.values.device
    side = resolution * SUPERSAMPLING
    axis = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) * (2.0 / side) - 1.0
    palette = torch.tensor(list(COLORS.values()), dtype=torch.float32, device=device) / 255
    backgrounds = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32, device=device) / 255
    names = list(attribute_values(scenes.objects))
    places = POSITIONS if scenes.objects == 1 else {name: POSITIONS[name] for name in CORNERS}
    centers = torch.tensor(list(places.values()), device=device)
    sizes = torch.tensor(list(SIZES.values()), device=device)

    batches = []
    for start in range(0, len(scenes.values), chunk):
        part = slice(start, start + chunk)
        values = dict(zip(names, scenes.values[part].unbind(1)))
        tint = scenes.brightness[part]
        canvas = (backgrounds[values["background"]] + tint[:, -1:]).clamp(0, 1)[:, :, None, None]
        canvas = canvas.expand(-1, -1, side, side)
        for k in range(scenes.objects):
            suffix = "" if k == 0 else "2"
            size = sizes[values["size"]] if scenes.objects == 1 else sizes[0].expand(len(canvas))
            radius = size * scenes.log_radius[part, k].exp()
            center = centers[values["position" + suffix]] + scenes.offset[part, k]
            dx = (axis[None, None, :] - center[:, 0, None, None]) / radius[:, None, None]
            dy = (axis[None, :, None] - center[:, 1, None, None]) / radius[:, None, None]
            cos, sin = scenes.rotation[part, k].cos(), scenes.rotation[part, k].sin()
            cos, sin = cos[:, None, None], sin[:, None, None]
            u, v = cos * dx + sin * dy, cos * dy - sin * dx
            mask = torch.empty_like(u, dtype=torch.bool)
            for index, name in enumerate(SHAPES):
                rows = (values["shape" + suffix] == index).nonzero()[:, 0]
                mask[rows] = _INSIDE[name](u[rows], v[rows])
            color = (palette[values["color" + suffix]] + tint[:, k, None]).clamp(0, 1)
            canvas = torch.where(mask[:, None], color[:, :, None, None], canvas)
        small = torch.nn.functional.avg_pool2d(canvas, SUPERSAMPLING)
        batches.append((small * 255).round().to(torch.uint8))
    return torch.cat(batches)


# --- captions ------------------------------------------------------------------------------------

_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "diamond": ("diamond", "rhombus"),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "center": ("center", "middle"),
    "top left": ("top left", "upper left"),
    "top right": ("top right", "upper right"),
    "bottom left": ("bottom left", "lower left"),
    "bottom right": ("bottom right", "lower right"),
    "gray": ("gray", "grey"),
}
_TEMPLATES_ONE = (
    "a {size} {color} {shape} in the {position} on a {background} background",
    "on a {background} background there is a {color} {shape}, {size}, at the {position}",
    "one {size} {shape} at the {position}; it is {color} and the backdrop is {background}",
    "a picture of a {color} {shape} that is {size}, placed {position}, over {background}",
    "the {position} holds a {size} {color} {shape} against {background}",
)
_TEMPLATES_TWO = (
    "a {color} {shape} in the {position} and a {color2} {shape2} in the {position2} "
    "on a {background} background",
    "on a {background} background: {shape} at the {position} in {color}, "
    "{shape2} at the {position2} in {color2}",
    "two objects over {background}, a {color} {shape} {position} and a {color2} {shape2} {position2}",
    "the {position} holds a {color} {shape}, the {position2} a {color2} {shape2}, "
    "the backdrop is {background}",
    "a picture of a {color} {shape} at the {position} with a {color2} {shape2} at the {position2}, "
    "over {background}",
)


def captions(rows: Sequence[Mapping[str, str]], streams: Streams) -> list[tuple[str, ...]]:
    """Five differently worded captions per row of attributes; each states every attribute.

    Synonyms are drawn from the row's own stream.
    """
    two = bool(rows) and "shape2" in rows[0]
    templates = _TEMPLATES_TWO if two else _TEMPLATES_ONE
    draws = streams.integers("caption:words", 6, (len(templates), len(rows[0]) if rows else 0)).tolist()
    result = []
    for row, draw in zip(rows, draws):
        texts = []
        for template, picks in zip(templates, draw):
            words = {}
            for (name, value), pick in zip(row.items(), picks):
                options = _WORDS.get(value, (value,))
                words[name] = options[pick % len(options)]
            texts.append(template.format(**words).replace("a orange", "an orange"))
        result.append(tuple(texts))
    return result
