# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Show saved results as tables, ratios against their targets first.

python benchmarks/report.py [FOLDER]
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curves import slope
from intervals import Interval, extreme_ratio, median_interval, ratios
from results import OURS, PEERS, RESULTS, SECTIONS, Measurement, Row, Section, load_section
from rich.console import Console
from rich.table import Table
from targets import BUILTIN_PICTURE, BUILTIN_READY, IMPORT_ADDED, RATIOS, SHARE_AT_BATCH_4

ALONE = "alone"
"""What stands in a verdict for a peer where there is none."""


@dataclass(frozen=True)
class Verdict:
    """One figure against one target.

    Args:
        what: the work.
        side: which of ours.
        against: a peer, or `ALONE`.
        found: the figure.
        target: what it should be.
        at_least: whether more is better.
    """

    what: str
    side: str
    against: str
    found: Interval
    target: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the median reaches the target."""
        return self.found.median >= self.target if self.at_least else self.found.median <= self.target


def compare(row: Row, side: str, peer: str, per_flop: bool = False) -> Interval | None:
    """Return how many times more the peer's best takes than our side's best, or `None` where one is missing."""
    ours, theirs = row.best(side), row.best(peer)
    if ours is None or theirs is None:
        return None
    if not row.paired:
        return extreme_ratio(theirs.values, ours.values)
    factor = ours.gflop / theirs.gflop if per_flop and ours.gflop and theirs.gflop else 1.0
    return median_interval([factor * ratio for ratio in ratios(theirs.values, ours.values)])


def ratio_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Judge every row that has targets."""
    verdicts = []
    for row in rows:
        for key, per_flop in ((row.key, False), (f"{row.key}_per_flop", True)):
            for peer, target in RATIOS.get(key, {}).items():
                for side in OURS:
                    found = compare(row, side, peer, per_flop)
                    if found is not None:
                        title = "the same per FLOP" if per_flop else row.title
                        verdicts.append(Verdict(title, side, peer, found, target))
    return verdicts


def plain_verdicts(rows: Sequence[Row], limits: dict[str, float]) -> list[Verdict]:
    """Judge what has no peer: share of the limit, start-up, the built-in cascade."""
    found = {row.key: row for row in rows}
    verdicts = []
    if "base_b4" in found:
        verdicts += [_share_verdict(found["base_b4"], side, limits) for side in OURS]
    for key in ("import", "import_cpu"):
        if key in found:
            verdicts += _import_verdicts(found[key])
    for key, target in (("import_after", IMPORT_ADDED), ("ready", BUILTIN_READY), ("picture", BUILTIN_PICTURE)):
        if key in found:
            interval = median_interval(found[key].measurements[0].values)
            verdicts.append(Verdict(f"seconds: {found[key].title}", "ours", ALONE, interval, target, False))
    return verdicts


def _share_verdict(row: Row, side: str, limits: dict[str, float]) -> Verdict:
    best = row.best(side)
    assert best is not None
    shares = [share_of_limit(best, seconds, limits) or 0.0 for seconds in best.values]
    name = "share of the bf16 convolution rate, batch 4"
    return Verdict(name, side, ALONE, median_interval(shares), SHARE_AT_BATCH_4)


def _import_verdicts(row: Row) -> list[Verdict]:
    """Judge what each import adds to that of Diffusers alone, which the row begins with."""
    alone, *others = row.measurements
    verdicts = []
    for other in others:
        added = median_interval([b - a for a, b in zip(alone.values, other.values, strict=True)])
        target = IMPORT_ADDED if other.side == "ours" else math.inf
        name = f"seconds added ({row.title}): {other.variant}"
        verdicts.append(Verdict(name, other.side, ALONE, added, target, False))
    return verdicts


def share_of_limit(measurement: Measurement, seconds: float, limits: dict[str, float]) -> float | None:
    """Return the rate reached over the machine's convolution rate in that precision."""
    limit = limits.get(f"conv {measurement.precision}")
    if measurement.gflop is None or limit is None:
        return None
    return measurement.gflop / seconds / limit


def best_limits(sections: Sequence[Section]) -> dict[str, float]:
    """Return the best rates of the whole run: noise only ever lowers them."""
    names = {name for section in sections for name in section.limits}
    return {name: max(section.limits.get(name, 0.0) for section in sections) for name in sorted(names)}


