# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Imagen for Hugging Face Diffusers."""

from diffusers_imagen._version import __version__

__all__ = ["__version__"]
