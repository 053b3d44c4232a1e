# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How a cascade is loaded, saved and kept in memory: all that `ImagenCascadePipeline` does besides drawing."""

import inspect
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from diffusers_imagen.models.spared_memory import new_folder, untie_weights
from diffusers_imagen.pipelines.adapters import saved_without_adapters
from diffusers_imagen.pipelines.disk_offload import DiskOffload
from diffusers_imagen.pipelines.load_failures import load_failure
from diffusers_imagen.pipelines.loading import check_saved_schedulers, check_text_weights, checkpoint_place
from diffusers_imagen.pipelines.stage_settings import saved_settings
from diffusers_imagen.pipelines.weights import align_weights

if TYPE_CHECKING:
    from diffusers_imagen.hub.facts import CardFacts


def with_late_components(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have Diffusers' loaders take parameters for components although they have a default.

    What has one is a setting to them: `DiffusionPipeline.from_pretrained(folder, guider=...)` would drop what is given.
    Components that most cascades lack need no mention when a pipeline is made by hand, all the same.

    Args:
        names: keyword parameters of the constructor that is decorated.
    """

    def mark(constructor: Callable[..., None]) -> Callable[..., None]:
        shown: Any = constructor
        signature = inspect.signature(constructor)
        empty = inspect.Parameter.empty
        parameters = [
            one.replace(default=empty) if one.name in names else one for one in signature.parameters.values()
        ]
        shown.__signature__ = signature.replace(parameters=parameters)
        return constructor

    return mark


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
            OSError: no checkpoint there, or a damaged one, naming the file or the component.
        """
        place = checkpoint_place(pretrained_model_name_or_path, cls.config_name)
        try:
            return super().from_pretrained(place, **kwargs)
        except Exception as error:
            failure = load_failure(place, cls.config_name, error, kwargs)
            if failure is None:
                raise
            raise failure from error

    def register_modules(self, **kwargs: Any) -> None:
        """Take components as Diffusers does, unless the text encoder's file holds another model."""
        check_text_weights(kwargs.get("text_encoder"))
        super().register_modules(**kwargs)

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
            ValueError: something else than IF's pipelines, in another order, or with settings that a cascade has not;
                `dtype` or `variant` where all stages are loaded.
        """
        # Imported here, as below: IF's pipelines take a third of a second, and few need them.
        from diffusers_imagen.pipelines.deepfloyd_cascade import cascade_parts

        if stage_2 is None and stage_3 is not None:
            raise ValueError("`stage_3` is given, but `stage_2`, whose pictures it enlarges, is None; give both.")
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
            **kwargs: as `DiffusionPipeline.save_pretrained` takes them; with `push_to_hub=True` also `card`, as
                `push_to_hub` takes it.
        """
        pushed = kwargs.pop("push_to_hub", False)
        if pushed:
            _check_subfolder(kwargs.pop("subfolder", None))
        target = {name: kwargs.pop(name) for name in _PUSH_ARGUMENTS if name in kwargs}
        self._save(save_directory, **kwargs)
        if pushed:
            _push_folder(Path(save_directory), **{"repo_id": Path(save_directory).name} | target)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        subfolder: str | None = None,
        card: "CardFacts | None" = None,
    ) -> str:
        """Upload the cascade with its model card in one commit.

        Args:
            repo_id: "account/name", or the name alone.
            commit_message: `None` for one that names the pipeline.
            private: whether a new repository is private; `None` for what the account prefers.
            token: of an account that may write; `None` for the one that is logged in.
            create_pr: whether to open a pull request instead of committing to the main branch.
            safe_serialization: only `True`: pickles are not published.
            variant: put into the names of the files of weights, such as "fp16".
            max_shard_size: of a file of weights, such as "5GB".
            subfolder: only `None`: Diffusers loads no pipeline from a folder within a repository.
            card: what the model card says that no file knows: licences, data, training, evaluation, pictures. A card on
                the Hub that somebody has edited stays.

        Returns:
            The commit's address.

        Raises:
            ValueError: a name that is none, a subfolder, or facts that cannot be read, before anything is sent.
            OSError: from the Hub, which is then as before.
        """
        _check_subfolder(subfolder)
        if not safe_serialization:
            raise ValueError(
                "`safe_serialization` is False, but pickles may run code and are not published; leave it out."
            )
        with tempfile.TemporaryDirectory(prefix="diffusers-imagen-") as folder:
            self._save(folder, variant=variant, max_shard_size=max_shard_size)
            return _push_folder(Path(folder), repo_id, commit_message, private, token, create_pr, card)

    def _save(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        if (Path(save_directory) / self.config_name).exists():
            # What is overwritten may be what the weights are mapped from.
            for model in self._models.values():
                align_weights(model)
        check_saved_schedulers(super().components)
        # A component that was None when the pipeline was made, and is set since, is noted as None still.
        self.register_modules(**super().components)
        with saved_without_adapters({name: model for name, model in self._models.items() if "unet" in name}):
            super().save_pretrained(save_directory, **kwargs)

    def enable_group_offload(
        self,
        onload_device: torch.device,
        offload_device: torch.device = torch.device("cpu"),  # noqa: B008 (Diffusers' own default)
        offload_type: str = "block_level",
        num_blocks_per_group: int | None = None,
        non_blocking: bool = False,
        use_stream: bool = False,
        record_stream: bool = False,
        low_cpu_mem_usage: bool = False,
        offload_to_disk_path: str | os.PathLike[str] | None = None,
        exclude_modules: str | list[str] | None = None,
    ) -> None:
        """Keep the weights of all models elsewhere and bring them in group by group.

        Args:
            onload_device: as `DiffusionPipeline.enable_group_offload` takes it, like all that follow.
            offload_device: likewise.
            offload_type: likewise.
            num_blocks_per_group: likewise.
            non_blocking: likewise.
            use_stream: likewise.
            record_stream: likewise.
            low_cpu_mem_usage: likewise.
            offload_to_disk_path: likewise; each model gets a new folder in it.
            exclude_modules: likewise.
        """
        left_out = [exclude_modules] if isinstance(exclude_modules, str) else exclude_modules or []
        for name, model in super().components.items():
            if not isinstance(model, nn.Module):
                continue
            if name in left_out:
                model.to(onload_device)
                continue
            if offload_to_disk_path is not None:
                untie_weights(model)
            offload = getattr(model, "enable_group_offload", partial(apply_group_offloading, model))
            offload(
                onload_device=onload_device,
                offload_device=offload_device,
                offload_type=offload_type,
                num_blocks_per_group=num_blocks_per_group,
                non_blocking=non_blocking,
                use_stream=use_stream,
                record_stream=record_stream,
                low_cpu_mem_usage=low_cpu_mem_usage,
                offload_to_disk_path=None if offload_to_disk_path is None else new_folder(offload_to_disk_path, name),
            )

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


def _check_subfolder(subfolder: str | None) -> None:
    if subfolder is not None:
        raise ValueError(
            f"`subfolder` is {subfolder!r}, but Diffusers loads no pipeline from a folder within a repository; leave it out, "
            "and give each cascade a repository of its own."
        )


_PUSH_ARGUMENTS = ("repo_id", "commit_message", "private", "token", "create_pr", "card")


def _push_folder(
    folder: Path,
    repo_id: str,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    create_pr: bool = False,
    card: "CardFacts | None" = None,
) -> str:
    # Only publishing needs this part of the package.
    from diffusers_imagen.hub.publish import PushOptions, plan_upload, push

    options = PushOptions(private=private, token=token, commit_message=commit_message, create_pr=create_pr)
    return push(plan_upload(folder, repo_id, card), options)
