# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Which file of a checkpoint is at fault when it could not be loaded, if any is. Called by the pipeline's `from_pretrained`.

What is the caller's mistake or the machine's (a device map, a quantization, memory) is not told here: it is raised as it is.
"""

import json
from collections.abc import Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from traceback import walk_tb
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from diffusers_imagen.builtin.library import builtin_names

_MODELS = ("text_encoder", "unet", "sr_unet_1", "sr_unet_2", "safety_checker", "watermarker")
# Arguments that decide how a model is loaded; what else goes wrong with one is its configuration's fault.
_OPTIONS = ("quantization_config", "device_map", "max_memory", "offload_folder", "low_cpu_mem_usage", "use_flashpack")
_FILE_ERRORS = (OSError, SafetensorError, JSONDecodeError, UnicodeDecodeError)
_CONFIG_ERRORS = (TypeError, ValueError, AttributeError, LookupError, AssertionError)


def load_failure(name: str, index_name: str, error: Exception, options: Mapping[str, Any]) -> OSError | None:
    """Return the error that tells what is wrong with a checkpoint, or `None` where its files are not at fault.

    Args:
        name: a folder, or what is no folder and was looked for on the Hub.
        index_name: the file that names the components.
        error: what was raised.
        options: the arguments of `from_pretrained`.
    """
    folder = Path(name) if Path(name).is_dir() else fetched_folder(name, options)
    if folder is None:
        return _not_there(name, error, options) if isinstance(error, OSError) else None
    component = failing_component(error)
    fault = _index_fault(folder, index_name, error) if component is None else None
    if component is not None:
        fault = _component_fault(folder, component, error, options)
    if fault is None:
        return None
    return OSError(
        f"{fault.rstrip('.')} (`pretrained_model_name_or_path` is {name!r}); fetch or save the checkpoint again."
    )


def failing_component(error: Exception) -> str | None:
    """Return the component that Diffusers was loading when an error was raised, or `None` for none."""
    names = [frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)]
    if "get_class_obj_and_candidates" in names:
        # No file of the component was read yet; the message tells what was looked for.
        return None
    frames = (frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "load_sub_model")
    return next((frame.f_locals.get("name") for frame in frames), None)


def fetched_folder(name: str, options: Mapping[str, Any]) -> Path | None:
    """Return where the Hub's cache holds a repository, if it was fetched as a whole."""
    try:
        return Path(
            snapshot_download(
                name,
                revision=options.get("revision"),
                cache_dir=options.get("cache_dir"),
                allow_patterns="*.safetensors",
                local_files_only=True,
            )
        )
    except (OSError, ValueError):
        # Never fetched, or the name of no repository: then there are no files here whose fault it could be.
        return None


def _not_there(name: str, error: Exception, options: Mapping[str, Any]) -> OSError:
    revision = f" at the revision {options['revision']!r}" if options.get("revision") else ""
    return OSError(
        f"`pretrained_model_name_or_path` is {name!r}{revision}: there is no such folder, it is no built-in cascade (there is "
        f"{', '.join(builtin_names())}), and the Hub did not give it: {error}"
    )


def _index_fault(folder: Path, index_name: str, error: Exception) -> str | None:
    wrong = _json_fault(folder / index_name) if (folder / index_name).is_file() else "is missing"
    if wrong is not None:
        return f"{index_name} {wrong}"
    if not isinstance(error, _FILE_ERRORS):
        return None
    named = any((folder / word).is_file() for word in str(error).split(maxsplit=1)[:1])
    return str(error) if named else f"something is missing or damaged: {error}"


def _component_fault(folder: Path, component: str, error: Exception, options: Mapping[str, Any]) -> str | None:
    damaged = [f"{component}/{name} {wrong}" for name, wrong in _damaged_files(folder / component)]
    if damaged:
        return ", ".join(damaged)
    if not _is_files_fault(component, error, options):
        return None
    if str(error).startswith(f"{component}/"):
        return str(error)
    if component in _MODELS:
        if not (folder / component / "config.json").is_file():
            return f"{component}/config.json is missing"
        if not any((folder / component).glob("*.safetensors*")):
            return f"{component} holds no safetensors file"
    library, class_name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))[component]
    return f"{component} cannot be loaded as {library}.{class_name}: {error}"


def _is_files_fault(component: str, error: Exception, options: Mapping[str, Any]) -> bool:
    if isinstance(error, _FILE_ERRORS):
        return True
    if component not in _MODELS:
        # Nothing but its files decides; only a package may be missing.
        return not isinstance(error, ImportError)
    if isinstance(error, RuntimeError):
        # Transformers' way to say that weights do not fit their configuration.
        return "ignore_mismatched_sizes" in str(error)
    return isinstance(error, _CONFIG_ERRORS) and all(options.get(name) is None for name in _OPTIONS)


def _damaged_files(place: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of a component that are cut off or are none, and what is wrong with each."""
    for path in sorted(place.glob("*.safetensors")):
        try:
            safe_open(path, framework="pt")
        except SafetensorError:
            yield path.name, "cannot be read"
    for path in sorted(place.glob("*.json")):
        wrong = _json_fault(path)
        if wrong is not None:
            yield path.name, wrong


def _json_fault(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"cannot be read: {error}"
    return None if isinstance(content, dict) else f"is no configuration, but a {type(content).__name__}"
