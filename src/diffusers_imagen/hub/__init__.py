# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a saved cascade needs to be published: its facts, its model card, the upload, and its code for other machines.

Reads folders, never models: torch is not imported here.
"""
