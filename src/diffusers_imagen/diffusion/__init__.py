# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Hold the mathematics of diffusion as pure functions on tensors.

Noise levels, prediction types, guidance, thresholding, noise augmentation, resizing and loss weights live here.
Networks, schedulers and loops do not; every other layer may call this one.
"""
