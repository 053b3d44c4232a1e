# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How a cascade is loaded, saved and kept in memory: all that `ImagenCascadePipeline` does besides drawing."""

import os
import tempfile
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError
from torch import nn

from diffusers_imagen.pipelines.adapters import saved_without_adapters
from diffusers_imagen.pipelines.disk_offload import DiskOffload
from diffusers_imagen.pipelines.loading import checkpoint_place, unreadable
from diffusers_imagen.pipelines.stage_settings import saved_settings
from diffusers_imagen.pipelines.weights import align_weights


class StoredPipeline(DiffusionPipeline):
    """Load from folders, built-in cascades and the Hub; save; hold weights in memory no longer than they are needed."""

    _disk_offload: DiskOffload | None = None
    _temporary_folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load a cascade from a folder, by the name of a built-in one, or from the Hub, looked for in this order.

        Args:
            pretrained_model_name_or_path: a folder, "imagen-emoji", or a Hub repository.
            **kwargs: as `DiffusionPipeline.from_pretrained` takes them.

        Raises:
            OSError: no checkpoint there, or a damaged one.
        """
        place = checkpoint_place(pretrained_model_name_or_path, cls.config_name)
        try:
            return super().from_pretrained(place, **kwargs)
        except (OSError, SafetensorError, JSONDecodeError, TypeError, AttributeError, RuntimeError) as error:
            raise unreadable(place, error) from error

    @classmethod
    def from_deepfloyd_if(
        cls,
        stage_1: Any,
        stage_2: Any = None,
        stage_3: Any = None,
        mask_padding: bool = False,
        dtype: Any = None,
        variant: str | None = None,
        local_files_only: bool = False,
    ) -> Any:
        """Make one cascade of DeepFloyd IF's pipelines; it draws what they draw, from the same generator.

        The U-Nets keep their weights, which a loaded pipeline shares with the cascade, without a copy. The text encoder
        is loaded once. Steps, guidance, thresholding and noise level are those that IF's pipelines have by default;
        any scheduler can take the place of theirs.

        Args:
            stage_1: an `IFPipeline`, or the folder or Hub repository of one.
            stage_2: an `IFSuperResolutionPipeline`, likewise, or `None`.
            stage_3: another one, or `None`.
            mask_padding: whether the U-Nets shall not see the padding of texts. IF's saw it in training, so its
                pictures change.
            dtype: of the weights, for those that are not loaded, as `DiffusionPipeline.from_pretrained` takes it.
            variant: of the files, likewise, such as "fp16".
            local_files_only: whether to leave the Hub alone.

        Raises:
            ValueError: something else than IF's pipelines.
        """
        # Imported here, as below: IF's pipelines take a third of a second, and few need them.
        from diffusers_imagen.pipelines.deepfloyd_cascade import cascade_parts

        stages = [stage_1, *(stage for stage in (stage_2, stage_3) if stage is not None)]
        options = {"dtype": dtype, "variant": variant, "local_files_only": local_files_only}
        given = {name: value for name, value in options.items() if value is not None}
        return cls(**cascade_parts(stages, mask_padding, given))

    def save_as_deepfloyd_if(self, save_directory: str | os.PathLike[str], max_shard_size: str | None = None) -> None:
        """Save a cascade of DeepFloyd IF's U-Nets as the pipelines of Diffusers that it could be made of.

        The folder gets `stage_1` for `IFPipeline.from_pretrained`, and `stage_2` and `stage_3`, where there are such,
        for `IFSuperResolutionPipeline.from_pretrained`; the text encoder is in `stage_1` only. Weights are the same to
        the bit. Schedulers that IF's pipelines cannot use become the DDPM that IF was trained with.

        Args:
            save_directory: a folder that does not exist yet, or an empty one.
            max_shard_size: of the files of weights, as `save_pretrained` takes it.

        Raises:
            ValueError: a folder that holds something, or U-Nets of another family.
        """
        from diffusers_imagen.pipelines.deepfloyd_cascade import save_pipelines

        save_pipelines(self, saved_settings(self.config.stages), Path(save_directory), max_shard_size)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save the cascade; LoRA adapters are left out with a warning, as they are files of their own.

        Args:
            save_directory: a folder, made if it does not exist.
            **kwargs: as `DiffusionPipeline.save_pretrained` takes them.
        """
        if (Path(save_directory) / self.config_name).exists():
            # What is overwritten may be what the weights are mapped from.
            for model in self._models.values():
                align_weights(model)
        with saved_without_adapters({name: model for name, model in self._models.items() if "unet" in name}):
            super().save_pretrained(save_directory, **kwargs)

    def enable_model_disk_offload(
        self, offload_folder: str | os.PathLike[str] | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep each model's weights on disk and bring them into memory only while it runs, on a CPU or an accelerator.

        The peak is then that of the largest model alone, not of all together. Weights that a file of the checkpoint
        holds as they are are read from there; others (converted, merged, made anew) are written to `offload_folder`
        now. The files must stay, and weights that are changed later are not kept: call this last.
        `remove_all_hooks()` undoes it.

        Args:
            offload_folder: for weights that are in no file; `None` for a temporary folder that goes with the pipeline.
            device: where models run; `None` for where the pipeline is.

        Raises:
            ValueError: a model that is offloaded in another way.
        """
        device = torch.device(self._execution_device if device is None else device)
        self.remove_all_hooks()
        if offload_folder is None:
            self._temporary_folder = tempfile.TemporaryDirectory(prefix="diffusers-imagen-")
            offload_folder = self._temporary_folder.name
        self._disk_offload = DiskOffload(self._models, Path(offload_folder), device)

    def maybe_free_model_hooks(self) -> None:
        """Take models out of memory after a call, as far as offloading is on."""
        super().maybe_free_model_hooks()
        if self._disk_offload is not None:
            self._disk_offload.release()

    @property
    def components(self) -> dict[str, Any]:
        """All that another `ImagenCascadePipeline(**pipe.components)` needs: the models and the saved settings."""
        settings = {name: self.config[name] for name in ("stages", "text") if self.config[name] is not None}
        return super().components | settings

    @property
    def _models(self) -> dict[str, nn.Module]:
        """The models by component name, in the order in which they run."""
        names = ("text_encoder", "unet", "sr_unet_1", "sr_unet_2")
        return {name: model for name in names if (model := getattr(self, name)) is not None}

    def _align(self, model: nn.Module) -> None:
        """Lay out the weights of a model that is about to run; before that they stay in their file."""
        if self._disk_offload is None and self._execution_device.type == "cpu":
            align_weights(model)
