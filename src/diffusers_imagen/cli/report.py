# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen report`: a run to one picture of how it went."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="The output_dir of a run, finished or not.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG file; RUN/report.png if not given.")
    ] = None,
) -> None:
    """Draw a run's loss, speed, held-out loss by level of noise and previews into one PNG."""
    if output is not None and output.suffix.lower() != ".png":
        raise ValueError(f"`--output` is {str(output)!r}; give a file name that ends in .png.")
    from diffusers_imagen.training.report import write_report

    print(write_report(run, output))
