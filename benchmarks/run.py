# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Measure this package against its peers and show the results.

python benchmarks/run.py [--only forward,cascade] [--quick] [--threads 2] [--results FOLDER]

Each section is saved as soon as it is done, so that one can be measured again without the others.
"""

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path

# Before anything of Hugging Face is imported: nothing here may ask a network, nor tell us about torchvision.
os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})

import cascade
import diffusers
import forward
import growth
import large
import memory
import startup
import torch
import training
from curves import draw_curves
from limits import measure_limits
from report import show, wide_console
from results import RESULTS, SECTIONS, Row, Section, machine_facts
from scale import SCALES, Scale

MEASURE: dict[str, Callable[[Scale, int], list[Row]]] = {
    "forward": lambda scale, _: forward.measure(scale),
    "training": lambda scale, _: training.measure(scale),
    "cascade": lambda scale, _: cascade.measure(scale),
    "large": large.measure,
    "memory": memory.measure,
    "startup": startup.measure,
    "growth": lambda scale, _: growth.measure(scale),
}


def main() -> None:
    arguments = _arguments()
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    scale = SCALES["quick" if arguments.quick else "full"]
    folder = arguments.results or (RESULTS / "quick" if arguments.quick else RESULTS)
    console = wide_console()
    for name in arguments.only:
        console.print(f"Measuring {name} ...")
        limits = measure_limits(0.05 if arguments.quick else 0.4)
        section = Section(name, MEASURE[name](scale, arguments.threads), limits, machine_facts(arguments.threads))
        section.save(folder)
        if name == "growth":
            draw_curves(section.rows, folder / "growth.png")
    show(folder, console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=_names, default=list(SECTIONS), help=f"sections, with commas: {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny models: some four minutes, no figures worth keeping"
    )
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of every side (default 2)")
    parser.add_argument("--results", type=Path, help="folder that the results go to (default benchmarks/results)")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}; there is {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    main()
