# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Run a benchmark's script in a process of its own and take the JSON that it prints last."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Freed memory is kept instead of given back, which spares large tensors their page faults.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def run_alone(
    script: str, arguments: Sequence[str], threads: int, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what `script` printed on its last line.

    Raises:
        RuntimeError: the script failed; with the end of what it wrote.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment = {**os.environ, **quiet, "OMP_NUM_THREADS": str(threads), **(environment or {})}
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
