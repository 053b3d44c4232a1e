# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Growth curves: their exponents, and their picture."""

from pathlib import Path

from intervals import Interval, log_slope, median_interval
from results import Row


def slope(row: Row) -> Interval:
    """Return the exponent of a curve's power law with its interval: one exponent from each round."""
    x = [float(point.variant) for point in row.measurements]
    by_round = zip(*(point.values for point in row.measurements), strict=True)
    return median_interval([log_slope(x, y) for y in by_round])


def draw_curves(rows: list[Row], file: Path) -> None:
    """Draw all curves, with the range of the rounds and a line of slope 1 through the last point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    figure, axes = pyplot.subplots(1, len(rows), figsize=(4 * len(rows), 3.6), layout="constrained")
    for axis, row in zip(axes, rows, strict=True):
        x = [float(point.variant) for point in row.measurements]
        y = [point.median for point in row.measurements]
        axis.fill_between(
            x, [min(p.values) for p in row.measurements], [max(p.values) for p in row.measurements], alpha=0.2
        )
        axis.plot(x, y, "o-")
        axis.plot(x, [y[-1] * value / x[-1] for value in x], ":", color="gray")
        found = slope(row)
        axis.set_title(f"slope {found.median:.2f} ({found.low:.2f} to {found.high:.2f})", fontsize=10)
        axis.set(xscale="log", yscale="log", xlabel=row.title.removeprefix("growth with "))
        axis.set_xticks(x, [f"{value:,.0f}" for value in x], fontsize=8)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1000 * value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("milliseconds")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
