# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The built-in cascade: its packed files, how tensors are packed, and where they are unpacked to."""
