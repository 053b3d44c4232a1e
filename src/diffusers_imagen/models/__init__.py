# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""U-Nets of the cascade, their layers, and the adapters through which the sampling loop calls them."""
