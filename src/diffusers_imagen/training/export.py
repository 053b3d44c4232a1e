# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write a model for `from_pretrained` over an earlier one, without a moment at which neither is there.

Called by the training loop at every checkpoint.
"""

import shutil
from pathlib import Path

from diffusers import ModelMixin

from diffusers_imagen.models.stored_model import forget_weights


def export_model(model: ModelMixin, folder: Path) -> None:
    """Save a model, replacing an earlier one file by file.

    Args:
        model: What to save with its `save_pretrained`.
        folder: Where; its parent must exist.
    """
    temporary = folder.with_name(f".{folder.name}-unfinished")
    if temporary.exists():
        shutil.rmtree(temporary)
    model.save_pretrained(temporary)
    folder.mkdir(exist_ok=True)
    names = {path.name for path in temporary.iterdir()}
    if (folder / "config.json").is_file():
        # A run that is killed between two files shall leave a model that loads: its configuration vouches for no
        # weights until all are there.
        forget_weights(folder)
    for name in sorted(names, key=lambda name: (name == "config.json", name)):
        (temporary / name).replace(folder / name)
    temporary.rmdir()
