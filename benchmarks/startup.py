# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a user waits for: the import, the built-in cascade, its first and its next pictures, in fresh processes.

python benchmarks/startup.py WHAT THREADS    one process' work; prints JSON

Nothing slow may be imported at the top of this file: its processes time imports.
"""

import argparse
import importlib
import json
import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from results import Row
    from scale import Scale

PROMPT = "a cat wearing a hat"


def measure(scale: "Scale", threads: int) -> "list[Row]":
    """Time fresh processes in turns; the first of each warms the disk's cache and does not count."""
    from processes import run_alone
    from results import Measurement, Row
    from timing import rotated

    found: dict[str, list[dict[str, float]]] = {what: [] for what in _WORK}
    warmup = 1 if scale.every_variant else 0
    for number in range(warmup + scale.processes):
        # In another order each time: what ran before leaves more or less of the disk in memory.
        for what in rotated(list(_WORK), number):
            result = run_alone("startup.py", [what, str(threads)], threads)
            if number >= warmup:
                found[what].append(result)

    def row(key: str, title: str, name: str, *sources: str) -> Row:
        measured = [Measurement(_SIDES[what], what, "fp32", [one[name] for one in found[what]]) for what in sources]
        return Row(key, title, "s", True, measured)

    return [
        row("import", "import Diffusers, and the package with it", "import", *_IMPORTS),
        row("import_cpu", "the same, processor time", "cpu", *_IMPORTS),
        row("import_after", "import the package after Diffusers", "added", _LAST, _PEER_LAST),
        row("ready", "imagen-emoji ready, after the imports", "ready", _BUILTIN),
        row("ready_again", "imagen-emoji ready once more", "again", _BUILTIN),
        row("first_picture", "imagen-emoji's first picture", "first", _BUILTIN),
        row("picture", "imagen-emoji's next picture", "next", _BUILTIN),
    ]


def _import(_: int, first: bool = False, last: bool = False, peer_last: bool = False) -> dict[str, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    if first:
        importlib.import_module("diffusers_imagen")
    from diffusers import AutoPipelineForText2Image, DiffusionPipeline  # noqa: F401

    before = time.perf_counter()
    if last:
        importlib.import_module("diffusers_imagen")
    if peer_last:
        from peer_imagen_pytorch import import_imagen_pytorch

        import_imagen_pytorch()
    end, cpu_end = time.perf_counter(), time.process_time()
    return {"import": end - begin, "cpu": cpu_end - cpu, "added": end - before}


def _use_builtin(threads: int) -> dict[str, float]:
    import torch

    from diffusers_imagen import ImagenCascadePipeline

    torch.set_num_threads(threads)
    begin = time.perf_counter()
    pipe = ImagenCascadePipeline.from_pretrained("imagen-emoji")
    ready = time.perf_counter()
    ImagenCascadePipeline.from_pretrained("imagen-emoji")
    again = time.perf_counter()
    pipe.set_progress_bar_config(disable=True)
    times = []
    for seed in range(3):
        started = time.perf_counter()
        pipe(PROMPT, generator=torch.Generator().manual_seed(seed))
        times.append(time.perf_counter() - started)
    return {"ready": ready - begin, "again": again - ready, "first": times[0], "next": min(times[1:])}


_ALONE, _BUILTIN = "diffusers", "imagen-emoji"
_FIRST, _LAST, _PEER_LAST = "diffusers_imagen, diffusers", "diffusers, diffusers_imagen", "diffusers, imagen_pytorch"
_IMPORTS = (_ALONE, _FIRST, _LAST, _PEER_LAST)
_SIDES = {_ALONE: "Diffusers", _FIRST: "ours", _LAST: "ours", _PEER_LAST: "imagen-pytorch", _BUILTIN: "ours"}
_WORK = {
    _ALONE: _import,
    _FIRST: partial(_import, first=True),
    _LAST: partial(_import, last=True),
    _PEER_LAST: partial(_import, peer_last=True),
    _BUILTIN: _use_builtin,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=_WORK)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    print(json.dumps(_WORK[arguments.what](arguments.threads)))


if __name__ == "__main__":
    main()
