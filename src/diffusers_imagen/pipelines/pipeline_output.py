# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What the pipeline returns."""

from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from diffusers.utils import BaseOutput
from torch import Tensor

Pictures = list[PIL.Image.Image] | np.ndarray | Tensor


@dataclass
class ImagenCascadeOutput(BaseOutput):
    """Pictures of a cascade.

    Args:
        images: the last stage's pictures: a list of PIL images, an array (B, H, W, C) in [0, 1], or a tensor
            (B, C, H, W), in [0, 1] for `output_type="pt"`, in [-1, 1] for `"latent"`.
        stages: each stage's pictures by its name, in the same form.
    """

    images: Pictures
    stages: dict[str, Pictures] = field(default_factory=dict)
