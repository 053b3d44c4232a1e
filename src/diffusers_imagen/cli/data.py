# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen data`: prepare training data and say what is in it."""

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(name="data", help="Prepare training data.", no_args_is_help=True)


@data.callback()
def _verbs() -> None:
    """Prepare training data."""


@data.command()
def index(folder: Annotated[Path, typer.Argument(help="A folder of WebDataset tar shards.")]) -> None:
    """Index a folder of tar shards; `train` does it by itself where it was not done."""
    from diffusers_imagen.data.shard_index import INDEX_NAME, open_index

    shards, records = open_index(folder)
    print(f"{len(records)} pictures in {len(shards)} shards")
    unknown = int((records["height"] == 0).sum())
    if unknown:
        print(f"{unknown} of them do not look like pictures")
    for shard in shards:
        if shard.damage is not None:
            print(f"{shard.name} is damaged after {shard.samples} pictures: {shard.damage}")
    file = folder / INDEX_NAME
    if file.is_file():
        print(f"{file}: {file.stat().st_size} bytes")
