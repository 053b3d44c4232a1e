# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Describe what only a fine-tuning has: an adapter in place of all weights, and pictures that keep what was known.

Parts of `TrainConfig`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Say which low-rank changes are trained while the U-Net's own weights stay (arXiv:2106.09685)."""

    rank: int = 8
    """Of the matrix that is added to each layer's."""
    alpha: float | None = None
    """The added matrix counts alpha / rank times; None for the rank itself, a factor of 1."""
    dropout: float = 0.0
    """Share in [0, 1) of an adapter's inputs that are set to 0 in training."""
    layers: Literal["attention", "all"] = "attention"
    """"attention" adapts the projections of attention, "all" every linear layer and convolution but the first, the
    last and those that halve the picture."""
    target_modules: tuple[str, ...] = ()
    """Names of layers, or ends of them after a dot, in place of what `layers` says."""

    def __post_init__(self) -> None:
        """Refuse values outside what is said above."""
        if self.rank < 1:
            raise ValueError(f"`lora.rank` is {self.rank!r}; give at least 1, such as 8.")
        if self.alpha is not None and not self.alpha > 0:
            raise ValueError(f"`lora.alpha` is {self.alpha!r}; give a number above 0, or null for the rank.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`lora.dropout` is {self.dropout!r}; give a share in [0, 1).")
        if self.layers not in ("attention", "all"):
            raise ValueError(f"`lora.layers` is {self.layers!r}; choose attention or all.")


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Say which pictures of the same kind keep a fine-tuning from forgetting it (DreamBooth, arXiv:2208.12242).

    Each forward pass has some of them beside the run's own pictures.
    """

    folder: str
    """Folder of these pictures, captioned as `data.folder` is, or by `prompts`."""
    prompts: tuple[str, ...] = ()
    """What pictures are drawn of, in turn, and the captions of those that have none: "a cat" where the run's own are "a
    sks cat", or many different ones to keep everything."""
    num_images: int = 0
    """Pictures that shall be drawn, before the training, as far as they are not there; 0 for those of the folder as
    they are."""
    checkpoint: str | None = None
    """Cascade that draws them; None for `model.pretrained`, if that is one."""
    weight: float = 1.0
    """Of their loss, added to that of the run's own pictures."""
    batch_size: int | None = None
    """Of them in a forward pass; None for as many as the run's own."""

    def __post_init__(self) -> None:
        """Refuse values outside what is said above."""
        if self.num_images < 0:
            raise ValueError(f"`prior.num_images` is {self.num_images!r}; give 0 or more.")
        if self.num_images and not self.prompts:
            raise ValueError(f"`prior.prompts` is empty, but {self.num_images} pictures shall be drawn; give some.")
        if not self.weight > 0:
            raise ValueError(f"`prior.weight` is {self.weight!r}; give a number above 0, or leave `prior` out.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"`prior.batch_size` is {self.batch_size!r}; give at least 1, or null.")
