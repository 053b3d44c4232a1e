# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write a run's scalars, one JSON line every few steps. Called by the training loop.

`data_wait` is the share of the time, in [0, 1], in which training stood still for its next batch.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class ScalarLog:
    """Collect the scalars of steps and write their means.

    Args:
        path: The file of JSON lines; lines of steps after `step` are of a run that was killed, and are removed.
        step: Steps made so far.
        enabled: False in processes that write nothing.
        mean: Averages a tensor over all processes, each of which then asks for the same lines.
    """

    def __init__(
        self, path: Path, step: int, enabled: bool, mean: Callable[[Tensor], Tensor] = lambda values: values
    ) -> None:
        self._path = path
        self._enabled = enabled
        self._mean = mean
        if enabled:
            forget_after(path, step)
        self._forget()

    def add(self, loss: Tensor, grad_norm: Tensor, learning_rate: float, skipped: int, samples: int) -> None:
        """Take the scalars of one step; tensors stay on their device until a line is due."""
        self._losses.append(loss)
        self._norms.append(grad_norm)
        self._samples += samples
        self._latest |= {"lr": learning_rate, "skipped": float(skipped)}

    def waited(self, seconds: float) -> None:
        """Take the time that a step stood still for its batch."""
        self._waited += seconds

    def due(self, step: int, every: int, last: int) -> dict[str, float] | None:
        """Write a line if this step shall have one.

        Args:
            step: Steps made.
            every: Steps between lines.
            last: The last step of the run, which always has a line.

        Returns:
            The line, or None. It has no `loss` and no `grad_norm` if none since the last line was finite.
        """
        if step % every and step != last:
            return None
        # Skipped steps are counted, not averaged.
        collected = self._mean(torch.stack(self._losses)).tolist() if self._losses else []
        losses = [value for value in collected if math.isfinite(value)]
        norms = [value for value in map(float, self._norms) if math.isfinite(value)]
        seconds = time.monotonic() - self._since
        line = {
            "step": step,
            **_mean_of("loss", losses),
            **_mean_of("grad_norm", norms),
            **self._latest,
            "samples_per_s": self._samples / max(seconds, 1e-9),
            "data_wait": self._waited / max(seconds, 1e-9),
        }
        if self._enabled:
            append_line(self._path, line)
        self._forget()
        return line

    def _forget(self) -> None:
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._samples = 0
        self._waited = 0.0
        self._latest: dict[str, float] = {}
        self._since = time.monotonic()


def _mean_of(name: str, values: list[float]) -> dict[str, float]:
    """Give a named mean; nothing without values, since any number would look like a measured one."""
    return {name: sum(values) / len(values)} if values else {}


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Write a JSON line at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and what a crash cut short, from a file of JSON lines if there is one."""
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    temporary.replace(path)
