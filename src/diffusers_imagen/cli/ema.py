# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen ema`: a run's snapshots to the U-Net of any average."""

import sys
from pathlib import Path
from typing import Annotated

import typer

# An average that is farther off than this is another one.
_TOLERANCE = 0.05


def ema(
    run: Annotated[Path, typer.Argument(help="The output_dir of a run with `ema.post_hoc: true`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the averaged U-Net.")],
    sigma_rel: Annotated[
        float, typer.Option(help="Width of the average over the length of the training, such as 0.05, 0.1 or 0.2.")
    ] = 0.1,
    step: Annotated[int | None, typer.Option(help="Of one of the snapshots; the last one if not given.")] = None,
) -> None:
    """Write the average of a run's weights with a width chosen after the training (arXiv:2312.02696)."""
    from diffusers_imagen.training.post_hoc import write_average

    made = write_average(run, sigma_rel, output, step)
    print(f"{output}: sigma_rel {sigma_rel:g} at step {made.step}, from {made.snapshots} snapshots")
    if made.error > _TOLERANCE:
        print(
            f"The profile is {made.error:.0%} off the one that was asked for: it needs more snapshots "
            "(`ema.snapshot_every_steps`), or a width between those of `ema.sigma_rels`.",
            file=sys.stderr,
        )
