# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where a LoRA adapter's file is, and what is wrong with it, told before anything is attached.

Called by the U-Nets' `load_lora_adapter` and by the pipeline's `load_lora_weights`.
"""

import os
from pathlib import Path

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors import SafetensorError, safe_open


def adapter_names_in(
    place: str | os.PathLike[str], weight_name: str | None = None, subfolder: str | None = None
) -> list[str]:
    """Return the names of the weights that a local file holds; none for what only the Hub has.

    Args:
        place: a file, a folder or a Hub repository.
        weight_name: of the file in a folder or a repository, `None` for Diffusers' default.
        subfolder: of a folder.

    Raises:
        ValueError: a name that is not a safetensors file's, as pickles may run code.
        OSError: a path to nowhere, or a file that cannot be read.
    """
    path = Path(place)
    for name in (weight_name, path.name if path.is_file() else None):
        if name is not None and not name.endswith(".safetensors"):
            raise ValueError(
                f"{name!r} is no .safetensors file, and pickles may run code; give one saved as safetensors."
            )
    text = os.fspath(place)
    if not path.exists() and (path.is_absolute() or text.startswith(".") or text.count("/") > 1):
        raise OSError(f"{text!r} does not exist; give the folder or the file of an adapter, or a Hub repository.")
    file = path if path.is_file() else path / (subfolder or "") / (weight_name or LORA_WEIGHT_NAME_SAFE)
    if not file.is_file():
        return []
    try:
        with safe_open(file, framework="pt") as stored:
            return list(stored.keys())
    except SafetensorError as error:
        raise OSError(f"{str(file)!r} cannot be read as safetensors ({error}); fetch or save it again.") from error
