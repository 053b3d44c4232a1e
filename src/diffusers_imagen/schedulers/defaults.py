# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The scheduler that a trained stage gets until somebody chooses another one. Called for previews and assembled cascades."""

from diffusers import DPMSolverMultistepScheduler

from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule

_BETA_SCHEDULES = {"cosine": "squaredcos_cap_v2", "linear": "linear"}


def default_scheduler(process: NoiseProcess) -> DPMSolverMultistepScheduler:
    """Make the scheduler that suits what a U-Net was trained on: second order, steps even in log-SNR.

    It is told x_0 as it is, so it fits every prediction type; even steps fit every shift of the noise schedule.

    Args:
        process: The U-Net's noise process, whose schedule's kind decides between which levels of noise the steps lie;
            those of a table of timesteps lie as the cosine schedule's.
    """
    schedule = process.schedule
    kind = schedule.kind if isinstance(schedule, NoiseSchedule) else "cosine"
    return DPMSolverMultistepScheduler(
        beta_schedule=_BETA_SCHEDULES[kind], use_exponential_sigmas=True, prediction_type="sample"
    )
