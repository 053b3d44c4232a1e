# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn prompts into text embeddings and masks, and keep them on disk for training."""
