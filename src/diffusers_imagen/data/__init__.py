# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn stored pictures with captions into sources that give them by index, and say which comes when."""
