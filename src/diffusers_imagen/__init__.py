# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Imagen for Hugging Face Diffusers: cascaded text-to-image diffusion in pixel space.

Importing this package registers its classes with Diffusers' loaders and does nothing else: the public names are
imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from diffusers_imagen._diffusers_plugin import register
from diffusers_imagen._version import __version__

if TYPE_CHECKING:
    from diffusers_imagen.builtin.library import builtin_path
    from diffusers_imagen.guiders.unet_auto_guidance import UNetAutoGuidance
    from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
    from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
    from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
    from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel
    from diffusers_imagen.pipelines.modular_blocks import (
        ImagenPicturesBlock,
        ImagenStageBlock,
        ImagenTextBlock,
        cascade_blocks,
        modular_cascade,
    )
    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
    from diffusers_imagen.pipelines.pipeline_output import ImagenCascadeOutput

__all__ = [
    "DeepFloydUNet2DConditionModel",
    "EfficientUNet2DConditionModel",
    "ImagenCascadeOutput",
    "ImagenCascadePipeline",
    "ImagenPicturesBlock",
    "ImagenPytorchUNet2DConditionModel",
    "ImagenStageBlock",
    "ImagenTextBlock",
    "ImagenUNet2DConditionModel",
    "UNetAutoGuidance",
    "__version__",
    "builtin_path",
    "cascade_blocks",
    "modular_cascade",
]

_SOURCES = {
    "DeepFloydUNet2DConditionModel": "diffusers_imagen.models.unet_deepfloyd",
    "EfficientUNet2DConditionModel": "diffusers_imagen.models.unet_efficient",
    "ImagenCascadeOutput": "diffusers_imagen.pipelines.pipeline_output",
    "ImagenCascadePipeline": "diffusers_imagen.pipelines.pipeline_imagen_cascade",
    "ImagenPicturesBlock": "diffusers_imagen.pipelines.modular_blocks",
    "ImagenPytorchUNet2DConditionModel": "diffusers_imagen.models.unet_imagen_pytorch",
    "ImagenStageBlock": "diffusers_imagen.pipelines.modular_blocks",
    "ImagenTextBlock": "diffusers_imagen.pipelines.modular_blocks",
    "ImagenUNet2DConditionModel": "diffusers_imagen.models.unet_imagen",
    "UNetAutoGuidance": "diffusers_imagen.guiders.unet_auto_guidance",
    "builtin_path": "diffusers_imagen.builtin.library",
    "cascade_blocks": "diffusers_imagen.pipelines.modular_blocks",
    "modular_cascade": "diffusers_imagen.pipelines.modular_blocks",
    # Diffusers looks for the base class of a component in the namespace of its library.
    "BaseGuidance": "diffusers.guiders.guider_utils",
    "DiffusionPipeline": "diffusers.pipelines.pipeline_utils",
    "ModelMixin": "diffusers.models.modeling_utils",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_SOURCES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})


register()