def show(folder: Path, console: Console) -> None:
    """Print all tables and write `summary.json`."""
    files = [folder / f"{name}.json" for name in SECTIONS]
    sections = [load_section(file) for file in files if file.is_file()]
    rows = [row for section in sections for row in section.rows]
    limits = best_limits(sections)
    if not sections:
        raise SystemExit(f"{folder} holds no results; `python benchmarks/run.py` makes them.")
    console.print(sections[0].machine)
    console.print("Limits, GFLOP/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in limits.items()))
    verdicts = [*ratio_verdicts(rows), *plain_verdicts(rows, limits)]
    console.print(_verdict_table(verdicts))
    console.print(_measurement_table(rows, limits))
    curves = [row for row in rows if row.key.startswith("growth_")]
    if curves:
        console.print(_growth_table(curves))
    summary = [_summed_up(verdict) for verdict in verdicts]
    (folder / "summary.json").write_text(json.dumps({"limits": limits, "verdicts": summary}, indent=1) + "\n")


def _summed_up(verdict: Verdict) -> dict[str, Any]:
    has_target = math.isfinite(verdict.target)
    judged = {"target": verdict.target, "met": verdict.met} if has_target else {"target": None, "met": None}
    return {**vars(verdict), "found": verdict.found._asdict(), **judged}


def wide_console() -> Console:
    """Return a console that tables fit on, also where the output is a file."""
    return Console(width=max(150, Console().width))


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _range(found: Interval) -> str:
    coverage = "range" if math.isnan(found.coverage) else f"{found.coverage:.0%}"
    return f"{_figure(found.low)} to {_figure(found.high)} ({coverage})"


def _verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="Against the targets")
    for column in ("what", "ours", "against", "found", "interval", "target", ""):
        table.add_column(column)
    for verdict in verdicts:
        times = "" if verdict.against == ALONE else "x"
        sign = ">=" if verdict.at_least else "<="
        has_target = math.isfinite(verdict.target)
        word = ("[green]met[/green]" if verdict.met else "[red]missed[/red]") if has_target else ""
        table.add_row(
            verdict.what,
            verdict.side,
            "" if verdict.against == ALONE else verdict.against,
            _figure(verdict.found.median) + times,
            _range(verdict.found),
            f"{sign} {verdict.target:g}{times}" if has_target else "",
            word,
        )
    return table


def _measurement_table(rows: Sequence[Row], limits: dict[str, float]) -> Table:
    table = Table(title="Everything measured (medians; * the side's best, which counts)")
    for column in ("side", "variant", "M param.", "GFLOP", "median", "each", "GF/s", "of limit", "rounds"):
        table.add_column(column)
    for row in rows:
        if row.key.startswith("growth_"):
            continue
        table.add_row(f"[bold]{row.title}[/bold]")
        for one in row.measurements:
            share = share_of_limit(one, one.median, limits)
            star = " *" if one is row.best(one.side) and one.side in (*OURS, *PEERS) else ""
            table.add_row(
                one.side,
                one.variant + star,
                "" if one.parameters is None else f"{one.parameters / 1e6:.1f}",
                "" if one.gflop is None else f"{one.gflop:.1f}",
                _with_unit(one.median, row.unit),
                _each(row, one),
                "" if one.gflop is None else f"{one.gflop / one.median:.0f}",
                "" if share is None else f"{share:.0%}",
                str(len(one.values)),
            )
        table.add_section()
    return table


def _with_unit(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.0f} {unit}"
    return f"{1000 * value:.1f} ms" if value < 10 else f"{value:.1f} s"


def _each(row: Row, one: Measurement) -> str:
    """Say what one picture costs, and for training how many a second are made."""
    if row.samples == 1:
        return ""
    each = _with_unit(one.median / row.samples, row.unit)
    return f"{row.samples / one.median:.2f}/s" if row.key == "training" else each


def _growth_table(rows: Sequence[Row]) -> Table:
    table = Table(title="Growth: time ~ x^slope")
    for column in ("with", "slope", "interval", "points (x: ms)"):
        table.add_column(column)
    for row in rows:
        found = slope(row)
        points = ", ".join(f"{point.variant}: {1000 * point.median:.1f}" for point in row.measurements)
        table.add_row(row.title.removeprefix("growth with "), f"{found.median:.2f}", _range(found), points)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS)
    show(parser.parse_args().folder, wide_console())


if __name__ == "__main__":
    main()
