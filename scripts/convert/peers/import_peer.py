# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Import a release of imagen-pytorch or MinImagen without torchvision and without a network.

Two things stand in the way of their import, and both are put aside here:

- they require torchvision and datasets, of which nothing that is compared here is used. While they are imported empty
  stand-ins are there, and go again at once: transformers would take them for the real ones.
- default arguments ask the Hub for the configuration of T5, which is answered here.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

TEXT_WIDTH = 24
_ABSENT = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.utils",
    "torchvision.datasets",
    "datasets",
    "datasets.utils",
    "datasets.utils.file_utils",
)


class _StandIn(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_peer(folder: Path, module: str) -> ModuleType:
    """Import a module of a peer that lies in `folder`."""
    import accelerate  # noqa: F401
    import kornia  # noqa: F401
    import transformers
    from transformers import T5Config

    # transformers imports its classes when they are asked for, and looks for torchvision then: so ask before.
    _ = transformers.T5EncoderModel, transformers.T5Tokenizer
    stand_ins = {name: _StandIn(name) for name in _ABSENT}
    for name, stand_in in stand_ins.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(stand_ins[parent], child, stand_in)
    sys.path.insert(0, str(folder))
    before = {name: sys.modules[name] for name in _ABSENT if name in sys.modules}
    sys.modules |= stand_ins
    try:
        with mock.patch.object(T5Config, "from_pretrained", return_value=T5Config(d_model=TEXT_WIDTH)):
            return importlib.import_module(module)
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules |= before
