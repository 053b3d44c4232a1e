# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say how far a run is: a bar on a terminal, a line of the log elsewhere. Called by the training loop."""

import logging
import sys
from collections.abc import Mapping

from accelerate.utils import tqdm

_logger = logging.getLogger(__name__)


class Progress:
    """Show steps, loss, speed and the hours that are left.

    Args:
        step: Steps made so far.
        last: Steps of the whole run.
        samples_per_step: Samples of one optimizer step, over all processes.
        enabled: False in processes that show nothing.
    """

    def __init__(self, step: int, last: int, samples_per_step: int, enabled: bool) -> None:
        self._last = last
        self._samples_per_step = samples_per_step
        self._enabled = enabled
        self._on_terminal = enabled and sys.stderr.isatty()
        self._bar = tqdm(main_process_only=False, total=last, initial=step, unit="step", disable=not self._on_terminal)

    def step(self) -> None:
        """Count a step."""
        self._bar.update()

    def show(self, line: Mapping[str, float]) -> None:
        """Show the scalars of a step as `ScalarLog` wrote them."""
        left = hours_left(int(line["step"]), self._last, self._samples_per_step, line["samples_per_s"])
        loss = loss_text(line)
        if self._on_terminal:
            speed = f"{line['samples_per_s']:.1f}"
            self._bar.set_postfix(loss=loss, samples_per_s=speed, hours_left=f"{left:.2f}")
        elif self._enabled:
            _logger.info(
                "step %d of %d, loss %s, %.1f samples/s, %.2f hours left",
                line["step"],
                self._last,
                loss,
                line["samples_per_s"],
                left,
            )

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def loss_text(line: Mapping[str, float]) -> str:
    """Give the loss of a line that `ScalarLog` wrote, for people."""
    return f"{line['loss']:.4f}" if "loss" in line else "not finite"


def hours_left(step: int, last: int, samples_per_step: int, samples_per_s: float) -> float:
    """Give the hours that the steps after `step` take at this speed."""
    return (last - step) * samples_per_step / max(samples_per_s, 1e-9) / 3600
