# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The command line: one file for each verb. What is slow to import is imported when a verb runs."""
