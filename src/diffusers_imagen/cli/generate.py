# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen generate`: prompts to a picture file."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusers_imagen.cli.guider_option import make_guiders, parse_guiders
from diffusers_imagen.cli.scheduler_option import make_scheduler, parse_schedulers

if TYPE_CHECKING:
    import PIL.Image

    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

DEFAULT_CHECKPOINT = "imagen-emoji"
STAGE_VALUE_HELP = "one value for the base, or stage=value pairs: base=20,sr_1=8"


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw, in one or several prompts.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture file (PNG).")] = Path(
        "outputs/image.png"
    ),
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Picture number i of the call is drawn from seed + i.")
    ] = 0,
    num_images: Annotated[int, typer.Option("--num-images", "-n", min=1, help="Pictures of each prompt.")] = 1,
    steps: Annotated[str | None, typer.Option(help=f"Sampling steps: {STAGE_VALUE_HELP}.")] = None,
    guidance: Annotated[str | None, typer.Option(help=f"Weight of the text: {STAGE_VALUE_HELP}.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance moves away from.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="A Diffusers scheduler's class, for the base or stage=class pairs, with options after colons: "
            "base=UniPCMultistepScheduler:solver_order=3,sr_1=DDIMScheduler. See `diffusers-imagen schedulers`."
        ),
    ] = None,
    guider: Annotated[
        str | None,
        typer.Option(
            help="A Diffusers guider's class in place of --guidance, for the base or stage=class pairs, with options after "
            "colons: base=AdaptiveProjectedGuidance:guidance_scale=8:eta=0."
        ),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="A folder, a built-in cascade's name, or a Hub repository.")
    ] = DEFAULT_CHECKPOINT,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="Adapters to draw with: a LoRA run's folder, a safetensors file or a Hub repository; several are added. "
            "sr_1=PATH for that enlargement's, where the file does not say whose it is."
        ),
    ] = None,
    stop_stage: Annotated[str | None, typer.Option(help="The last stage to run: base, sr_1 or sr_2.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; chosen by itself if not given.")] = None,
) -> None:
    """Draw pictures from prompts; several pictures become a grid, each one's file beside it."""
    check_output(output)
    arguments: dict[str, Any] = {
        "num_inference_steps": parse_stage_values("steps", steps, int),
        "guidance_scale": parse_stage_values("guidance", guidance, float),
    }
    schedulers, guiders = parse_schedulers(scheduler), parse_guiders(guider)

    started = time.perf_counter()
    pipe = load_pipeline(checkpoint, device)
    set_schedulers(pipe, schedulers)
    load_adapters(pipe, lora or [])
    arguments["guider"] = make_guiders(guiders)
    loaded = time.perf_counter()
    import torch

    seeds = [seed + i for i in range(len(prompts) * num_images)]
    images = pipe(
        list(prompts),
        negative_prompt=negative_prompt,
        num_images_per_prompt=num_images,
        stop_stage=stop_stage,
        generator=[torch.Generator().manual_seed(value) for value in seeds],
        **arguments,
    ).images
    drawn = time.perf_counter()
    each = [prompt for prompt in prompts for _ in range(num_images)]
    paths = save_images(images, output, each, seeds, checkpoint)
    for path in paths:
        print(path)
    print(
        f"{len(images)} picture(s) of {images[0].width} x {images[0].height} pixels: "
        f"{loaded - started:.1f} s to load, {drawn - loaded:.1f} s to draw"
    )


