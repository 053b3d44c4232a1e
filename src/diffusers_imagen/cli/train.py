# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen train`: a configuration to a trained stage."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file that describes the run.")],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="section.field=value, wins over the file; may be given several times."),
    ] = None,
) -> None:
    """Train one stage; the same command again resumes it."""
    from diffusers_imagen.cli.preview import StagePreview
    from diffusers_imagen.training.config import load_config
    from diffusers_imagen.training.loop import train as run

    words: list[str] = []
    for item in override or []:
        name, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"`--set` is {item!r}; give section.field=value, such as optimizer.lr=1e-4.")
        words += [f"--{name}", value]
    settings = load_config(config, words)
    result = run(settings, preview=StagePreview(settings))
    print(f"{result.step} steps, {result.skipped} skipped, {'finished' if result.finished else 'to be resumed'}")
