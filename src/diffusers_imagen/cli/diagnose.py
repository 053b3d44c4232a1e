# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen diagnose`: a cascade and real pictures to the stage that is the weak one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusers_imagen.cli.generate import STAGE_VALUE_HELP, load_pipeline, parse_stage_values

if TYPE_CHECKING:
    import PIL.Image

    from diffusers_imagen.evaluation.diagnosis import Diagnosis, Draw
    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

_ON_SHEET = 8


def diagnose(
    checkpoint: Annotated[str, typer.Argument(help="A folder, a built-in cascade's name, or a Hub repository.")],
    data: Annotated[
        Path, typer.Option(help="Captioned pictures as for training, best such as the cascade has not seen.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for diagnosis.md, diagnosis.json and sheet.png.")] = Path(
        "outputs/diagnosis"
    ),
    num_images: Annotated[
        int, typer.Option("--num-images", "-n", min=4, help="Pictures to draw; as many others are compared with.")
    ] = 32,
    validation_fraction: Annotated[
        float,
        typer.Option(min=0, max=1, help="Take the pictures that a run with this data.validation_fraction held out."),
    ] = 0.0,
    features: Annotated[
        str | None, typer.Option(help="clip:MODEL or dino:MODEL; colours and details without a model if not given.")
    ] = None,
    allow_download: Annotated[bool, typer.Option(help="Fetch the model of --features.")] = False,
    steps: Annotated[str | None, typer.Option(help=f"Sampling steps: {STAGE_VALUE_HELP}.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picture number i is drawn from seed + i.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; chosen by itself if not given.")] = None,
) -> None:
    """Tell which stage is the weak one: each is fed with real smaller pictures, and with those that were drawn."""
    arguments = {"num_inference_steps": parse_stage_values("steps", steps, int)}
    from PIL import Image

    from diffusers_imagen.evaluation.diagnosis import PlainFeatures
    from diffusers_imagen.evaluation.diagnosis import diagnose as find_out
    from diffusers_imagen.evaluation.features import load_extractor
    from diffusers_imagen.training.config import DataConfig
    from diffusers_imagen.training.sources import open_data

    extractor = PlainFeatures() if features is None else load_extractor(features, allow_download)
    pipe = load_pipeline(checkpoint, device)
    sides = {stage: pipe_unet(pipe, stage).config.sample_size for stage in pipe.stage_names}
    pictures = DataConfig(folder=str(data), size=list(sides.values())[-1], validation_fraction=validation_fraction)
    source = open_data(pictures, held_out=validation_fraction > 0)
    if len(source) < 2 * num_images:
        raise ValueError(
            f"`--num-images` is {num_images}, for which {2 * num_images} pictures are needed, but {str(data)!r} gives "
            f"{len(source)}; give {len(source) // 2} or less."
        )
    chosen = [source[place * len(source) // (2 * num_images)] for place in range(2 * num_images)]
    images = [Image.fromarray(picture.pixels) for picture in chosen]
    prompts = [picture.captions[0] if picture.captions else "" for picture in chosen[::2]]
    seeds = [seed + number for number in range(num_images)]
    draw = drawing_with(pipe, prompts, seeds, batch_size, arguments)
    found, drawn = find_out(sides, images[::2], images[1::2], draw, extractor)
    write_diagnosis(found, out, {"checkpoint": checkpoint, "data": str(data), "features": features or "plain"})
    write_sheet_of(drawn, images[::2], out / "sheet.png")
    print((out / "diagnosis.md").read_text(encoding="utf-8"))


def pipe_unet(pipe: "ImagenCascadePipeline", stage: str) -> Any:
    """Return the U-Net of a stage."""
    return pipe.unet if stage == "base" else getattr(pipe, stage.replace("sr_", "sr_unet_"))


def drawing_with(
    pipe: "ImagenCascadePipeline",
    prompts: Sequence[str],
    seeds: Sequence[int],
    batch_size: int,
    arguments: Mapping[str, Any],
) -> "Draw":
    """Return the function that draws prompts from a stage on, picture by picture from its own seed."""
    import torch

    pipe.set_progress_bar_config(disable=True)

    def draw(start: str, smaller: "Sequence[PIL.Image.Image] | None") -> "Mapping[str, Sequence[PIL.Image.Image]]":
        stages: dict[str, list[PIL.Image.Image]] = {}
        for first in range(0, len(prompts), batch_size):
            part = slice(first, first + batch_size)
            drawn = pipe(
                list(prompts[part]),
                image=None if smaller is None else list(smaller[part]),
                start_stage=start,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                **arguments,
            ).stages
            for stage, pictures in drawn.items():
                stages.setdefault(stage, []).extend(pictures)
        return stages

    return draw


def write_diagnosis(found: "Diagnosis", out: Path, facts: Mapping[str, str]) -> None:
    """Write the findings for people and for programs."""
    lines = ["# Diagnosis", "", found.verdict, "", *(f"- {name}: {value}" for name, value in facts.items())]
    lines += [f"- pictures: {found.drawn} drawn, compared with {found.real} real ones", ""]
    lines += [
        "| stage | fed with real | fed with drawn | cost in the final pictures | costs most |",
        "|---|---|---|---|---|",
    ]
    for stage in found.stages:
        real = "-" if stage.fed_real is None else f"{stage.fed_real:.3f}"
        cost = f"{stage.cost:.3f} [{stage.low:.3f}, {stage.high:.3f}]"
        lines.append(f"| {stage.stage} | {real} | {stage.fed_drawn:.3f} | {cost} | {stage.weakest:.0%} |")
    names = [stage.stage for stage in found.stages]
    columns = [
        "real",
        *names,
        *(f"{name} (started at {start} from real)" for start in names[1:] for name in names[names.index(start) :]),
    ]
    lines += [
        "",
        "Numbers are kernel distances to real pictures (Binkowski et al. 2018) in units of their own scatter: 0 is as "
        f"near as other real ones, which are {found.floor:.3f} away. Cost: by how much the final pictures come nearer "
        "when the stage's own pictures are replaced by real ones, with the middle 95 % of half-samples.",
        "",
        f"![sheet](sheet.png) Columns: {', '.join(columns)}.",
    ]
    out.mkdir(parents=True, exist_ok=True)
    facts_and_findings = {"verdict": found.verdict, **facts, **asdict(found)}
    for name, text in (
        ("diagnosis.md", "\n".join(lines)),
        ("diagnosis.json", json.dumps(facts_and_findings, indent=1, ensure_ascii=False)),
    ):
        temporary = out / f".{name}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(out / name)


def write_sheet_of(
    drawn: "Mapping[str, Mapping[str, Sequence[PIL.Image.Image]]]", real: "Sequence[PIL.Image.Image]", path: Path
) -> None:
    """Write a sheet with a row for each of the first captions: the real picture, then all that was drawn for it."""
    from diffusers_imagen.evaluation.sheets import Cell, write_sheet

    columns = [pictures for stages in drawn.values() for pictures in stages.values()]
    rows = [
        [Cell(real[row]), *(Cell(pictures[row]) for pictures in columns)] for row in range(min(_ON_SHEET, len(real)))
    ]
    write_sheet(rows, path, columns=1, side=128)
