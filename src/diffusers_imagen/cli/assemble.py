# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen assemble`: trained stages and a text encoder to a cascade."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusers_imagen.cli.generate import STAGE_VALUE_HELP, parse_stage_values

if TYPE_CHECKING:
    from diffusers_imagen.text.encoding import TextSettings

# Of an enlargement: noise on the smaller picture hides what its base draws otherwise than real pictures are.
_NOISE_LEVEL = 0.05
_TEXT_FIELDS = ("layers", "prefix", "max_length", "template", "template_tokens")


def assemble(
    stages: Annotated[
        list[str],
        typer.Argument(
            metavar="STAGE",
            help="Runs' folders, or U-Nets', of a base and its enlargements; of a cascade or a built-in name, its base.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new cascade.")],
    text: Annotated[
        str | None,
        typer.Option(
            help="Folder with tokenizer/ and text_encoder/, or a built-in cascade; by default the runs' own."
        ),
    ] = None,
    text_layers: Annotated[
        str | None, typer.Option(help="Hidden layers, such as 7,12, for U-Nets without their run's folder.")
    ] = None,
    text_prefix: Annotated[str | None, typer.Option(help="Put before each prompt, likewise.")] = None,
    text_max_length: Annotated[int | None, typer.Option(min=1, help="Tokens of a prompt, likewise.")] = None,
    steps: Annotated[str | None, typer.Option(help=f"Sampling steps to save: {STAGE_VALUE_HELP}.")] = None,
    guidance: Annotated[str | None, typer.Option(help=f"Weight of the text to save: {STAGE_VALUE_HELP}.")] = None,
    noise_level: Annotated[str | None, typer.Option(help="Noise on smaller pictures to save: sr_1=0.1.")] = None,
) -> None:
    """Join trained stages into a cascade that `from_pretrained` loads; schedulers and settings come from the stages."""
    changes = {
        "num_inference_steps": parse_stage_values("steps", steps, int),
        "guidance_scale": parse_stage_values("guidance", guidance, float),
        "noise_level": parse_stage_values("noise-level", noise_level, float),
    }
    from diffusers_imagen.cli.text_folder import text_folder
    from diffusers_imagen.pipelines.assembly import assemble as join
    from diffusers_imagen.pipelines.assembly import order_stages
    from diffusers_imagen.training.run_folder import read_run_config, unet_folder

    places = [text_folder(stage) for stage in stages]
    runs = {unet_folder(place): read_run_config(place) for place in places}
    known = {folder: run for folder, run in runs.items() if run is not None}
    factors = {folder: run["data"]["low_res_factor"] for folder, run in known.items()}
    ordered = order_stages([unet_folder(place) for place in places], factors)
    chosen = {"layers": text_layers, "prefix": text_prefix, "max_length": text_max_length}
    settings = {stage: stage_settings(stage, known.get(folder)) for stage, folder in ordered.items()}
    for name, values in changes.items():
        for stage, value in (values or {}).items():
            if stage not in settings:
                raise ValueError(f"`{name}` names the stage {stage!r}, but the stages are {', '.join(settings)}.")
            settings[stage][name] = value
    encoder = text or agreed("text.folder", {str(f): r["text"]["folder"] for f, r in known.items()})
    if encoder is None:
        raise ValueError("`--text` is not given, and no stage is a run that tells; give the text encoder's folder.")
    pipe = join(ordered, text_folder(encoder), text_settings(chosen, known), settings, output)
    for stage, folder in ordered.items():
        print(f"{stage}: {folder}, {settings[stage]}")
    print(f"{output}: {', '.join(pipe.stage_names)}, {type(pipe.text_encoder).__name__}")


def stage_settings(stage: str, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """Choose what a cascade saves for a stage: what the run's previews were drawn with.

    Args:
        stage: "base", "sr_1" or "sr_2".
        run: The run's configuration; None for a U-Net without one.

    Returns:
        Names and values of `StageSettings`; an enlargement's noise lies within what it was trained on.
    """
    preview = {} if run is None else run["preview"]
    settings: dict[str, Any] = {"num_inference_steps": preview.get("num_inference_steps", 20)}
    if stage == "base":
        return settings | {"guidance_scale": preview.get("guidance_scale", 3.0)}
    settings |= {"guidance_scale": 1.0, "noise_level": _NOISE_LEVEL, "thresholding": "static"}
    if run is not None:
        objective = run["objective"]
        least, most = objective["noise_level_min"], objective["noise_level_max"]
        settings |= {"noise_level": min(max(_NOISE_LEVEL, least), most), "resize": run["data"]["low_res_resize"]}
    return settings


def text_settings(given: Mapping[str, Any], runs: Mapping[Path, Mapping[str, Any]]) -> "TextSettings":
    """Settle how prompts are encoded: as was given, else as the runs did, else by default.

    Args:
        given: `layers` ("7,12"), `prefix` and `max_length`, each a value or None; the template is the runs'.
        runs: The runs' configurations by their U-Nets' folders.

    Raises:
        ValueError: If `layers` are no numbers, or the runs do not agree.
    """
    from diffusers_imagen.text.encoding import TextSettings

    values: dict[str, Any] = {}
    for name in _TEXT_FIELDS:
        value = given.get(name)
        if value is None:
            # Runs from before there were templates do not name them.
            value = agreed(f"text.{name}", {str(folder): run["text"].get(name) for folder, run in runs.items()})
        elif name == "layers":
            try:
                value = tuple(int(layer) for layer in value.split(","))
            except ValueError as error:
                raise ValueError(f"`--text-layers` is {value!r}; give numbers such as 7,12.") from error
        if value is not None:
            values[name] = value
    return TextSettings(**values)


def agreed(name: str, values: Mapping[str, Any]) -> Any:
    """Give the value that all runs have, or None without any run.

    Raises:
        ValueError: If they differ.
    """
    different = {str(value): folder for folder, value in values.items()}
    if len(different) > 1:
        each = ", ".join(f"{value} in {folder}" for value, folder in different.items())
        raise ValueError(
            f"`{name}` is {each}; a cascade has one text encoder for all stages: give the option yourself."
        )
    return next(iter(values.values()), None)
