# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The blocks of a U-Net that are compiled, or spread over processes, one at a time.

`RepeatedBlocksModel` is a base class of U-Nets; the list is for training.
"""

import inspect
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from diffusers_imagen.models.packing import refuse_packed


class RepeatedBlocksModel(ModelMixin):
    """A model whose repeated blocks are compiled without getting into each other's way."""

    def compile_repeated_blocks(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks one by one, each on its own account.

        PyTorch allows eight variants (`torch._dynamo.config.recompile_limit`) of a function, which all blocks of all U-Nets
        share: less than the shapes of a cascade's. With PyTorch 2.13 every block has eight of its own; before, raise the
        limit, or leave `fullgraph=True` out.

        Args:
            *args: as `torch.compile` takes them.
            **kwargs: likewise; `isolate_recompiles=False` lets blocks share their variants again.

        Raises:
            ValueError: a model whose weights are packed, or one without such blocks.
        """
        refuse_packed(self)
        alone = (
            {"isolate_recompiles": True} if "isolate_recompiles" in inspect.signature(torch.compile).parameters else {}
        )
        super().compile_repeated_blocks(*args, **alone | kwargs)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks that a U-Net's class names in Diffusers' `_repeated_blocks`; none where it names none."""
    names = getattr(model, "_repeated_blocks", None) or ()
    return [module for module in model.modules() if type(module).__name__ in names]
