# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The blocks of a U-Net that are compiled, or spread over processes, one at a time.

`RepeatedBlocksModel` is a base class of U-Nets; the list is for training.
"""

import inspect
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.compiler import config as compiler_config

from diffusers_imagen.models.packing import refuse_packed


class RepeatedBlocksModel(ModelMixin):
    """A model whose repeated blocks may be compiled for as many shapes as PyTorch allows."""

    def compile_repeated_blocks(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks one by one, those of one shape together.

        PyTorch keeps eight variants of a function (`torch._dynamo.config.recompile_limit`), which the blocks of all U-Nets
        share: fewer than they have shapes. Here they may have as many as it keeps at all
        (`accumulated_recompile_limit`). PyTorch before 2.13 takes no such number; raise the limit itself there.

        Args:
            *args: as `torch.compile` takes them.
            **kwargs: likewise; `recompile_limit` is the number of variants.

        Raises:
            ValueError: a model whose weights are packed, or one without such blocks.
        """
        refuse_packed(self)
        if "recompile_limit" in inspect.signature(torch.compile).parameters:
            kwargs = {"recompile_limit": compiler_config.accumulated_recompile_limit} | kwargs
        super().compile_repeated_blocks(*args, **kwargs)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks that a U-Net's class names in Diffusers' `_repeated_blocks`; none where it names none."""
    names = getattr(model, "_repeated_blocks", None) or ()
    return [module for module in model.modules() if type(module).__name__ in names]
