# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Backgrounds of scenes: plain colors and simple landscapes. Nothing stands on them yet."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]

PLAIN: dict[str, Color] = {
    "white": (255, 255, 255),
    "red": (229, 88, 80),
    "orange": (246, 165, 80),
    "yellow": (250, 221, 100),
    "green": (126, 200, 120),
    "blue": (110, 175, 240),
    "purple": (175, 140, 225),
    "pink": (250, 180, 205),
    "gray": (190, 190, 195),
    "black": (30, 30, 34),
}


@dataclass(frozen=True)
class Landscape:
    """Describe a landscape by the colors of sky and ground (each from, to) and the words for being in it.

    `ground` is None where there is no ground, and things float.
    """

    sky: tuple[Color, Color]
    ground: tuple[Color, Color] | None
    english: tuple[str, ...]
    chinese: str
    stars: bool = False


_DARK_SKY: tuple[Color, Color] = ((12, 14, 44), (34, 30, 84))

LANDSCAPES = {
    "grass": Landscape(
        sky=((150, 205, 250), (215, 238, 255)),
        ground=((120, 200, 90), (80, 160, 70)),
        english=("on the grass", "in a meadow"),
        chinese="在草地上",
    ),
    "snow": Landscape(
        sky=((170, 200, 235), (225, 236, 248)),
        ground=((250, 252, 255), (225, 235, 245)),
        english=("in the snow",),
        chinese="在雪地里",
    ),
    "beach": Landscape(
        sky=((120, 200, 250), (210, 240, 255)),
        ground=((245, 222, 165), (230, 196, 130)),
        english=("on the beach",),
        chinese="在沙滩上",
    ),
    "desert": Landscape(
        sky=((255, 205, 140), (255, 235, 190)),
        ground=((235, 185, 110), (210, 150, 80)),
        english=("in the desert",),
        chinese="在沙漠里",
    ),
    "sea": Landscape(
        sky=((140, 205, 250), (215, 240, 255)),
        ground=((60, 140, 215), (25, 85, 165)),
        english=("on the sea", "in the water"),
        chinese="在海面上",
    ),
    "night": Landscape(
        sky=_DARK_SKY,
        ground=((30, 60, 50), (15, 35, 30)),
        english=("at night", "under the night sky"),
        chinese="在夜空下",
        stars=True,
    ),
    "space": Landscape(
        sky=_DARK_SKY,
        ground=None,
        english=("in space", "among the stars"),
        chinese="在太空中",
        stars=True,
    ),
}


def plain_background(rng: Random, color: str, size: int) -> Image.Image:
    """Draw an RGBA square of a plain color; every color but white varies a little."""
    spread = 0 if color == "white" else 8
    red, green, blue = (max(0, min(255, value + rng.randint(-spread, spread))) for value in PLAIN[color])
    return Image.new("RGBA", (size, size), (red, green, blue, 255))


def _gradient(colors: tuple[Color, Color], width: int, height: int) -> Image.Image:
    upper, lower = (np.array(color, dtype=float) for color in colors)
    down = np.linspace(0, 1, height)[:, None, None]
    pixels = (upper * (1 - down) + lower * down).repeat(width, axis=1)
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGBA")


def _draw_stars(rng: Random, image: Image.Image) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(45):
        x, y = rng.randrange(image.width), rng.randrange(image.height)
        extent = rng.choice([1, 1, 1, 2]) * image.width / 256
        draw.ellipse((x, y, x + extent, y + extent), fill=(255, 255, rng.randint(190, 255), 255))


def landscape_background(rng: Random, name: str, size: int) -> tuple[Image.Image, int | None]:
    """Draw a landscape as an RGBA square.

    Returns:
        The picture, and the row where the ground begins (None where there is none).
    """
    landscape = LANDSCAPES[name]
    image = _gradient(landscape.sky, size, size)
    if landscape.stars:
        _draw_stars(rng, image)
    if landscape.ground is None:
        return image, None
    horizon = int(size * rng.uniform(0.55, 0.7))
    image.paste(_gradient(landscape.ground, size, size - horizon), (0, horizon))
    return image, horizon
