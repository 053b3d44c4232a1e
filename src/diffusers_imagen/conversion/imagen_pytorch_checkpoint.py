# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Find the U-Nets in what imagen-pytorch saves: a trainer's checkpoint, a state dict, or a single U-Net's file.

Called by `imagen_pytorch.py`; files are read by `archive.py`.
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions, stored_options, unet_options
from diffusers_imagen.conversion.weight_checks import check_weights

Weights = Literal["auto", "ema", "online"]
State = dict[str, Tensor]

_TRAINER_KEYS = re.compile(r"model|version|steps|ema|imagen_type|imagen_params|(optim|scaler|scheduler|warmup)\d+")
_READ = ("model", "version", "steps", "ema", "imagen_type", "imagen_params")
_UNET_KEY = re.compile(r"unets\.(0|[1-9]\d{0,3})\.(.+)")
_EMA_KEY = re.compile(r"(0|[1-9]\d{0,3})\.(initted|step|ema_model\.(.+)|online_model\..+)")
_PLACEHOLDER = "dummy_parameter"
# What wrappers for several devices and for compilation put in front of names.
_WRAPPERS = re.compile(r"(?:^|(?<=^unets\.\d\.))(?:module|_orig_mod)\.")
# What follows is letters, digits and points, as in "2.0.0.dev1".
_RELEASES = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.[\w.+-]{1,30})?", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """What was found in a file.

    Args:
        unets: the weights of each U-Net by its number, placeholders left out.
        source: where each one's come from, "ema" or "online".
        version: imagen-pytorch's, or `None` where the file does not say.
        options: what the file says of the model.
        left_out: what was in the file and is not needed.
        is_numbered: whether the file says which of a cascade's U-Nets its own are; else it is one, and counts as 0.
    """

    unets: Mapping[int, State]
    source: Mapping[int, str]
    version: str | None
    options: ImagenOptions
    left_out: tuple[str, ...]
    is_numbered: bool = True


def find_unets(data: Any, weights: Weights = "auto") -> Checkpoint:
    """Return the U-Nets in what a file held.

    Args:
        data: as `read_archive` returns it.
        weights: "ema" or "online" for a trainer's averaged or last weights; "auto" averaged where there are any.

    Raises:
        ValueError: data of another kind, a release that is not known, or averaged weights that are not there.
    """
    if not _has_names(data):
        raise ValueError(f"the file holds a {type(data).__name__}; a dictionary of imagen-pytorch's was expected.")
    if isinstance(data.get("model"), Mapping):
        return _checked(_trainer_checkpoint(data, weights))
    if weights == "ema":
        raise ValueError('`weights` is "ema", but only a trainer\'s checkpoint holds averages; leave it.')
    if set(data) == {"config", "state_dict"}:
        options = ImagenOptions(unets=(unet_options(data["config"]),))
        return _checked(_online(data["state_dict"], None, options, ()))
    return _checked(_online(data, None, ImagenOptions(), ()))


def _checked(found: Checkpoint) -> Checkpoint:
    for number, state in found.unets.items():
        check_weights(state, f"U-Net {number} ({found.source[number]} weights)")
    return found


def _trainer_checkpoint(data: Mapping[str, Any], weights: Weights) -> Checkpoint:
    version = data.get("version")
    _check_version(version)
    unknown = sorted(key for key in data if not _TRAINER_KEYS.fullmatch(key) and _holds_tensors(data[key]))
    if unknown:
        raise ValueError(f"the checkpoint holds tensors that no trainer saves, under {', '.join(unknown)}.")
    left_out = tuple(sorted(key for key in data if key not in _READ))
    options = stored_options(data.get("imagen_type"), data.get("imagen_params"))
    online = _online(data["model"], version, options, left_out)
    if "ema" not in data:
        if weights == "ema":
            raise ValueError('`weights` is "ema", but the checkpoint holds no averages; take "online".')
        return online
    if weights == "online":
        return online
    averages, unused = _averages(data["ema"], online.unets)
    unets, source = dict(online.unets), dict(online.source)
    for number in online.unets:
        if number in unused and weights == "auto":
            continue
        unets[number], source[number] = averages[number], "ema"
    return Checkpoint(unets, source, version, options, left_out)


def _check_version(version: Any) -> None:
    if version is None:
        return
    found = _RELEASES.fullmatch(version) if isinstance(version, str) else None
    if found is None or not (1, 0) <= (int(found[1]), int(found[2])) <= (2, 1):
        raise ValueError(f"the checkpoint is of imagen-pytorch {reprlib.repr(version)}; 1.0 to 2.1 are known.")


def _averages(ema: Any, online: Mapping[int, State]) -> tuple[dict[int, State], set[int]]:
    """Return each U-Net's averaged weights, and the numbers of those that were never averaged."""
    if not _has_names(ema):
        raise ValueError("`ema` of the checkpoint is no state dict.")
    averages: dict[int, State] = {number: {} for number in online}
    unused = set()
    for key, value in ema.items():
        match = _EMA_KEY.fullmatch(key)
        if match is None or (match[3] not in (None, _PLACEHOLDER) and int(match[1]) not in averages):
            raise ValueError(f"`ema` of the checkpoint holds {key!r}, which no trainer saves.")
        number, what, name = int(match[1]), match[2], match[3]
        if name is not None and number in averages:
            _put(averages[number], _WRAPPERS.sub("", name), value, key)
        if what == "step" and _step(value) == 0:
            unused.add(number)
    for number, state in online.items():
        different = sorted(set(state) ^ set(averages[number]))
        if different:
            raise ValueError(
                f"the averages of U-Net {number} lack {len(different)} of its weights or hold others, such as "
                f'{different[0]!r}; take weights "online".'
            )
    return averages, unused


def _step(value: Any) -> int:
    if not isinstance(value, Tensor | int) or (isinstance(value, Tensor) and (value.numel() != 1 or value.is_meta)):
        raise ValueError('`step` in `ema` of the checkpoint is no number; take weights "online".')
    return int(value)


def _put(state: State, name: str, weight: Tensor, key: str) -> None:
    """Add a weight, unless another has its name already.

    Raises:
        ValueError: if one has.
    """
    if name in state:
        raise ValueError(f"the checkpoint holds {name!r} twice, once as {key!r}; leave one of them out.")
    state[name] = weight


def _online(state: Any, version: str | None, options: ImagenOptions, left_out: tuple[str, ...]) -> Checkpoint:
    if not _has_names(state) or not state:
        raise ValueError("the file holds no state dict.")
    names: State = {}
    for key, value in state.items():
        _put(names, _WRAPPERS.sub("", _WRAPPERS.sub("", key)), value, key)
    is_numbered = any(name.startswith("unets.") for name in names)
    if not is_numbered:
        names = {f"unets.0.{name}": value for name, value in names.items()}
    unets: dict[int, State] = {}
    for name, value in names.items():
        match = _UNET_KEY.fullmatch(name)
        if match is None:
            raise ValueError(f"the state dict holds {name!r}, which is no U-Net's.")
        unets.setdefault(int(match[1]), {})[match[2]] = value
    # A cascade that is trained stage by stage, in files of their own, has these in the other stages' places.
    real = {number: unet for number, unet in sorted(unets.items()) if set(unet) != {_PLACEHOLDER}}
    return Checkpoint(real, dict.fromkeys(real, "online"), version, options, left_out, is_numbered)


def _has_names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _holds_tensors(value: Any) -> bool:
    """Say whether there is a tensor in containers, which may be nested deeply or hold themselves."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            return True
        if id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
    return False
