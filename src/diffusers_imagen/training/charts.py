# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Draw line charts with Pillow alone. What is drawn is the caller's; called for a run's report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

INK, GRID, PAPER = (40, 40, 48), (226, 226, 232), (255, 255, 255)
COLORS: tuple[Color, ...] = ((36, 96, 190), (214, 110, 30), (46, 140, 84), (160, 60, 150), (120, 120, 120))
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 24, 52, 48
# Lines are drawn larger and shrunk, since Pillow does not smooth them.
_OVERSIZE = 2


@dataclass(frozen=True)
class Line:
    """Hold a line of a chart: its name, its points, and whether it is drawn faintly, behind the others."""

    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False


def draw_chart(
    title: str, x_name: str, lines: Sequence[Line], width: int, height: int, log_y: bool = False
) -> Image.Image:
    """Draw lines in a frame with round numbers along its sides.

    Args:
        title: Above the chart.
        x_name: Below it.
        lines: What to draw; points that are not finite, or on a logarithmic axis not above 0, are left out.
        width: Of the picture in pixels.
        height: Of the picture in pixels.
        log_y: Make the vertical axis logarithmic.

    Returns:
        The picture; one without a point says so.
    """
    scale = _OVERSIZE
    image = Image.new("RGB", (width * scale, height * scale), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_LEFT * scale, 8 * scale), title, INK, _font(17 * scale))
    kept = [Line(line.name, _drawable(line.points, log_y), line.faint) for line in lines]
    kept = [line for line in kept if line.points]
    if not kept:
        draw.text((_LEFT * scale, height * scale // 2), "nothing was measured", INK, _font(14 * scale))
        return image.resize((width, height), Image.Resampling.LANCZOS)
    x_ticks = round_ticks(*_range([x for line in kept for x, _ in line.points]), most=8)
    y_values = [math.log10(y) if log_y else y for line in kept for _, y in line.points]
    y_ticks = (_round_exponents if log_y else round_ticks)(*_range(y_values), 6)
    frame = _Frame((width, height), x_ticks, y_ticks, log_y)
    _draw_axes(draw, frame, x_name)
    for number, line in enumerate(kept):
        red, green, blue = (
            255 - (255 - part) * (3 if line.faint else 5) // 5 for part in COLORS[number % len(COLORS)]
        )
        color = (red, green, blue)
        places = [frame.place(x, y) for x, y in line.points]
        if len(places) == 1:
            x, y = places[0]
            draw.ellipse((x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale), fill=color)
        draw.line(places, fill=color, width=(1 if line.faint else 2) * scale, joint="curve")
    _draw_legend(draw, kept, width)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Give evenly spaced round numbers of which the first and last enclose a range.

    Args:
        low: Least number.
        high: Largest number, above `low`.
        most: How many there may be, at least 2; a number more where the range lies badly.
    """
    rough = (high - low) / (most - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_exponents(low: float, high: float, most: int) -> list[float]:
    """Give the decimal logarithms of 1, 2 and 5 times powers of ten, or of fewer of them, that enclose a range."""
    every = [
        math.log10(factor) + power for power in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 2, 5)
    ]
    first = max(place for place, value in enumerate(every) if value <= low + 1e-9)
    last = min(place for place, value in enumerate(every) if value >= high - 1e-9)
    stride = 1 if last - first < 2 * most else 3
    first, last = first - first % stride, last + -last % stride
    return [every[place] for place in range(first, min(last, len(every) - 1) + 1, stride)]


class _Frame:
    """Where numbers lie on the oversized picture."""

    def __init__(self, size: tuple[int, int], x_ticks: list[float], y_ticks: list[float], log_y: bool) -> None:
        self.x_ticks, self.y_ticks, self.log_y = x_ticks, y_ticks, log_y
        self.box = (_LEFT, _TOP, size[0] - _RIGHT, size[1] - _BOTTOM)

    def place(self, x: float, y: float) -> tuple[float, float]:
        return self._at(x, math.log10(y) if self.log_y else y)

    def tick(self, x: float, y: float) -> tuple[float, float]:
        """Give the place of ticks, which are exponents on a logarithmic axis."""
        return self._at(x, y)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        across = (x - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        up = (y - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return (left + across * (right - left)) * _OVERSIZE, (bottom - up * (bottom - top)) * _OVERSIZE


def _draw_axes(draw: ImageDraw.ImageDraw, frame: _Frame, x_name: str) -> None:
    font, scale = _font(12 * _OVERSIZE), _OVERSIZE
    left, top, right, bottom = (side * scale for side in frame.box)
    for value in frame.y_ticks:
        _, y = frame.tick(frame.x_ticks[0], value)
        draw.line(((left, y), (right, y)), fill=GRID, width=scale)
        label = f"{10**value:.3g}" if frame.log_y else f"{value:.4g}"
        draw.text((left - 8 * scale, y), label, INK, font, anchor="rm")
    for value in frame.x_ticks:
        x, _ = frame.tick(value, frame.y_ticks[0])
        draw.line(((x, top), (x, bottom)), fill=GRID, width=scale)
        draw.text((x, bottom + 6 * scale), f"{value:g}", INK, font, anchor="mt")
    draw.line(((left, top), (left, bottom), (right, bottom)), fill=INK, width=scale)
    draw.text(((left + right) / 2, bottom + 26 * scale), x_name, INK, font, anchor="mt")


def _draw_legend(draw: ImageDraw.ImageDraw, lines: Sequence[Line], width: int) -> None:
    font, scale = _font(12 * _OVERSIZE), _OVERSIZE
    right = float((width - _RIGHT) * scale)
    for number, line in reversed(list(enumerate(lines))):
        right -= draw.textlength(line.name, font)
        draw.text((right, 36 * scale), line.name, INK, font, anchor="lm")
        right -= 24 * scale
        color = COLORS[number % len(COLORS)]
        draw.line(((right, 36 * scale), (right + 18 * scale, 36 * scale)), fill=color, width=3 * scale)
        right -= 14 * scale


def _drawable(points: Sequence[tuple[float, float]], log_y: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(low)):
        # A line that does not rise or fall still needs an axis.
        margin = 0.5 * abs(low) or 1.0
        return low - margin, high + margin
    return low, high


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
