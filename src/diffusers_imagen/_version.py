# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The package's version, alone so that building a wheel imports nothing else."""

__version__ = "0.1.0.dev0"
