# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Foreign checkpoints to ours and back: state dict to state dict. The scripts in scripts/convert/ are thin mains."""
