# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What this package knows about Diffusers' guiders, and a guider of its own. Called by the pipelines."""
