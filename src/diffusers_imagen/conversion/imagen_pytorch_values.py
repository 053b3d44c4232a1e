# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Which values imagen-pytorch's options may have, each by its kind and range.

What the options are is in `imagen_pytorch_options.py`, which calls this.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_STEPS = 10_000
"""More sampling steps than this package draws with."""


@dataclass(frozen=True)
class _Rule:
    wanted: str
    holds: Callable[[Any], bool]
    several: bool = False
    """Whether there may be a list, with one value for each U-Net or level."""


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _number(low: float, high: float, includes_low: bool) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return low < value <= high or (includes_low and value == low)

    return holds


def _choice(*allowed: str, several: bool = False) -> _Rule:
    names = " or ".join(f'"{one}"' for one in allowed)
    return _Rule(names, lambda value: isinstance(value, str) and value in allowed, several)


_FLAG = _Rule("true or false", _is_flag)
_FLAGS = _Rule("true or false", _is_flag, several=True)
_STEPS = _Rule(f"a whole number from 1 to {MOST_STEPS}", _whole(MOST_STEPS), several=True)
_SIGMA = _Rule("a number above 0", _number(0, math.inf, includes_low=False), several=True)
_COUNT = _Rule("a whole number from 1 on", _whole())

_RULES: Mapping[str, _Rule] = {
    "elucidated": _FLAG,
    "image_sizes": _Rule("each stage's side in pixels, rising", _whole(), several=True),
    "noise_schedules": _choice("cosine", "linear", several=True),
    "pred_objectives": _choice("noise", "x_start", "v", several=True),
    "timesteps": _STEPS,
    "num_sample_steps": _STEPS,
    "sigma_data": _SIGMA,
    "sigma_min": _SIGMA,
    "sigma_max": _SIGMA,
    "lowres_noise_schedule": _choice("linear", "cosine"),
    "lowres_sample_noise_level": _Rule("a number from 0 to 1", _number(0, 1, includes_low=True)),
    "resize_mode": _choice("nearest", "bilinear"),
    "dynamic_thresholding": _FLAGS,
    "dynamic_thresholding_percentile": _Rule("a number above 0, at most 1", _number(0, 1, includes_low=False)),
    "scale_skip_connection": _FLAG,
    "use_linear_cross_attn": _FLAGS,
    "layer_cross_attns": _FLAGS,
    "resnet_groups": _Rule("a whole number from 1 on", _whole(), several=True),
    "cosine_sim_attn": _FLAG,
    "self_cond": _FLAG,
    "attn_heads": _COUNT,
    "channels": _COUNT,
}


def check_value(name: str, value: Any) -> None:
    """Refuse a value that an option cannot have.

    Args:
        name: the option's, by imagen-pytorch.
        value: its own, or `None` where nobody has said.

    Raises:
        ValueError: naming the option, the value and what there may be.
    """
    rule = _RULES[name]
    values = value if rule.several and isinstance(value, list | tuple) else [value]
    if value is not None and not all(rule.holds(one) for one in values):
        more = ", or a list of such" if rule.several else ""
        # Of a stranger's value not all is shown: it may be nested without end.
        raise ValueError(f"`{name}` is {reprlib.repr(value)}; give {rule.wanted}{more}.")
