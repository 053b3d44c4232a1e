# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen card`: the model card of a saved cascade, before anybody else sees it."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

FOLDER_HELP = "A folder that `save_pretrained` wrote, or the name of a built-in cascade."
FACTS_HELP = (
    "A YAML file with what no saved file knows: license, licenses (by part), language, base_model, datasets, data, "
    "training, training_logs (by stage), evaluation, pictures, limits."
)


def card(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    facts: Annotated[Path | None, typer.Option(help=FACTS_HELP)] = None,
    repo: Annotated[str | None, typer.Option(help="The Hub repository that it will be pushed to.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write it here, such as FOLDER/README.md; printed if not given."),
    ] = None,
) -> None:
    """Print or write the model card that `diffusers-imagen push` would send; a file that somebody edited is kept."""
    from diffusers_imagen.cli.text_folder import text_folder
    from diffusers_imagen.hub.card import PICTURES, is_edited, model_card
    from diffusers_imagen.hub.facts import read_facts
    from diffusers_imagen.hub.saved_cascade import read_cascade

    known = read_facts(facts)
    text = model_card(read_cascade(text_folder(str(folder))), known, repo)
    if output is None:
        print(text, end="")
        return
    if output.is_dir():
        raise ValueError(f"`--output` is {str(output)!r}, a folder; give a file name in it, such as README.md.")
    if output.exists() and is_edited(output.read_text(encoding="utf-8")):
        raise ValueError(
            f"`--output` is {str(output)!r}, which was edited and is kept; remove it or give another name."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    if known.pictures is not None and known.pictures.resolve() != (output.parent / PICTURES).resolve():
        shutil.copyfile(known.pictures, output.parent / PICTURES)
    temporary = output.with_name(f".{output.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(output)
    print(output)
