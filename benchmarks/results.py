# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a benchmark hands over: measurements in rows, rows in a section, a section in a JSON file of its own.

Everything that was measured is kept, round by round; ratios and intervals are computed from it when it is shown.
"""

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "imagen-pytorch", "diffusers-imagen")
SECTIONS = ("forward", "training", "cascade", "large", "memory", "startup", "growth")
OURS = ("paper", "fast")
PEERS = ("IF", "imagen-pytorch")


@dataclass(frozen=True)
class Measurement:
    """One side in one way of running it.

    Args:
        side: one of `OURS` or `PEERS`.
        variant: precision, layout and the like.
        precision: "fp32" or "bf16", which of the machine's limits it could reach.
        values: one a round, in the row's unit; less is better.
        parameters: of the model or models.
        gflop: billions of floating-point operations behind one value.
    """

    side: str
    variant: str
    precision: str
    values: list[float]
    parameters: int | None = None
    gflop: float | None = None

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Row:
    """Measurements of the same work.

    Args:
        key: short name, by which `targets.py` knows it.
        title: what it is.
        unit: of the values: "s" or "MiB".
        paired: whether the n-th values of all measurements come from the same round.
        measurements: of all sides.
        samples: pictures behind one value.
    """

    key: str
    title: str
    unit: str
    paired: bool
    measurements: list[Measurement]
    samples: int = 1

    def best(self, side: str) -> Measurement | None:
        """Return the side's best measurement by its median, or `None` where it has none."""
        own = [measurement for measurement in self.measurements if measurement.side == side]
        return min(own, key=lambda measurement: measurement.median, default=None)


@dataclass
class Section:
    """All rows of one benchmark, and the machine that they come from."""

    name: str
    rows: list[Row]
    limits: dict[str, float] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the section as `<name>.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_section(path: Path) -> Section:
    """Read a section that `Section.save` wrote."""
    values = json.loads(path.read_text())
    rows = [
        Row(**{**row, "measurements": [Measurement(**one) for one in row["measurements"]]}) for row in values["rows"]
    ]
    return Section(**{**values, "rows": rows})


def machine_facts(threads: int) -> dict[str, Any]:
    """Say what the results were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
