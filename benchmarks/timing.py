# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Time several functions in turns, so that whatever else the machine does meets all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounds:
    """How long to measure: at least `least` rounds, then on until `most` rounds or `seconds` are over."""

    least: int
    most: int
    seconds: float
    warmup: int = 2


def interleave(
    functions: Mapping[str, Callable[[], object]], rounds: Rounds, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return each function's seconds, one value a round; in every round each one runs once.

    Rounds begin with another function each time, so that none always follows the same one. With one thread,
    `time.process_time` as the clock leaves out what other programs take.
    """
    names = list(functions)
    for name in names:
        for _ in range(rounds.warmup):
            functions[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for number in range(rounds.most):
        if number >= rounds.least and time.perf_counter() - started > rounds.seconds:
            break
        for name in rotated(names, number):
            begin = clock()
            functions[name]()
            seconds[name].append(clock() - begin)
    return seconds


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return the names in the order of a round: each round begins with the next one."""
    first = number % len(names)
    return [*names[first:], *names[:first]]
