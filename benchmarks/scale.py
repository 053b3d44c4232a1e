# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How large everything is: "full" for the figures that count, "quick" to see that everything runs."""

from dataclasses import dataclass

from timing import Rounds

TEXT_TOKENS = 77
TEXT_WIDTH = 768


@dataclass(frozen=True)
class Scale:
    """Sizes of the work; the U-Nets' own are in `ours.py` and `peer_*.py` under the same name.

    Args:
        name: "full" or "quick".
        base: pixels of the base stage.
        enlarged: pixels after the first enlargement, four times the base.
        large: pixels of the stage that is measured alone, four times `enlarged`.
        steps: of each stage of the cascade.
        training_pixels: of the base stage in training.
        training_batch: samples of a training step.
        forward: rounds of single forward passes.
        whole: rounds of training steps and of whole cascades.
        processes: rounds of fresh processes.
        large_passes: passes of the large stage in one process: ours, imagen-pytorch's, IF's.
        growth: rounds of the growth curves.
        growth_points: for each curve the values of what grows.
        every_variant: whether what has processes of its own runs in all variants, not in the first alone.
    """

    name: str
    base: int
    enlarged: int
    large: int
    steps: int
    training_pixels: int
    training_batch: int
    forward: Rounds
    whole: Rounds
    processes: int
    large_passes: dict[str, int]
    growth: Rounds
    growth_points: dict[str, tuple[int, ...]]
    every_variant: bool

    def pixels(self, stage: str) -> int:
        """Return a stage's pixels: "base", "sr" or "large"."""
        return {"base": self.base, "sr": self.enlarged, "large": self.large}[stage]


SCALES = {
    "full": Scale(
        name="full",
        base=64,
        enlarged=256,
        large=1024,
        steps=4,
        training_pixels=32,
        training_batch=16,
        forward=Rounds(least=7, most=15, seconds=50),
        whole=Rounds(least=6, most=11, seconds=100, warmup=1),
        processes=7,
        large_passes={"paper": 4, "fast": 6, "imagen-pytorch": 2, "IF": 1},
        growth=Rounds(least=7, most=15, seconds=60),
        growth_points={
            "pixels": (128, 192, 256, 384, 512),
            "batch": (1, 2, 4, 8),
            "steps": (1, 2, 4, 8, 16),
            "text": (16, 32, 64, 128, 256),
        },
        every_variant=True,
    ),
    "quick": Scale(
        name="quick",
        base=32,
        enlarged=128,
        large=256,
        steps=2,
        training_pixels=32,
        training_batch=2,
        forward=Rounds(least=3, most=3, seconds=1, warmup=1),
        whole=Rounds(least=2, most=2, seconds=1, warmup=1),
        processes=1,
        large_passes={"paper": 1, "fast": 1, "imagen-pytorch": 1, "IF": 1},
        growth=Rounds(least=2, most=2, seconds=1, warmup=1),
        growth_points={"pixels": (64, 128), "batch": (1, 2), "steps": (1, 2), "text": (16, 32)},
        every_variant=False,
    ),
}
