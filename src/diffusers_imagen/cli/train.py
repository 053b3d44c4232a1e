# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen train`: a configuration to a trained stage. `presets` gives configurations to start from."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from diffusers_imagen.training.config import TrainConfig


def train(
    config: Annotated[Path | None, typer.Argument(help="A YAML file that describes the run.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Start from a preset instead of a file; see `diffusers-imagen presets`.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="section.field=value, wins over the file; may be given several times."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the whole run, short for --set max_steps=...")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, memory, data, steps and hours, and stop.")
    ] = False,
) -> None:
    """Train one stage; the same command again resumes it. Works the same under torchrun and accelerate launch."""
    from diffusers_imagen.cli.preview import StagePreview
    from diffusers_imagen.cli.prior import PriorDrawer
    from diffusers_imagen.training.checkpoint import checkpoint_steps
    from diffusers_imagen.training.dry_run import dry_run as try_out
    from diffusers_imagen.training.loop import train as run
    from diffusers_imagen.training.report import write_report
    from diffusers_imagen.training.run_folder import CHECKPOINTS, LOG, read_lines

    settings = read_settings(config, preset, override or [], steps)
    is_main = os.environ.get("RANK", "0") == "0"
    if dry_run:
        lines = list(try_out(settings).lines())
        if is_main:
            print("\n".join(lines))
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffusers_imagen").setLevel(logging.INFO)
    made = max(checkpoint_steps(Path(settings.output_dir) / CHECKPOINTS), default=0)
    result = run(settings, preview=StagePreview(settings) if is_main else None, draw=PriorDrawer(settings))
    if not is_main:
        return
    # A run that was left before its first line has nothing to report.
    if read_lines(Path(settings.output_dir) / LOG):
        print(f"report: {write_report(Path(settings.output_dir))}")
    if made >= settings.max_steps:
        print(f"{made} steps were made before, and `max_steps` is {settings.max_steps}: give more to go on")
        return
    print(f"{result.step} steps, {result.skipped} skipped, {'finished' if result.finished else 'to be resumed'}")


def presets(
    name: Annotated[str | None, typer.Argument(help="Of the preset to print; all names if not given.")] = None,
) -> None:
    """Print a training configuration to start from, as YAML, or the names of all."""
    from diffusers_imagen.training.preset_files import describe_presets, preset_path

    if name is None:
        for line in describe_presets():
            print(line)
        return
    print(preset_path(name).read_text(encoding="utf-8"), end="")


def read_settings(config: Path | None, preset: str | None, override: list[str], steps: int | None) -> "TrainConfig":
    """Read the configuration of a run from a file or a preset, and what the command line sets.

    Raises:
        ValueError: If there is none or there are two, or something in it is refused.
    """
    from diffusers_imagen.cli.text_folder import text_folder
    from diffusers_imagen.training.config_file import load_config
    from diffusers_imagen.training.preset_files import preset_path

    if (config is None) == (preset is None):
        raise ValueError(f"`CONFIG` is {config} and `--preset` is {preset}; give one of the two.")
    words: list[str] = []
    for item in override:
        name, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"`--set` is {item!r}; give section.field=value, such as optimizer.lr=1e-4.")
        words += [f"--{name}", value]
    if steps is not None:
        words += ["--max_steps", str(steps)]
    path = config if preset is None else preset_path(preset)
    settings = load_config(path or "", words)
    text = replace(settings.text, folder=str(text_folder(settings.text.folder)))
    pretrained = settings.model.pretrained
    model = settings.model if pretrained is None else replace(settings.model, pretrained=str(text_folder(pretrained)))
    return replace(settings, text=text, model=model)
