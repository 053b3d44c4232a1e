# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen push`: a saved cascade and its model card to the Hub, checked before anything is sent."""

from pathlib import Path
from typing import Annotated

import typer

from diffusers_imagen.cli.card import FACTS_HELP, FOLDER_HELP


def push(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    repo: Annotated[str, typer.Argument(help="The Hub repository, ACCOUNT/NAME; made if it does not exist.")],
    facts: Annotated[Path | None, typer.Option(help=FACTS_HELP)] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit's message.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and list what would be sent.")] = False,
) -> None:
    """Upload a saved cascade in one commit; a model card that somebody edited, in the folder or there, is kept."""
    from diffusers.utils import logging

    from diffusers_imagen.cli.text_folder import text_folder
    from diffusers_imagen.hub.card import CARD
    from diffusers_imagen.hub.facts import read_facts
    from diffusers_imagen.hub.publish import PushOptions, plan_upload
    from diffusers_imagen.hub.publish import push as send
    from diffusers_imagen.hub.saved_cascade import STAGES
    from diffusers_imagen.models.stored_model import check_noted_weights
    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

    folder = text_folder(str(folder))
    upload = plan_upload(folder, repo, None if facts is None else read_facts(facts))
    for name in upload.cascade.components:
        if weights := sorted((folder / name).glob("*.safetensors")):
            check_noted_weights(weights)
    # What has no weights is loaded: its files are small, and not even Diffusers can tell otherwise if it will do.
    models = ("text_encoder", "safety_checker", "watermarker", *(unet for unet, _ in STAGES.values()))
    logging.disable_progress_bar()
    ImagenCascadePipeline.from_pretrained(folder, **dict.fromkeys(models))
    if dry_run:
        print("\n".join([*upload.files, CARD]))
        return
    print(f"{len(upload.files) + 1} files, {upload.num_bytes / 1e6:.1f} MB to {repo}")
    print(send(upload, PushOptions(private=private or None, commit_message=message, create_pr=create_pr)))
