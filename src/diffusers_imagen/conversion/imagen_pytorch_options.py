# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What imagen-pytorch's weights cannot tell: options of its classes, by its own names, and what is missing of them.

Called by `imagen_pytorch.py`, which knows what the weights do tell.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from diffusers_imagen.conversion.imagen_pytorch_values import check_value

_OBJECTIVES = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}


@dataclass(frozen=True, kw_only=True)
class UnetOptions:
    """Options of one U-Net; `None` where nobody has said. One value a level, in a list, where that makes sense."""

    scale_skip_connection: bool | None = None
    """Whether skip connections are scaled by 1 / sqrt(2)."""
    use_linear_cross_attn: bool | Sequence[bool] | None = None
    """Whether the attention to text is the linear one."""
    layer_cross_attns: bool | Sequence[bool] | None = None
    """Which levels have the plain one, which goes before the linear one up to release 1.10."""
    resnet_groups: int | Sequence[int] | None = None
    """Groups of the norms, up to release 1.26."""
    cosine_sim_attn: bool | None = None
    """Whether attention compares unit vectors, up to release 1.21."""
    self_cond: bool | None = None
    """Whether spare input channels are its own last prediction, not a conditioning picture."""
    attn_heads: int | None = None
    """Heads of the attention."""
    channels: int | None = None
    """Colour channels; only for a bare U-Net whose prediction has others."""

    def __post_init__(self) -> None:
        for item in fields(self):
            check_value(item.name, getattr(self, item.name))


@dataclass(frozen=True, kw_only=True)
class ImagenOptions:
    """Options of the cascade; `None` where nobody has said. One value for all U-Nets or a list with one for each."""

    elucidated: bool | None = None
    """Whether the class is `ElucidatedImagen`."""
    image_sizes: Sequence[int] | None = None
    """Side of each stage's pictures."""
    noise_schedules: str | Sequence[str] | None = None
    """"cosine" or "linear"; those left out are cosine for the first two stages, then linear. Not for elucidated."""
    pred_objectives: str | Sequence[str] | None = None
    """"noise", "x_start" or "v". Not for elucidated."""
    timesteps: int | Sequence[int] | None = None
    """Sampling steps. Not for elucidated."""
    num_sample_steps: int | Sequence[int] | None = None
    """Sampling steps of elucidated ones."""
    sigma_data: float | Sequence[float] | None = None
    """Standard deviation of the pictures, of elucidated ones."""
    sigma_min: float | Sequence[float] | None = None
    """Least noise that is sampled, of elucidated ones."""
    sigma_max: float | Sequence[float] | None = None
    """Most noise, likewise."""
    lowres_noise_schedule: str | None = None
    """"linear" or "cosine", of the smaller picture's noise; only for cascades."""
    lowres_sample_noise_level: float | None = None
    """In [0, 1], that noise in sampling; only for cascades."""
    resize_mode: str | None = None
    """"nearest" or "bilinear", how the smaller picture is enlarged; only for cascades."""
    dynamic_thresholding: bool | Sequence[bool] | None = None
    """Whether thresholding is dynamic, not static."""
    dynamic_thresholding_percentile: float | None = None
    """In (0, 1]."""
    unets: Sequence[UnetOptions] = field(default=())
    """Each U-Net's own."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name != "unets":
                check_value(item.name, getattr(self, item.name))


USUAL: Mapping[str, Any] = {
    "elucidated": False,
    "noise_schedules": "cosine",
    "pred_objectives": "noise",
    "timesteps": 1000,
    "num_sample_steps": 32,
    "sigma_data": 0.5,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "lowres_noise_schedule": "linear",
    "lowres_sample_noise_level": 0.2,
    "resize_mode": "nearest",
    "dynamic_thresholding": True,
    "dynamic_thresholding_percentile": 0.95,
    "scale_skip_connection": True,
    "use_linear_cross_attn": False,
    "resnet_groups": 8,
    "cosine_sim_attn": False,
    "self_cond": True,
    "attn_heads": 8,
}
"""imagen-pytorch's own defaults; `image_sizes` has none. (Releases before 1.2 had 0.9 for the percentile.)"""

