# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn files into captioned pictures, batches of them and the order in which training sees them."""
