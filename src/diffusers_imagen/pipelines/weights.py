# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Weights as they come from files: laid out in memory as fresh ones are, and named where damaged.

Called by the pipeline when it is made and when it cannot be loaded.
"""

from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

_ALIGNMENT = 64  # bytes: where PyTorch begins every tensor that it makes on a CPU


def align_weights(model: nn.Module) -> None:
    """Move weights that lie at odd addresses in memory, as those of a mapped file do.

    CPU kernels choose the order of their sums by address: without this, a loaded cascade draws pictures that differ
    in the last bits from those of the one that was saved.
    """
    for weight in chain(model.parameters(), model.buffers()):
        if weight.device.type == "cpu" and weight.data_ptr() % _ALIGNMENT:
            weight.data = weight.data.clone()


def unreadable(name: str, builtin: list[str], error: Exception) -> OSError:
    """Return the error that tells what is wrong with a checkpoint that could not be loaded.

    Args:
        name: a folder, or what is no folder and was looked for on the Hub.
        builtin: the names of the built-in cascades.
        error: what was raised.
    """
    folder = Path(name)
    if not folder.is_dir():
        return OSError(
            f"`pretrained_model_name_or_path` is {name!r}: there is no such folder, it is no built-in cascade (there is "
            f"{', '.join(builtin)}), and the Hub did not give it: {error}"
        )
    damaged = damaged_weights(folder)
    what = f"{', '.join(damaged)} cannot be read" if damaged else f"something is missing or damaged: {error}"
    return OSError(
        f"`pretrained_model_name_or_path` is {name!r}, where {what.rstrip('.')}; fetch or save the checkpoint again."
    )


def damaged_weights(folder: Path) -> list[str]:
    """Return the files of weights in a saved pipeline's folder that are cut off or are none."""
    damaged = []
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            safe_open(path, framework="pt")
        except SafetensorError:
            damaged.append(str(path.relative_to(folder)))
    return damaged