_SAMPLING = ("dynamic_thresholding", "dynamic_thresholding_percentile")
_PLAIN = ("noise_schedules", "pred_objectives", "timesteps")
_ELUCIDATED = ("num_sample_steps", "sigma_data", "sigma_min", "sigma_max")
_CASCADE = ("lowres_noise_schedule", "lowres_sample_noise_level", "resize_mode")


@dataclass(frozen=True)
class Settled:
    """All options of a conversion.

    Args:
        shared: the cascade's, by name.
        unets: each U-Net's, by name.
        assumed: the names that took their usual values, for the report.
    """

    shared: Mapping[str, Any]
    unets: Sequence[Mapping[str, Any]]
    assumed: Sequence[str]


def settle(
    given: ImagenOptions,
    stored: ImagenOptions,
    undecided: Sequence[Sequence[str]],
    usual: bool,
) -> Settled:
    """Settle what the weights cannot tell: what was given, else what the file says, else the usual value.

    Args:
        given: by the caller.
        stored: in the checkpoint.
        undecided: for each U-Net, the names that its weights leave open.
        usual: whether what nobody said takes its usual value.

    Raises:
        ValueError: what is still open, with the usual values; or a value that cannot be.
    """
    shared = {item.name: _first(getattr(given, item.name), getattr(stored, item.name)) for item in fields(given)}
    shared.pop("unets")
    assumed: list[str] = []
    missing: list[str] = []

    def fill(name: str, values: dict[str, Any], label: str) -> None:
        if values.get(name) is None:
            (assumed if usual and name in USUAL else missing).append(label)
            values[name] = USUAL.get(name)

    _check_number(given, len(undecided))
    fill("elucidated", shared, "elucidated")
    for name in _PLAIN if shared["elucidated"] else _ELUCIDATED:
        if getattr(given, name) is not None:
            kind = "no ElucidatedImagen" if name in _ELUCIDATED else "an ElucidatedImagen"
            raise ValueError(f"`{name}` is given, but this is {kind}; leave it out, or change `elucidated`.")
    wanted = ["image_sizes", *(_ELUCIDATED if shared["elucidated"] else _PLAIN), *_SAMPLING]
    for name in [*wanted, *(_CASCADE if len(undecided) > 1 else ())]:
        fill(name, shared, name)
    unets = []
    for number, names in enumerate(undecided):
        own = _unet_values(given, stored, number)
        for name in names:
            fill(name, own, f"unets.{number}.{name}")
        unets.append({name: value for name, value in own.items() if value is not None})
    if missing:
        raise ValueError(_question(missing))
    _check_shared(shared, len(undecided))
    return Settled(shared, unets, assumed)


def stored_options(kind: Any, parameters: Any) -> ImagenOptions:
    """Return the options that a trainer's checkpoint holds where the model was made from a configuration.

    A configuration says only what was set; the rest has imagen-pytorch's defaults.

    Args:
        kind: its `imagen_type`, "original" or "elucidated".
        parameters: its `imagen_params`.

    Raises:
        ValueError: what is no configuration.
    """
    if kind not in (None, "original", "elucidated"):
        raise ValueError(f"`imagen_type` of the checkpoint is a {type(kind).__name__} that names no class of Imagen.")
    if parameters is None:
        return ImagenOptions(elucidated=None if kind is None else kind == "elucidated")
    unets = _mapping("imagen_params", parameters).get("unets", ())
    if not isinstance(unets, list | tuple):
        raise ValueError(f"`unets` in `imagen_params` of the checkpoint is a {type(unets).__name__}, but no list.")
    names = {item.name for item in fields(ImagenOptions)} - {"unets", "elucidated"}
    own = {name: USUAL[name] for name in names if name in USUAL}
    own |= {name: value for name, value in parameters.items() if name in names and value is not None}
    each = tuple(unet_options(unet) for unet in unets)
    return ImagenOptions(elucidated=None if kind is None else kind == "elucidated", unets=each, **own)


