# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen push`: a saved cascade and its model card to the Hub, checked before anything is sent."""

from pathlib import Path
from typing import Annotated

import typer

from diffusers_imagen.cli.card import FACTS_HELP


def push(
    folder: Annotated[Path, typer.Argument(help="A folder that `save_pretrained` wrote.")],
    repo: Annotated[str, typer.Argument(help="The Hub repository, ACCOUNT/NAME; made if it does not exist.")],
    facts: Annotated[Path | None, typer.Option(help=FACTS_HELP)] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit's message.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and list what would be sent.")] = False,
) -> None:
    """Upload a saved cascade in one commit; a model card that somebody edited, in the folder or there, is kept."""
    from diffusers_imagen.hub.card import CARD
    from diffusers_imagen.hub.facts import read_facts
    from diffusers_imagen.hub.publish import PushOptions, plan_upload
    from diffusers_imagen.hub.publish import push as send
    from diffusers_imagen.models.stored_model import check_noted_weights

    upload = plan_upload(folder, repo, None if facts is None else read_facts(facts))
    for name in upload.cascade.components:
        if weights := sorted((folder / name).glob("*.safetensors")):
            check_noted_weights(weights)
    if dry_run:
        print("\n".join([*upload.files, CARD]))
        return
    print(f"{len(upload.files) + 1} files, {upload.num_bytes / 1e6:.1f} MB to {repo}")
    print(send(upload, PushOptions(private=private or None, commit_message=message, create_pr=create_pr)))
