# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Print what `layout.py` measured: held-out errors by noise level, and each layout against the first, paired.

python benchmarks/layout_table.py benchmarks/results/layout_base.json
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom.
_STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def paired(ours: list[float], theirs: list[float]) -> str:
    """Give the mean ratio of two runs with the same seed, and its 95 % interval over seeds."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return f"{math.exp(mean):.3f}"
    half = _STUDENT[len(logs) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(mean):.3f} [{math.exp(mean - half):.3f}, {math.exp(mean + half):.3f}]"


def table(entries: list[dict[str, Any]]) -> list[str]:
    """Give the lines of one milestone's table."""
    names = list(dict.fromkeys(entry["layout"] for entry in entries))
    runs = {name: [entry for entry in entries if entry["layout"] == name] for name in names}
    levels = " | ".join(f"{level:+.0f}" for level in entries[0]["log_snr"])
    lines = [f"| layout | M parameters | samples | x_0 error at log-SNR {levels} | loss | loss / {names[0]}'s |"]
    lines.append("|---" * (len(entries[0]["log_snr"]) + 5) + "|")
    for name in names:
        errors = zip(*(run["x_0_error"] for run in runs[name]), strict=True)
        by_level = " | ".join(f"{statistics.fmean(level):.4f}" for level in errors)
        losses = [run["loss"] for run in runs[name]]
        samples = statistics.fmean(run["samples"] for run in runs[name])
        ratio = paired(losses, [run["loss"] for run in runs[names[0]]])
        size = runs[name][0]["parameters"] / 1e6
        lines.append(
            f"| {name} | {size:.1f} | {samples:.0f} | {by_level} | {statistics.fmean(losses):.5f} | {ratio} |"
        )
    return lines


def main() -> None:
    """Print the tables of all milestones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results")
    results = json.loads(Path(parser.parse_args().results).read_text(encoding="utf-8"))
    for entries in results.values():
        seconds = statistics.fmean(entry["seconds"] for entry in entries)
        print(f"\nafter {seconds:.0f} s of one core, {len({e['seed'] for e in entries})} seeds\n")
        print("\n".join(table(entries)))


if __name__ == "__main__":
    main()