def parse_stage_values(name: str, text: str | None, kind: type) -> Any:
    """Read `20` as a value for the base and `base=20,sr_1=8` as a mapping.

    Args:
        name: the option's, for messages.
        text: what was given, or `None`.
        kind: int, float or str.

    Raises:
        ValueError: what is neither.
    """
    if text is None:
        return None
    try:
        if "=" not in text:
            return {"base": kind(text)}
        return {stage.strip(): kind(value) for stage, value in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ValueError(f"`--{name}` is {text!r}; give {STAGE_VALUE_HELP}.") from error


def check_output(output: Path) -> None:
    """Refuse a file name that is no picture's, before anything is drawn.

    Raises:
        ValueError: a folder, an ending other than .png, or a place that cannot be written to.
    """
    if output.suffix.lower() != ".png":
        raise ValueError(f"`--output` is {str(output)!r}; give a file name that ends in .png.")
    if output.is_dir():
        raise ValueError(f"`--output` is {str(output)!r}, a folder; give a file name in it.")
    try:
        # The folder itself is made when there is something to put into it.
        with tempfile.TemporaryFile(dir=next(folder for folder in output.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise ValueError(
            f"`--output` is {str(output)!r}, where nothing can be written ({error.strerror}); give another place."
        ) from error


def load_pipeline(checkpoint: str, device: str | None) -> "ImagenCascadePipeline":
    """Load a cascade and put it on a device, by default on the accelerator if there is one.

    Raises:
        ValueError: a device that is not there.
    """
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    try:
        # Read back, since the device "meta" takes tensors but holds no numbers.
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`--device` is {device!r}, which cannot be used here; leave it out, or give cpu.") from error
    return ImagenCascadePipeline.from_pretrained(checkpoint).to(device)


def set_schedulers(pipe: "ImagenCascadePipeline", wanted: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Give stages other schedulers, made from the configuration of the ones they have.

    Args:
        pipe: the cascade.
        wanted: class name and options by stage.

    Raises:
        ValueError: a name that is no Diffusers scheduler, an option that it does not have or take, a missing package,
            or a stage that the cascade does not have.
    """
    for stage, (name, options) in wanted.items():
        if stage not in pipe.stage_names:
            raise ValueError(
                f"`--scheduler` names the stage {stage!r}; this cascade has {', '.join(pipe.stage_names)}."
            )
        component = "scheduler" if stage == "base" else stage.replace("sr_", "sr_scheduler_")
        setattr(pipe, component, make_scheduler(name, options, getattr(pipe, component)))


def load_adapters(pipe: "ImagenCascadePipeline", adapters: list[str]) -> None:
    """Attach LoRA adapters, all at full strength.

    Args:
        pipe: the cascade.
        adapters: where they are, each perhaps after `stage=`.

    Raises:
        ValueError: a stage that the cascade does not have, or weights that fit none of its U-Nets.
        OSError: no adapter there.
    """
    from diffusers_imagen.pipelines.stage_settings import STAGES
    from diffusers_imagen.training.run_folder import LORA

    names = []
    for number, adapter in enumerate(adapters):
        stage, found, place = adapter.partition("=")
        if not found or stage not in STAGES:
            stage, place = "base", adapter
        if stage not in pipe.stage_names:
            raise ValueError(f"`--lora` names the stage {stage!r}; this cascade has {', '.join(pipe.stage_names)}.")
        folder = Path(place) / LORA
        names.append(f"lora_{number}")
        pipe.load_lora_weights(
            str(folder) if folder.is_dir() else place,
            adapter_name=names[-1],
            component="unet" if stage == "base" else stage.replace("sr_", "sr_unet_"),
        )
    if names:
        pipe.set_adapters(names)


def save_images(
    images: list["PIL.Image.Image"], output: Path, prompts: list[str], seeds: list[int], checkpoint: str
) -> list[Path]:
    """Save one picture, or a grid and each picture beside it, with what made it in the PNG's text.

    Returns:
        The files, the one that was asked for first.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    if len(images) == 1:
        save_png(images[0], output, {"prompt": prompts[0], "seed": str(seeds[0]), "checkpoint": checkpoint})
        return [output]
    from diffusers.utils import make_image_grid

    columns = next(c for c in range(round(len(images) ** 0.5 + 0.49), len(images) + 1) if len(images) % c == 0)
    grid = make_image_grid(images, rows=len(images) // columns, cols=columns)
    shared = {"prompt": "\n".join(prompts), "seed": " ".join(map(str, seeds)), "checkpoint": checkpoint}
    save_png(grid, output, shared)
    paths = [output]
    for number, (image, prompt, seed) in enumerate(zip(images, prompts, seeds, strict=True)):
        paths.append(output.with_stem(f"{output.stem}_{number}"))
        save_png(image, paths[-1], {"prompt": prompt, "seed": str(seed), "checkpoint": checkpoint})
    return paths


def save_png(image: "PIL.Image.Image", path: Path, facts: dict[str, str]) -> None:
    """Write a PNG with text entries, under a temporary name first."""
    import diffusers
    import torch
    from PIL.PngImagePlugin import PngInfo

    from diffusers_imagen._version import __version__

    info = PngInfo()
    versions = f"diffusers-imagen {__version__}, diffusers {diffusers.__version__}, torch {torch.__version__}"
    for key, value in {**facts, "software": versions}.items():
        info.add_itxt(key, value)
    temporary = path.with_name(f".{path.name}.tmp")
    image.save(temporary, format="PNG", pnginfo=info)
    temporary.replace(path)
