# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`UNetAutoGuidance`: a guider that moves pictures away from those of a second, worse U-Net.

Diffusers' own `AutoGuidance` makes the worse network by skipping blocks of the first. Called by users.
"""

import os
from pathlib import Path
from typing import Any

from diffusers import AutoModel
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance

# Diffusers finds the loading methods of a component by this name in the component's own module.
from diffusers.guiders.guider_utils import BaseGuidance as BaseGuidance

UNET_FOLDER = "unet"


class UNetAutoGuidance(ClassifierFreeGuidance):
    """Guide a U-Net with a worse version of itself: smaller, or trained less (arXiv:2406.02507, equation 3).

    The guided picture is worse + guidance_scale * (good - worse), both drawn with the prompt; the negative prompt is
    not read. Saved with its U-Net.

    Args:
        unet: the worse U-Net, of the same kind of stage and for the same text encoder; on the same device.
        guidance_scale: 1 for no guidance.
        guidance_rescale: in [0, 1], how far the contrast is brought back (arXiv:2305.08891).
        use_original_formulation: whether to add `guidance_scale` times the difference to the good one instead, where 0
            is for no guidance.
        start: fraction of the steps from which it guides.
        stop: fraction of the steps before which it guides.
        enabled: whether it guides at all.
    """

    ignore_for_config = ["unet"]  # noqa: RUF012 (the host reads class attributes)

    @register_to_config
    def __init__(
        self,
        unet: Any = None,
        guidance_scale: float = 2.0,
        guidance_rescale: float = 0.0,
        use_original_formulation: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        # By name, since Diffusers takes settings that are given by place for defaults, and drops them from copies.
        super().__init__(
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            use_original_formulation=use_original_formulation,
            start=start,
            stop=stop,
            enabled=enabled,
        )
        self.unet = unet

    def new(self, **kwargs: Any) -> "UNetAutoGuidance":
        """Return a copy, with the same U-Net unless another is given.

        Args:
            **kwargs: arguments of the constructor to change.
        """
        unet = kwargs.pop("unet", self.unet)
        copied = super().new(**kwargs)
        copied.unet = unet
        return copied

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save the settings, and the U-Net in a folder of its own within.

        Args:
            save_directory: a folder, made if it does not exist.
            **kwargs: as `BaseGuidance.save_pretrained` takes them.

        Raises:
            ValueError: no U-Net.
        """
        if self.unet is None:
            raise ValueError("`unet` is None, and without it there is nothing to load again; give the worse U-Net.")
        super().save_pretrained(save_directory, **kwargs)
        self.unet.save_pretrained(Path(save_directory) / UNET_FOLDER)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        subfolder: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load the settings and the U-Net.

        Args:
            pretrained_model_name_or_path: a folder or a Hub repository.
            subfolder: where in it.
            **kwargs: as `BaseGuidance.from_pretrained` takes them; `unet` in place of the saved one.
        """
        unet = kwargs.pop("unet", None)
        if unet is None:
            place = UNET_FOLDER if subfolder is None else f"{subfolder}/{UNET_FOLDER}"
            # As a string, since AutoModel takes no path.
            unet = AutoModel.from_pretrained(os.fspath(pretrained_model_name_or_path or ""), subfolder=place)
        loaded = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).unet = unet
        return loaded
