# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Built-in cascades: their names, and where they are unpacked to, once, for `from_pretrained`.

A packed cascade is a folder beside this file: `manifest.json`, small files as they are under `files/`, and packed
weights (see `packing.py`). `examples/emoji/pack.py` writes it with `write_packed`.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
CONTENTS = "contents.json"
FORMAT_VERSION = 1
UNUSED_DAYS = 30
MAX_FILE_BYTES = 15 * 1000 * 1000
# More than what safetensors writes into a file's header for a tensor beside its name.
_HEADER_BYTES = 200

_FOLDER = Path(__file__).parent


def builtin_names() -> list[str]:
    """Return the names of the built-in cascades."""
    return sorted(path.parent.name for path in _FOLDER.glob(f"*/{MANIFEST}"))


def builtin_path(name: str, cache: Path | None = None) -> Path:
    """Return the folder of a built-in cascade, unpacked into the user's cache on the first call.

    The folder appears whole or not at all, also when several processes unpack at once; one that has lost files since
    is unpacked anew. Folders of other versions of the package stay for those who use them, and go when nobody has for
    `UNUSED_DAYS`.

    Args:
        name: one of `builtin_names()`.
        cache: where to unpack to; `None` for `$XDG_CACHE_HOME/diffusers-imagen`, by default in `~/.cache`.

    Raises:
        ValueError: an unknown name.
        OSError: a packed file that is not what the manifest says, or a cache that cannot be written to.
    """
    if name not in builtin_names():
        raise ValueError(f"`name` is {name!r}, but the built-in cascades are {builtin_names()}.")
    source = _FOLDER / name
    manifest = (source / MANIFEST).read_bytes()
    cache = _default_cache() if cache is None else cache
    target = cache / f"{name}-{hashlib.sha256(manifest).hexdigest()[:12]}"
    if not _is_whole(target):
        shutil.rmtree(target, ignore_errors=True)
        try:
            _unpack_aside(source, json.loads(manifest), target)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"The built-in cascade {name!r} cannot be unpacked into {str(cache)!r} ({error}); set XDG_CACHE_HOME to a "
                "folder that can be written to and has 250 MB left, or give `cache`."
            ) from error
    _remove_unused(cache, name, target)
    return target


def write_packed(
    folder: Path, files: Mapping[str, Path], weights: Mapping[str, Mapping[str, "Tensor"]], facts: Mapping[str, Any]
) -> None:
    """Write a packed cascade.

    Args:
        folder: a new folder.
        files: small files, by their path in the unpacked cascade.
        weights: packed state dicts, by the path of the safetensors file that they unpack to.
        facts: what else the manifest shall say, such as where the weights come from.

    Raises:
        ValueError: a tensor that is larger than a file may be.
        OSError: the folder exists already.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for path, original in files.items():
        copy = folder / "files" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, copy)
        if copy.name == "config.json":
            _forget_weights(copy)
    packed: dict[str, list[str]] = {}
    for path, tensors in weights.items():
        packed[path] = []
        for number, shard in enumerate(_shards(tensors)):
            name = f"{Path(path).parts[0]}-{number + 1}.safetensors"
            save_file(shard, folder / name)
            packed[path].append(name)
    digests = {
        path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    manifest = {"format_version": FORMAT_VERSION, **facts, "weights": packed, "sha256": digests}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "diffusers-imagen"


def _is_whole(target: Path) -> bool:
    """Say whether every file that was unpacked is still there in its size; cache cleaners may have taken some."""
    listing = target / CONTENTS
    if not listing.is_file():
        return False
    sizes = json.loads(listing.read_text(encoding="utf-8"))
    return all((target / path).is_file() and (target / path).stat().st_size == size for path, size in sizes.items())


def _remove_unused(cache: Path, name: str, target: Path) -> None:
    """Note that `target` is in use, and remove other versions and half-unpacked ones that have long not been."""
    oldest = time.time() - UNUSED_DAYS * 24 * 60 * 60
    # A cache that can only be read is no reason to fail, nor is another process that removes the same.
    with suppress(OSError):
        os.utime(target)
        for folder in cache.iterdir():
            is_ours = re.fullmatch(rf"\.?{re.escape(name)}-[0-9a-f]{{12}}(-\w+)?", folder.name)
            if is_ours and folder != target and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _unpack_aside(source: Path, manifest: dict[str, Any], target: Path) -> None:
    """Unpack under a temporary name, list what is there, then move it to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unpacked = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _unpack(source, manifest, unpacked)
        files = [path for path in sorted(unpacked.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(unpacked).as_posix(): path.stat().st_size for path in files}
        (unpacked / CONTENTS).write_text(json.dumps(sizes, indent=2), encoding="utf-8")
        _move(unpacked, target)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _unpack(source: Path, manifest: dict[str, Any], target: Path) -> None:
    # Only unpacking needs torch; asking for the names must stay quick.
    from safetensors.torch import load_file, save_file

    from diffusers_imagen.builtin.packing import unpack_tensors

    for path, digest in manifest["sha256"].items():
        if not (source / path).is_file() or _digest(source / path) != digest:
            raise OSError(
                f"The file {path!r} of the built-in cascade is missing or damaged; install the package again."
            )
        if Path(path).parts[0] == "files":
            copy = target / Path(path).relative_to("files")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, copy)
    for path, names in manifest["weights"].items():
        packed: dict[str, Tensor] = {}
        for name in names:
            packed |= load_file(source / name)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(unpack_tensors(packed), target / path, metadata={"format": "pt"})


def _move(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        # Another process was faster: what it wrote is the same.
        if not target.is_dir():
            raise


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _forget_weights(config: Path) -> None:
    """Remove what a U-Net's configuration notes about its files of weights: what is unpacked later is rounded."""
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.pop("_weights", None) is not None:
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]]:
    """Split into dicts whose files stay below the largest size that is shipped."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(tensors.items()):
        num_bytes = tensor.nbytes + len(name) + _HEADER_BYTES
        if num_bytes > MAX_FILE_BYTES:
            raise ValueError(
                f"`weights` holds {name!r} of {tensor.nbytes} bytes, but a file has {MAX_FILE_BYTES} at most; pack it "
                "at fewer bits, or make the layer smaller."
            )
        if shards[-1] and size + num_bytes > MAX_FILE_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.contiguous()
        size += num_bytes
    return shards
