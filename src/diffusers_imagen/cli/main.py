# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen`: the program and its verbs."""

import sys
from typing import Annotated

import typer

from diffusers_imagen._version import __version__
from diffusers_imagen.cli.assemble import assemble
from diffusers_imagen.cli.card import card
from diffusers_imagen.cli.data import data
from diffusers_imagen.cli.diagnose import diagnose
from diffusers_imagen.cli.ema import ema
from diffusers_imagen.cli.evaluate import evaluate
from diffusers_imagen.cli.export_remote_code import export_remote_code
from diffusers_imagen.cli.generate import generate
from diffusers_imagen.cli.push import push
from diffusers_imagen.cli.redraw import redraw
from diffusers_imagen.cli.report import report
from diffusers_imagen.cli.schedulers import schedulers
from diffusers_imagen.cli.train import presets, train

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(schedulers)
app.command()(train)
app.command()(presets)
app.command()(report)
app.command()(ema)
app.command()(assemble)
app.command()(evaluate)
app.command()(card)
app.command()(push)
app.command()(export_remote_code)
app.command()(diagnose)
app.command()(redraw)
app.add_typer(data)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Imagen for Diffusers: draw pictures from text with a cascade of pixel diffusion models."""


def main() -> None:
    """Run the program; wrong input is told in one line, without a traceback."""
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"diffusers-imagen: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
