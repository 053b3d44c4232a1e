# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen export-remote-code`: a copy of a saved cascade that draws where only Diffusers is installed."""

from pathlib import Path
from typing import Annotated

import typer

from diffusers_imagen.cli.card import FOLDER_HELP


def export_remote_code(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write, which must not exist yet.")],
) -> None:
    """Copy a saved cascade together with the code that it needs, for people without this package."""
    from diffusers_imagen.cli.text_folder import text_folder
    from diffusers_imagen.hub.remote_code import export_cascade

    code = export_cascade(text_folder(str(folder)), output)
    lines = len(code.read_text(encoding="utf-8").splitlines())
    print(f"{output}: a copy of {folder} with its code, {code.name} ({lines} lines)")
    print("Where the package is not installed, it is loaded with:")
    print(f'DiffusionPipeline.from_pretrained("{output}", custom_pipeline="pipeline", trust_remote_code=True)')
