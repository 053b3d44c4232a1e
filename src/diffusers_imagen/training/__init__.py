# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Train one stage: configuration, objective, loop and checkpoints."""
