# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Let Diffusers' schedulers drive any stage.

A bridge per family of schedulers says at which noise level a sample is, and writes a clean image as the model output
that the scheduler expects. The sampling loop is the only caller; nothing here knows a network.
"""
