# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""From prompts to pictures: stage settings, the one sampling loop and the pipeline that runs it per stage."""
