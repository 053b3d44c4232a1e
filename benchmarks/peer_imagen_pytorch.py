# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""imagen-pytorch 2.1.0: its import, which is not straightforward, and its U-Nets, scaled down.

Two things stand in the way of its import, and both are put aside here and nowhere else:

- it requires torchvision, of which sampling uses `ToPILImage` alone. While it is imported a stand-in is there, and
  goes again at once: transformers would take it for the real one.
- a default argument asks the Hub for the configuration of T5. It is given that configuration's width.
"""

import contextlib
import io
import sys
from types import ModuleType
from unittest import mock

import torch
import transformers
from inputs import Inputs
from PIL import Image
from scale import TEXT_TOKENS, TEXT_WIDTH
from torch import Tensor, nn
from transformers import T5Config


class ToPILImage:
    """What torchvision's transform of this name does to a float picture (3, H, W) in [0, 1]."""

    def __call__(self, picture: Tensor) -> Image.Image:
        """Return the picture as PIL has it."""
        return Image.fromarray(picture.mul(255).byte().permute(1, 2, 0).cpu().numpy())


def import_imagen_pytorch() -> ModuleType:
    """Import imagen-pytorch without torchvision and without a network."""
    if "imagen_pytorch" not in sys.modules:
        # transformers imports its classes when they are asked for, and looks for torchvision then: so ask before.
        _ = transformers.T5EncoderModel, transformers.T5Tokenizer
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
        import kornia  # noqa: F401

        torchvision, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
        transforms.ToPILImage = ToPILImage
        torchvision.transforms = transforms
        sys.modules |= {"torchvision": torchvision, "torchvision.transforms": transforms}
        try:
            with mock.patch.object(T5Config, "from_pretrained", return_value=T5Config(d_model=TEXT_WIDTH)):
                import imagen_pytorch  # noqa: F401
        finally:
            del sys.modules["torchvision"], sys.modules["torchvision.transforms"]
    return sys.modules["imagen_pytorch"]


_TEXT = {"text_embed_dim": TEXT_WIDTH, "max_text_len": TEXT_TOKENS}
# Its own classes for the paper's three U-Nets, whose widths and blocks are what is changed.
_UNETS = {
    "full": {
        "base": ("BaseUnet64", {"dim": 72, "cond_dim": 256}),
        "sr": ("SRUnet256", {"dim": 32, "num_resnet_blocks": (2, 4, 5, 5), "cond_dim": 256}),
        "large": ("SRUnet1024", {"dim": 24, "num_resnet_blocks": (2, 4, 6, 6), "cond_dim": 256}),
    },
    "quick": {
        "base": ("BaseUnet64", {"dim": 16, "num_resnet_blocks": 1, "cond_dim": 64}),
        "sr": ("SRUnet256", {"dim": 16, "num_resnet_blocks": 1, "cond_dim": 64}),
        "large": ("SRUnet1024", {"dim": 16, "num_resnet_blocks": 1, "cond_dim": 64}),
    },
}


class ImagenPytorchUNet(nn.Module):
    """imagen-pytorch's U-Net, called as all sides are."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the prediction, (B, C, H, W)."""
        low_res = {}
        if inputs.low_res is not None:
            low_res = {"lowres_cond_img": inputs.low_res, "lowres_noise_times": inputs.noise_level}
        return self.unet(
            inputs.x, inputs.timestep / 1000, text_embeds=inputs.text, text_mask=inputs.text_mask, **low_res
        )


def build(stage: str, scale: str) -> ImagenPytorchUNet:
    """Make a U-Net in float32."""
    name, arguments = _UNETS[scale][stage]
    unet_class = getattr(import_imagen_pytorch(), name)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints advice on GPUs
        unet = unet_class(lowres_cond=stage != "base", **_TEXT, **arguments)
    return ImagenPytorchUNet(unet)


def make_imagen(unets: list[nn.Module], sizes: list[int], steps: int = 1000) -> nn.Module:
    """Make the cascade of some U-Nets, which samples with `steps` steps in each stage."""
    imagen_pytorch = import_imagen_pytorch()
    with contextlib.redirect_stdout(io.StringIO()):
        return imagen_pytorch.Imagen(
            tuple(unets), image_sizes=tuple(sizes), timesteps=steps, text_embed_dim=TEXT_WIDTH
        )


def make_trainer(imagen: nn.Module) -> nn.Module:
    """Make its trainer in bf16 autocast, with clipping as the other loops have and the fused optimizer."""
    trainer = import_imagen_pytorch().ImagenTrainer
    return trainer(imagen, precision="bf16", use_ema=True, max_grad_norm=1.0, fused=True, verbose=False)


def sample(imagen: nn.Module, text: Tensor, guidance_scale: float) -> list[Image.Image]:
    """Draw one picture for each row of `text`, as PIL."""
    with torch.no_grad():
        return imagen.sample(text_embeds=text, cond_scale=guidance_scale, use_tqdm=False, return_pil_images=True)
