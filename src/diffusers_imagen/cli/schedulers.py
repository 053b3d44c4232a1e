# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen schedulers`: which Diffusers schedulers draw, and with how many steps."""

from importlib.util import find_spec
from typing import Annotated

import typer

from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven

INSTALL = "pip install 'diffusers-imagen[schedulers]'"


def schedulers(
    word: Annotated[str, typer.Argument(help="Only classes and families that contain this word.")] = "",
) -> None:
    """Print every scheduler class of Diffusers: family and sensible steps, or why it is refused."""
    rows = [row(name) for name in SCHEDULERS if word.lower() in " ".join(row(name)).lower()]
    if not rows:
        raise ValueError(f"`word` is {word!r}, which no scheduler contains; leave it out to see all.")
    header = ("class", "verdict", "family", "steps", "note")
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(4)]
    for line in (header, *rows):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join([*cells, line[4]]).rstrip())
    print(f"\n{sum(line[1] == 'drives' for line in rows)} of {len(rows)} drive any stage of any cascade.")


def row(name: str) -> tuple[str, str, str, str, str]:
    """Return a scheduler's class, verdict, family, steps and note."""
    verdict = SCHEDULERS[name]
    if not isinstance(verdict, Driven):
        return name, "refused", "", "", f"{verdict.reason}; take {verdict.instead}"
    if verdict.needs and find_spec(verdict.needs) is None:
        return name, "missing", verdict.family, verdict.steps, f"needs {verdict.needs}: {INSTALL}"
    return name, "drives", verdict.family, verdict.steps, verdict.note