def unet_options(parameters: Any) -> UnetOptions:
    """Return what a U-Net's keyword arguments say; imagen-pytorch's own defaults where they are silent.

    A placeholder for a U-Net that is elsewhere says nothing.

    Raises:
        ValueError: what is no mapping from names, or a value that cannot be.
    """
    parameters = _mapping("the configuration of a U-Net", parameters)
    if parameters.get("is_null") is True:
        return UnetOptions()
    names = [item.name for item in fields(UnetOptions)]
    defaults = {name: USUAL[name] for name in names if name in USUAL}
    given = {name: parameters[name] for name in names if name in parameters}
    # In its class, unlike in `USUAL`, the default is none.
    return UnetOptions(**(defaults | {"self_cond": False, "layer_cross_attns": True} | given))


def by_stage(name: str, value: Any, stages: int) -> list[Any]:
    """Return an option as one value for each stage.

    Raises:
        ValueError: another number of values.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * (1 if name == "noise_schedules" else stages)
    if name == "noise_schedules":
        values += ["cosine"] * (2 - len(values))
        values += ["linear"] * (stages - len(values))
        values = values[:stages] if len(values) <= 2 else values
    if len(values) != stages:
        raise ValueError(f"`{name}` has {len(values)} values, but there are {stages} U-Nets; give one for each.")
    return values


def prediction_type(objective: str) -> str:
    """Return Diffusers' name of an objective."""
    return _OBJECTIVES[objective]


def with_values(options: ImagenOptions, values: Mapping[str, Any]) -> ImagenOptions:
    """Return options with some set by name, those of a U-Net as "unets.0.resnet_groups".

    Raises:
        ValueError: a name that there is not.
    """
    shared = {item.name for item in fields(ImagenOptions)} - {"unets"}
    own = {item.name for item in fields(UnetOptions)}
    unets = list(options.unets)
    for name, value in values.items():
        prefix, _, rest = name.partition(".")
        number, _, unet_name = rest.partition(".")
        if name in shared:
            options = replace(options, **{name: value})
        elif prefix == "unets" and number.isdecimal() and int(number) < 3 and unet_name in own:
            unets += [UnetOptions()] * (int(number) + 1 - len(unets))
            unets[int(number)] = replace(unets[int(number)], **{unet_name: value})
        else:
            raise ValueError(
                f"there is no option {name!r}; there are {', '.join(sorted(shared))} and, for each U-Net, "
                f"{', '.join(f'unets.0.{option}' for option in sorted(own))}."
            )
    return replace(options, unets=tuple(unets))


def _mapping(place: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} in the checkpoint is a {type(value).__name__}, but maps names to values in others.")
    return value


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _unet_values(given: ImagenOptions, stored: ImagenOptions, number: int) -> dict[str, Any]:
    sources = [options.unets[number] for options in (given, stored) if number < len(options.unets)]
    return {item.name: _first(*(getattr(source, item.name) for source in sources)) for item in fields(UnetOptions)}


def _question(missing: Sequence[str]) -> str:
    lines = [
        f"  {label}: {f'usually {json.dumps(USUAL[name])}' if (name := label.split('.')[-1]) in USUAL else 'no usual value'}"
        for label in missing
    ]
    return (
        "the weights cannot tell everything, and the checkpoint does not say it. Give these options, or take the usual "
        "values for those that have one:\n" + "\n".join(lines)
    )


def _check_number(given: ImagenOptions, count: int) -> None:
    for number, options in enumerate(given.unets):
        if number >= count and options != UnetOptions():
            raise ValueError(f"`unets.{number}` has options, but there are {count} U-Nets, numbered from 0.")


def _check_shared(shared: Mapping[str, Any], stages: int) -> None:
    """Refuse values that do not go together."""
    sizes = by_stage("image_sizes", shared["image_sizes"], stages)
    if sizes != sorted(set(sizes)):
        raise ValueError(f"`image_sizes` is {shared['image_sizes']!r}; give each stage's side in pixels, rising.")
    if shared["elucidated"]:
        low, high = (by_stage(name, shared[name], stages) for name in ("sigma_min", "sigma_max"))
        if not all(least < most for least, most in zip(low, high, strict=True)):
            raise ValueError(f"`sigma_min` is {shared['sigma_min']!r}; give less than `sigma_max`, {high}.")
