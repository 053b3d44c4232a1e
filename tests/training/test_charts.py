import math

import pytest

from diffusers_imagen.training.charts import COLORS, Line, _round_exponents, draw_chart, round_ticks


def distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 1000, 6, [0, 200, 400, 600, 800, 1000]),
        (0.13, 0.42, 4, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (-15, 15, 4, [-20, -10, 0, 10, 20]),
    ],
)
def test_ticks_are_round_and_enclose_the_range(low: float, high: float, most: int, ticks: list[float]) -> None:
    assert round_ticks(low, high, most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.013, 0.1, [0.01, 0.02, 0.05, 0.1]), (3.0, 4.0, [2, 5]), (1e-6, 1e2, [10.0**k for k in range(-6, 3)])],
)
def test_ticks_of_a_logarithmic_axis_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    found = _round_exponents(math.log10(low), math.log10(high), 6)
    assert [10**value for value in found] == pytest.approx(ticks)


def test_line_is_drawn_where_its_points_are() -> None:
    chart = draw_chart("title", "x", [Line("one", [(0, 0), (100, 0), (100, 10), (0, 10)])], 400, 300)
    pixels = chart.load()
    colored = [(x, y) for x in range(400) for y in range(45, 300) if distance(pixels[x, y], COLORS[0]) < 30]
    # A frame around the whole plotting area.
    assert min(x for x, _ in colored) <= 90
    assert max(x for x, _ in colored) >= 370
    assert min(y for _, y in colored) <= 55
    assert max(y for _, y in colored) >= 245


def test_points_that_cannot_be_drawn_are_left_out() -> None:
    good = draw_chart("title", "x", [Line("one", [(0, 1), (1, 10)])], 200, 150, log_y=True)
    bad = Line("one", [(0, 1), (0.5, math.nan), (0.6, 0.0), (0.7, -1.0), (1, 10)])
    assert draw_chart("title", "x", [bad], 200, 150, log_y=True).tobytes() == good.tobytes()


@pytest.mark.parametrize("points", [[], [(1, 1)], [(1, 2), (3, 2)]])
def test_charts_of_nothing_a_point_and_a_level_line_are_drawn(points: list[tuple[float, float]]) -> None:
    assert draw_chart("title", "x", [Line("one", points)], 200, 150).size == (200, 150)
