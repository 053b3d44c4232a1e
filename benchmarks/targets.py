# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What the project has set itself to reach."""

import math

RATIOS: dict[str, dict[str, float]] = {
    "base_b1": {"IF": 5, "imagen-pytorch": 10},
    "base_b1_per_flop": {"IF": 2, "imagen-pytorch": 4},
    "sr_b1": {"IF": 18, "imagen-pytorch": 12},
    "large": {"IF": 300, "imagen-pytorch": 50},
    "cascade": {"IF": 20, "imagen-pytorch": 12},
    "cascade_best": {"IF": math.inf, "imagen-pytorch": math.inf},
    "training": {"IF": 3, "imagen-pytorch": 3},
    "memory_inference": {"IF": 2.5, "imagen-pytorch": 5},
    "memory_training": {"IF": 2, "imagen-pytorch": 3},
}
"""By row and peer: how many times faster, or smaller, we are at least; infinite where it is only to be shown."""

SHARE_AT_BATCH_4 = 0.60
"""Of the machine's bf16 convolution rate, the base's forward pass at batch 4, at least."""

IMPORT_ADDED = 0.2
"""Seconds that our import adds to Diffusers', at most."""

BUILTIN_READY = 3.0
"""Seconds until the built-in cascade is ready, at most."""

BUILTIN_PICTURE = 3.0
"""Seconds of its picture after warm-up, at most."""
