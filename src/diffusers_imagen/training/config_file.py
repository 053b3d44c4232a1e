# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read a training configuration from a YAML file and the command line, and say what is wrong with it.

What there is to configure is in `config.py`. Called by the command line.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from diffusers_imagen.training import config as config_module
from diffusers_imagen.training.config import TrainConfig

_UNKNOWN = re.compile(r"The fields? (.*?) (?:is|are) not valid for (\w+)")
# What YAML makes of the word no, and what others call it.
_FULL_PRECISION = (False, "fp32", "float32")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration from a YAML file.

    Args:
        path: The YAML file; unknown keys are refused.
        overrides: Command-line words that win over the file: `["--optimizer.lr", "2e-4", "--seed=1"]`.

    Returns:
        The checked configuration.

    Raises:
        ValueError: If a value is not allowed, a key is unknown or missing, or there is no such file.
    """
    # Only files need draccus, an extra; a program may build a `TrainConfig` itself.
    from draccus import cfgparsing
    from draccus.utils import DraccusException

    if not Path(path).is_file():
        raise ValueError(f"`path` is {str(path)!r}; give a YAML file; this is none.")
    try:
        values = cfgparsing.load_config(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"`path` is {str(path)!r}; give a file with `name: value` lines.")
        for name, value in _pairs(overrides):
            _set(values, name, cfgparsing.parse_string(value))
        if values.get("precision") in _FULL_PRECISION:
            values["precision"] = "no"
        _refuse_empty_sections(values)
        return cfgparsing.decode(TrainConfig, values)
    except DraccusException as error:
        raise ValueError(f"{path} is refused: {_told(error)}") from error


def _refuse_empty_sections(values: dict[str, Any]) -> None:
    for section in fields(TrainConfig):
        if section.name in values and values[section.name] is None and is_dataclass(section.type):
            example = fields(section.type)[0].name
            raise ValueError(
                f"`{section.name}` is empty; give its parts, such as {section.name}.{example}, or leave it out."
            )


def _told(error: BaseException) -> str:
    """Say what is wrong, which is at the end of a chain of errors, and what to do."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    own = next((str(part) for part in chain if type(part) is ValueError and str(part).startswith("`")), None)
    if own is not None:
        return own
    deepest = next((str(part) for part in reversed(chain) if str(part).startswith("`")), str(error))
    told = " ".join(deepest.split()).rstrip(".") + "."
    if unknown := _UNKNOWN.search(told):
        return f"{told} {_hint(unknown[1].split(',')[0].strip(' `'), unknown[2])}"
    if "issing required" in told:
        return f"{told} Write it there, or give it as in --set data.folder=my_pictures."
    return told


def _hint(name: str, section: str) -> str:
    """Name the fields that come nearest to one that does not exist, or all that its section has."""
    known = list(_names(TrainConfig))
    last = {path: path.rpartition(".")[2] for path in known}
    near = difflib.get_close_matches(name, sorted(set(last.values())), n=2, cutoff=0.7)
    found = [path for path in known if last[path] in near]
    if found:
        return f"Did you mean {' or '.join(f'`{path}`' for path in found)}?"
    return f"It has {', '.join(part.name for part in fields(getattr(config_module, section)))}."


def _names(kind: Any, prefix: str = "") -> Iterator[str]:
    """Give all fields of a configuration, as `section.name`."""
    for part in fields(kind):
        inner = next((one for one in (part.type, *get_args(part.type)) if is_dataclass(one)), None)
        yield prefix + part.name
        if inner is not None:
            yield from _names(inner, f"{prefix}{part.name}.")


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Read "--name value" and "--name=value"."""
    words = [part for word in overrides for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(words) % 2 or not all(name.startswith("--") for name in words[::2]):
        raise ValueError(f"`overrides` is {list(overrides)!r}; give pairs such as --optimizer.lr 2e-4.")
    return [(name.removeprefix("--"), value) for name, value in zip(words[::2], words[1::2], strict=True)]


def _set(values: dict[str, Any], name: str, value: object) -> None:
    """Set `a.b.c` within nested dictionaries."""
    *parts, last = name.split(".")
    for part in parts:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"`overrides` is {name!r}; `{part}` has no parts; give it a value itself.")
        values = inner
    values[last] = value
