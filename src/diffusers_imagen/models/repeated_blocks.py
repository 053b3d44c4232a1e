# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The blocks of a U-Net that are compiled, or spread over processes, one at a time. Called by training."""

from torch import nn


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks that a U-Net's class names in Diffusers' `_repeated_blocks`; none where it names none."""
    names = getattr(model, "_repeated_blocks", None) or ()
    return [module for module in model.modules() if type(module).__name__ in names]
