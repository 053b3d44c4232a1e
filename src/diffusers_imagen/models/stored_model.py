# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""U-Nets that know their own files of weights again: one that was cut off or exchanged is refused by its name.

Saving notes a fingerprint of every file of weights in the `config.json` beside it, which Diffusers fetches with the
weights on every way of loading. A configuration without the note is not checked. Base class of the U-Nets.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusers_imagen.models.spared_memory import SparingModel

NOTE = "_weights"
BLOCK_BYTES = 1 << 20
MOST_BLOCKS = 64


class StoredModel(SparingModel):
    """A model of Diffusers that checks what it is loaded from."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        save_function: Callable[..., None] | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model and note which weights belong to its configuration.

        Args:
            save_directory: a folder, made if it does not exist.
            is_main_process: as `ModelMixin.save_pretrained` takes it, like all that follow, which a pipeline looks for
                in this signature.
            save_function: likewise.
            safe_serialization: likewise.
            variant: likewise.
            max_shard_size: likewise.
            push_to_hub: likewise; what it uploads has no note, unlike what the method `push_to_hub` does.
            use_flashpack: likewise.
            **kwargs: likewise, for the upload.
        """
        super().save_pretrained(
            os.fspath(save_directory),
            is_main_process,
            save_function,
            safe_serialization,
            variant,
            max_shard_size,
            push_to_hub,
            use_flashpack,
            **kwargs,
        )
        if is_main_process and Path(save_directory, "config.json").is_file():
            note_weights(Path(save_directory))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any) -> Any:
        """Load the model as Diffusers does, and name the file where one of its folder is at fault.

        Args:
            pretrained_model_name_or_path: a folder, or a Hub repository.
            **kwargs: as `ModelMixin.from_pretrained` takes them.

        Raises:
            OSError: files that are missing, damaged or another model's.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except Exception as error:
            folder = Path(os.fspath(pretrained_model_name_or_path or "."), kwargs.get("subfolder") or "")
            fault = cls._fault_in(folder) if folder.is_dir() else None
            if fault is None:
                raise
            raise OSError(f"{folder.name}/{fault}") from error

    @classmethod
    def _fault_in(cls, folder: Path) -> str | None:
        """Return the file of a folder that no model can be made of, and why, or `None`."""
        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(config, dict):
                return f"config.json is no configuration, but a {type(config).__name__}."
            with torch.device("meta"):
                cls.from_config(config)
        except OSError:
            return "config.json is missing."
        except Exception as error:
            return f"config.json describes no {cls.__name__}: {error}"
        weights = [*folder.glob("*.safetensors*"), *folder.glob("*.bin*")]
        return None if weights else "diffusion_pytorch_model.safetensors is missing."

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a configuration as Diffusers does, without the note: it is the folder's, not the model's."""
        return super().extract_init_dict({key: value for key, value in config_dict.items() if key != NOTE}, **kwargs)

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, resolved_model_file: list[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Load weights from files that are known, all of them, or not at all."""
        files = [Path(file) for file in resolved_model_file]
        cls._check_class(files[0].parent / "config.json")
        check_noted_weights(files)
        try:
            loaded = super()._load_pretrained_model(model, state_dict, resolved_model_file, *args, **kwargs)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
                # Not the weights' fault: memory that is full, or a quantization that cannot be.
                raise
            raise OSError(
                f"{_names(files)} holds the weights of another model than its config.json: {error}"
            ) from error
        missing = loaded[1]
        if missing and kwargs.get("low_cpu_mem_usage", True):
            # Diffusers would leave them without any values.
            raise OSError(
                f"{_names(files)} lacks {len(missing)} of the weights that its config.json tells of, such as "
                f"{min(missing)!r}: it is another model's, or part of one. To train the missing ones, load with "
                "`low_cpu_mem_usage=False`."
            )
        return loaded

    @classmethod
    def _check_class(cls, path: Path) -> None:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        saved = config.get("_class_name", cls.__name__)
        if saved not in {kind.__name__ for kind in cls.__mro__}:
            raise OSError(
                f"{path.parent.name}/{path.name} is that of a {saved}, but it is loaded as {cls.__name__}; load it as "
                "what it is, or correct the model_index.json that says so."
            )


def note_weights(folder: Path) -> None:
    """Write the fingerprints of a folder's files of weights into its `config.json`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[NOTE] = {file.name: fingerprint(file) for file in sorted(folder.glob("*.safetensors"))}
    _write_config(folder, config)


def forget_weights(folder: Path) -> None:
    """Remove the fingerprints from a folder's `config.json`, for weights that are written in another way."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.pop(NOTE, None) is not None:
        _write_config(folder, config)


def check_noted_weights(files: list[Path]) -> None:
    """Refuse files of weights that are not the ones that were saved with the `config.json` beside them.

    Args:
        files: of one model, in one folder; those that the configuration does not tell of are not checked.

    Raises:
        OSError: naming the file.
    """
    path = files[0].parent / "config.json"
    noted = json.loads(path.read_text(encoding="utf-8")).get(NOTE, {}) if path.is_file() else {}
    for file in files:
        if file.name in noted and fingerprint(file) != noted[file.name]:
            raise OSError(
                f"{_names([file])} is not the file that was saved with the config.json beside it: it was exchanged, "
                "changed or not fetched as a whole. Fetch or save it again; if it is meant to be there, remove "
                f'"{NOTE}" from the config.json.'
            )


def fingerprint(file: Path) -> str:
    """Return a hash of a file's size and content: all of it up to 64 MiB, or else 64 places of 1 MiB, ends included.

    The bound keeps loading quick. It finds files that are cut off or are another's, not a single changed weight
    of a large file.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - BLOCK_BYTES)
    count = min(MOST_BLOCKS, -(-size // BLOCK_BYTES))
    with file.open("rb") as stream:
        for block in range(count):
            stream.seek(last * block // max(1, count - 1))
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.json"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def _names(files: list[Path]) -> str:
    return ", ".join(f"{file.parent.name}/{file.name}" for file in files)
