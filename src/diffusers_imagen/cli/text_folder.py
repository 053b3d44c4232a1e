# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where a text encoder or a trained cascade is: in a folder, or built in. Used by the verbs that train and assemble."""

from pathlib import Path

from diffusers_imagen.builtin.library import builtin_names, builtin_path


def text_folder(name: str) -> Path:
    """Give the folder, of a text encoder or a whole cascade, that a name means; a folder wins over a built-in name."""
    folder = Path(name)
    return builtin_path(name) if not folder.is_dir() and name in builtin_names() else folder
