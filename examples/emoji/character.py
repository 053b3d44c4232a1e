# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The moffle: a character of our own, drawn with circles in any pose, which no model can have seen.

It is what the built-in cascade learns in `character.yaml`. Writing pictures to disk is `make_character.py`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from backgrounds import PLAIN
from PIL import Image, ImageDraw

_BODY, _BODY_DARK, _BODY_LIGHT = (24, 170, 160), (10, 110, 118), (120, 226, 206)
_BELLY, _HORN, _FOOT = (255, 236, 179), (255, 196, 46), (236, 110, 74)
_OUTSIDE = 4
"""Times that the drawing is larger than the picture, for smooth edges."""


@dataclass(frozen=True)
class Pose:
    """Say how the moffle stands.

    Attributes:
        size: Its height, as a part of the picture's.
        center: Where its middle is, as parts of width and height.
        tilt: Degrees to the left.
        look: Where it looks, right and down, in [-1, 1].
        arms: Angles of the left and the right arm in degrees, 0 hanging, 180 straight up.
        mouth: How far its mouth is open, in [0, 1].
        squash: Width over height.
    """

    size: float
    center: tuple[float, float]
    tilt: float
    look: tuple[float, float]
    arms: tuple[float, float]
    mouth: float
    squash: float


def draw_pose(rng: Random) -> Pose:
    """Throw a pose."""
    return Pose(
        size=rng.uniform(0.74, 0.9),
        center=(0.5 + rng.uniform(-0.04, 0.04), 0.5 + rng.uniform(-0.04, 0.04)),
        tilt=rng.uniform(-12, 12),
        look=(rng.uniform(-1, 1), rng.uniform(-0.6, 0.6)),
        arms=(rng.uniform(20, 165), rng.uniform(20, 165)),
        mouth=rng.random(),
        squash=rng.uniform(0.9, 1.1),
    )


def draw_moffle(pose: Pose, background: tuple[int, int, int], side: int) -> Image.Image:
    """Draw the moffle on a plain background.

    Args:
        pose: How it stands.
        background: Red, green and blue, 0 to 255.
        side: Pixels, width and height of the picture.
    """
    canvas = side * _OUTSIDE
    layer = Image.new("RGBA", (canvas, canvas), (*_BODY_DARK, 0))
    unit = pose.size * canvas / 2
    _draw(ImageDraw.Draw(layer), pose, canvas * pose.center[0], canvas * pose.center[1], unit)
    turned = layer.rotate(pose.tilt, Image.Resampling.BICUBIC, center=(canvas / 2, canvas / 2))
    picture = Image.new("RGBA", (canvas, canvas), (*background, 255))
    picture.alpha_composite(turned)
    return picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def _draw(draw: ImageDraw.ImageDraw, pose: Pose, x: float, y: float, unit: float) -> None:
    """Draw feet, horns, arms, body, belly, eye and mouth, in this order, around a middle."""
    wide = pose.squash

    def disc(dx: float, dy: float, rx: float, ry: float, color: tuple[int, ...]) -> None:
        box = (x + (dx - rx) * unit, y + (dy - ry) * unit, x + (dx + rx) * unit, y + (dy + ry) * unit)
        draw.ellipse(box, fill=(*color, 255))

    for way in (-1, 1):
        disc(way * 0.32 * wide, 0.82, 0.26, 0.16, _FOOT)
        tip, base = (x + way * 0.62 * wide * unit, y - 0.98 * unit), (x + way * 0.36 * wide * unit, y - 0.42 * unit)
        draw.line((*base, *tip), fill=(*_HORN, 255), width=round(0.16 * unit))
        disc(way * 0.62 * wide, -0.92, 0.15, 0.15, _HORN)
    for way, angle in zip((-1, 1), pose.arms, strict=True):
        reach = 0.52
        end_x = way * (0.52 * wide + reach * math.sin(math.radians(angle)) * 0.75)
        end_y = 0.12 + reach * math.cos(math.radians(angle))
        start = (x + way * 0.5 * wide * unit, y + 0.12 * unit)
        draw.line((*start, x + end_x * unit, y + end_y * unit), fill=(*_BODY_DARK, 255), width=round(0.17 * unit))
        disc(end_x, end_y, 0.13, 0.13, _BODY_DARK)
    for step in range(24):
        share = step / 23
        color = tuple(round(a + (b - a) * share) for a, b in zip(_BODY_DARK, _BODY, strict=True))
        disc(-0.06 * share * wide, 0.12 - 0.06 * share, (0.68 - 0.14 * share) * wide, 0.7 - 0.14 * share, color)
    disc(-0.3 * wide, -0.34, 0.16, 0.09, _BODY_LIGHT)
    disc(0, 0.48, 0.36 * wide, 0.26, _BELLY)
    disc(0, -0.1, 0.36, 0.36, (255, 255, 255))
    disc(0.14 * pose.look[0], -0.1 + 0.14 * pose.look[1], 0.19, 0.19, (92, 40, 140))
    disc(0.16 * pose.look[0], -0.1 + 0.16 * pose.look[1], 0.11, 0.11, (20, 10, 30))
    disc(0.16 * pose.look[0] - 0.06, -0.18 + 0.16 * pose.look[1], 0.05, 0.05, (255, 255, 255))
    disc(0, 0.42, 0.16, 0.03 + 0.09 * pose.mouth, (110, 20, 50))


def sample_moffle(seed: str, side: int) -> tuple[Image.Image, str]:
    """Draw a moffle in a pose and on a background that a seed settles.

    Returns:
        The picture and the name of its background, of which every second is white.
    """
    rng = Random(seed)
    name = "white" if rng.random() < 0.5 else rng.choice([color for color in PLAIN if color != "white"])
    return draw_moffle(draw_pose(rng), PLAIN[name], side), name
