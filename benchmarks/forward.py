# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""One forward pass of each side's U-Net: base at batch 1 and 4, first enlargement at batch 1."""

import gc

from candidates import candidates
from results import Row
from scale import Scale
from timing import interleave


def measure(scale: Scale) -> list[Row]:
    """Time every side in every variant, in turns."""
    work = (
        ("base_b1", f"base {scale.base} px forward, batch 1", "base", 1),
        ("base_b4", f"base {scale.base} px forward, batch 4", "base", 4),
        ("sr_b1", f"SR {scale.base} -> {scale.enlarged} px forward, batch 1", "sr", 1),
    )
    return [_row(key, title, stage, batch, scale) for key, title, stage, batch in work]


def _row(key: str, title: str, stage: str, batch: int, scale: Scale) -> Row:
    ready = {one.name: one for one in candidates(stage, scale, batch)}
    seconds = interleave(ready, scale.forward)
    measurements = [one.measurement(seconds[name]) for name, one in ready.items()]
    ready.clear()
    gc.collect()
    return Row(key, title, "s", True, measurements, samples=batch)
