# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen evaluate`: a cascade and a suite to scores, distances and a report."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusers_imagen.cli.generate import STAGE_VALUE_HELP, load_pipeline, parse_stage_values, set_schedulers
from diffusers_imagen.cli.scheduler_option import parse_schedulers

if TYPE_CHECKING:
    import PIL.Image

    from diffusers_imagen.evaluation.drawing import Sampler
    from diffusers_imagen.evaluation.suite import Suite
    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A folder, a built-in cascade's name, or a Hub repository.")],
    suite: Annotated[Path, typer.Option(help="The folder of a suite: suite.json, prompts.jsonl, judge/.")],
    out: Annotated[Path, typer.Option(help="Folder for pictures and report; pictures there already are kept.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What to compare with: the --out folder of an earlier evaluation, or a checkpoint to draw too."
        ),
    ] = None,
    num_inference_steps: Annotated[str | None, typer.Option(help=f"Sampling steps: {STAGE_VALUE_HELP}.")] = None,
    guidance: Annotated[str | None, typer.Option(help=f"Weight of the text: {STAGE_VALUE_HELP}.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Diffusers scheduler's class name, or stage=name pairs: base=DDIMScheduler.")
    ] = None,
    stop_stage: Annotated[str | None, typer.Option(help="The last stage to run: base, sr_1 or sr_2.")] = None,
    scenes: Annotated[int | None, typer.Option(min=1, help="Only the first scenes of each category.")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(help="Features for distances beside the judge's: clip:MODEL or dino:MODEL; may be repeated."),
    ] = None,
    agreement: Annotated[str | None, typer.Option(help="A CLIP model for agreement of picture and text.")] = None,
    allow_download: Annotated[
        bool, typer.Option(help="Fetch models of --features and --agreement that are not on this machine.")
    ] = False,
    training_data: Annotated[
        Path | None, typer.Option(help="Image folder that the model learned from, to look for copies.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; chosen by itself if not given.")] = None,
) -> None:
    """Draw a suite's prompts, let its judge look at them, and write a report; the same command again resumes it."""
    arguments = {
        "num_inference_steps": parse_stage_values("num-inference-steps", num_inference_steps, int),
        "guidance_scale": parse_stage_values("guidance", guidance, float),
        "stop_stage": stop_stage,
    }
    schedulers = parse_schedulers(scheduler)
    from diffusers_imagen.data.folder import read_entries
    from diffusers_imagen.evaluation.agreement import ClipAgreement
    from diffusers_imagen.evaluation.assessment import assess, check_pictures
    from diffusers_imagen.evaluation.drawing import claim_folder, draw_suite, missing_prompts
    from diffusers_imagen.evaluation.features import load_extractor
    from diffusers_imagen.evaluation.report import write_report
    from diffusers_imagen.evaluation.suite import read_suite

    # All that can be wrong is found out before the first picture is drawn.
    whole = read_suite(suite)
    asked = whole if scenes is None else whole.first_scenes(scenes)
    check_pictures(asked)
    if training_data is not None:
        read_entries(training_data)
        if not any(prompt.reference for prompt in asked.prompts):
            raise ValueError(
                "`--training-data` compares with real pictures, of which the suite has none; leave it out."
            )
    extractors = {name: load_extractor(name, allow_download) for name in features or []}
    scorer = None if agreement is None else ClipAgreement.load(agreement, allow_download)
    to_draw, others = plan(asked, whole.digest, checkpoint, baseline, out)
    settings = {
        folder: {"checkpoint": name, "weights": fingerprint(name), "suite": whole.digest, "scheduler": schedulers}
        | arguments
        for folder, name in to_draw.items()
    }
    pipes = {
        folder: _load(name, device, schedulers) for folder, name in to_draw.items() if missing_prompts(asked, folder)
    }
    for model in (*extractors.values(), scorer):
        if model is not None and pipes:
            model.to(pipes[min(pipes)].device)
    for folder, described in settings.items():
        claim_folder(folder, described)

    for folder, pipe in pipes.items():
        draw_suite(asked, sampler_of(pipe, arguments), folder, batch_size, _print_progress)
    found = assess(asked, out, others, extractors, scorer, training_data)
    report = write_report(asked, out, settings[out], found, others)
    print(report.read_text(encoding="utf-8").split("\n## Sheets")[0])
    print(report)


def plan(
    suite: "Suite", digest: str, checkpoint: str, baseline: str | None, out: Path
) -> tuple[dict[Path, str], dict[str, Path]]:
    """Decide what is drawn where, and what it is compared with.

    Args:
        suite: What is asked for.
        digest: That of the whole suite.
        checkpoint: The cascade to evaluate.
        baseline: The folder of an earlier evaluation, or another checkpoint, or None.
        out: Folder of this evaluation.

    Returns:
        The checkpoint to draw with by folder; and the folders of all pictures to compare with by name.

    Raises:
        ValueError: If the earlier evaluation is of another suite, or pictures to compare with are missing.
    """
    from diffusers_imagen.evaluation.drawing import drawn_with

    others = dict(suite.baselines)
    earlier = None if baseline is None else drawn_with(Path(baseline))
    if earlier is not None and earlier.get("suite") != digest:
        raise ValueError(f"`--baseline` is {baseline!r}, an evaluation on another suite; draw this one with it first.")
    if baseline is not None and earlier is not None:
        others["baseline"] = Path(baseline) / "pictures"
    for name, folder in others.items():
        for prompt in suite.prompts:
            if not (folder / f"{prompt.id}.png").is_file():
                raise ValueError(
                    f"the {name} in {str(folder)!r} has no picture {prompt.id}.png; draw all of them first."
                )
    to_draw = {out: checkpoint}
    if baseline is not None and earlier is None:
        to_draw[out / "baseline"] = baseline
        others["baseline"] = out / "baseline" / "pictures"
    return to_draw, others


def fingerprint(checkpoint: str) -> str | None:
    """Hash the files of a checkpoint that is on this machine, so that other weights are not taken for the same.

    Args:
        checkpoint: A folder, a built-in cascade's name, or a Hub repository.

    Returns:
        The hash; None for a Hub repository.
    """
    from diffusers_imagen.builtin.library import CONTENTS, builtin_names, builtin_path

    folder = Path(checkpoint)
    if not folder.is_dir():
        if checkpoint not in builtin_names():
            return None
        folder = builtin_path(checkpoint)
    digest = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    # That list of a built-in's files changes with its card.
    for path in sorted(path for path in files if path.name != CONTENTS):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def sampler_of(pipe: "ImagenCascadePipeline", arguments: dict[str, Any]) -> "Sampler":
    """Return the function that draws prompts from seeds with a cascade and the arguments of its call."""
    import torch

    pipe.set_progress_bar_config(disable=True)

    def sample(prompts: list[str], seeds: list[int]) -> list["PIL.Image.Image"]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images: list[PIL.Image.Image] = pipe(prompts, generator=generators, **arguments).images
        return images

    return sample


def _load(
    checkpoint: str, device: str | None, schedulers: "dict[str, tuple[str, dict[str, Any]]]"
) -> "ImagenCascadePipeline":
    pipe = load_pipeline(checkpoint, device)
    set_schedulers(pipe, schedulers)
    return pipe


def _print_progress(done: int, total: int) -> None:
    print(f"{done} of {total} pictures", file=sys.stderr, flush=True)
