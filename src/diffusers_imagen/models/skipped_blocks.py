# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A U-Net that is made worse by leaving out some of its blocks, for guidance by layer skipping.

Diffusers' own hooks know transformer blocks only. Called by the pipelines.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from diffusers_imagen.models.blocks import ImagenBlock
from diffusers_imagen.models.stage_model import ImagenStageModel, Prediction
from diffusers_imagen.models.unet import ImagenUNet


class SkippedBlocksModel(ImagenStageModel):
    """Asks one of this package's U-Nets as if some of its blocks handed on what they get.

    Args:
        unet: it is left as it is between calls.
        blocks: as `skippable_blocks` returns them.
    """

    def __init__(self, unet: ImagenUNet, blocks: Sequence[nn.Module]) -> None:
        super().__init__(unet)
        self._blocks = blocks

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None = None,
        noise_level: Tensor | None = None,
    ) -> Prediction:
        """See `StageModel.predict`."""
        with ExitStack() as stack:
            for block in self._blocks:
                stack.callback(block.register_forward_hook(_hand_on).remove)
            return super().predict(x_t, log_snr, text, text_mask, low_res, noise_level)


def skippable_blocks(unet: ImagenUNet, name: str, indices: Sequence[int]) -> list[nn.Module]:
    """Return blocks of a U-Net that can be left out, since what leaves them is as wide as what enters.

    Args:
        unet: one of this package's.
        name: of a list of blocks within it, such as "mid_blocks" or "down_levels.0".
        indices: which of the list's.

    Raises:
        ValueError: a list that the U-Net does not have, or a block in it that does not exist or changes the width.
    """
    there = {path: stack for path, stack in unet.named_modules() if _is_stack(stack)}
    if name not in there:
        raise ValueError(
            f"`fqn` is {name!r}, but the U-Net's lists of blocks are {', '.join(there)}; name one of them."
        )
    stack = there[name]
    usable = [index for index, block in enumerate(stack.children()) if isinstance(block.resnet.skip, nn.Identity)]
    wrong = [index for index in indices if index not in usable]
    if wrong or not indices:
        can = f"of {name!r} {usable} can be skipped" if usable else f"none of {name!r} can be skipped"
        raise ValueError(
            f"`indices` is {list(indices)}, but {can}: the others change the width, or do not exist; choose others."
        )
    return [block for index, block in enumerate(stack.children()) if index in indices]


def _is_stack(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) > 0 and all(isinstance(m, ImagenBlock) for m in module)


def _hand_on(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    h: Tensor = args[0]
    return h
