# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Pictures to numbers: distances between sets, agreement with text, suites with a judge, reports.

Pictures come from a sampling callable or a folder; nothing here knows pipelines. `cli/evaluate.py` joins the two.
"""
