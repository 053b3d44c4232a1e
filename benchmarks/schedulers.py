# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Every Diffusers scheduler on a model whose answer is known, through the cascade's own loop.

The data are normal, the model is the best possible predictor, the noise process is cosine. Printed for 25, 50, 100 and
250 steps, in units of the data's standard deviation: of a deterministic sampler the RMS error against the exact
solution of the probability-flow ODE (arXiv:2011.13456), of a stochastic one the standard deviation of what it draws.
Then, for 50 steps, how far the last sample is from exactly thresholded data when the model knows x_0 (largest error).

python benchmarks/schedulers.py [--only NAME] [--prediction-types]
"""

import argparse
import itertools
import math
import time
from dataclasses import dataclass, field
from typing import Any

import diffusers.schedulers
import torch
from diffusers.utils import logging
from torch import Tensor

from diffusers_imagen.diffusion.noise import PREDICTION_TYPES, NoiseProcess, NoiseSchedule, alpha_sigma
from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.diffusion.thresholding import dynamic_threshold
from diffusers_imagen.models.stage_model import Prediction
from diffusers_imagen.pipelines.denoise_stage import StageCondition, StepControl, denoise_stage
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.schedulers.bridge import bridge_for

SHAPE = (4, 3, 32, 32)
STEPS = (25, 50, 100, 250)
MEAN, SPREAD = 0.2, 0.15
# Where the 1000 steps of the cosine betas begin and end; the references were measured with a model of that range.
PROCESS = NoiseSchedule(log_snr_min=-19.8, log_snr_max=10.1)
COSINE = {"beta_schedule": "squaredcos_cap_v2"}


@dataclass(frozen=True)
class Case:
    """A scheduler with settings.

    Args:
        name: Of the class, without "Scheduler".
        reference: What the study before this implementation measured at 50 steps: the error of a deterministic
            sampler; None for a stochastic one, whose spread shall be 1.
        settings: Constructor arguments besides the betas.
        exception: Why the limits do not hold, if they do not.
    """

    name: str
    reference: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    exception: str = ""

    @property
    def label(self) -> str:
        """Name and settings on one line."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items())])

    def scheduler(self, prediction_type: str | None = None) -> Any:
        """Make it, with cosine betas and without its own clipping where it has these settings."""
        scheduler_class = getattr(diffusers.schedulers, f"{self.name}Scheduler")
        takes = scheduler_class.__init__.__wrapped__.__code__.co_varnames
        settings = {key: value for key, value in (COSINE | {"clip_sample": False}).items() if key in takes}
        settings |= self.settings
        if prediction_type is not None and "prediction_type" in takes:
            settings["prediction_type"] = prediction_type
        return scheduler_class(**settings)


TRAILING, LINSPACE = ({"timestep_spacing": spacing} for spacing in ("trailing", "linspace"))
KARRAS, EXPONENTIAL, BETA = ({f"use_{kind}_sigmas": True} for kind in ("karras", "exponential", "beta"))
LU, FLOW = {"use_lu_lambdas": True}, {"use_flow_sigmas": True, "flow_shift": 3.0}
ZERO_SNR = TRAILING | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
LINEAR = {"beta_schedule": "linear"}
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
V = {"prediction_type": "v_prediction"}
DISTILLED = "new noise at each step, for distilled models"
SMALL_VARIANCE = "the small variance of DDPM, too small for few steps"
WASTED = "sigma_max is 20291, and the spacing spends most steps far above the data"

CASES = [
    Case("DDPM", None, {}, SMALL_VARIANCE),
    Case("DDPM", None, TRAILING, SMALL_VARIANCE),
    Case("DDPM", None, LINSPACE, SMALL_VARIANCE),
    Case("DDPM", None, ZERO_SNR, SMALL_VARIANCE),
    Case("DDPM", None, {"variance_type": "fixed_large"}),
    Case("DDPMParallel", None, {}, SMALL_VARIANCE),
    Case("DDIM", 0.082),
    Case("DDIM", 0.090, TRAILING),
    Case("DDIM", 0.090, ZERO_SNR),
    Case("DDIM", 0.154, LINEAR),
    Case("DDIMParallel", 0.082),
    Case("CogVideoXDDIM", 0.082, {"snr_shift_scale": 1.0}),
    Case("CogVideoXDDIM", 0.137, {"snr_shift_scale": 3.0}),
    Case("CogVideoXDPM", None, {"snr_shift_scale": 1.0}, "too much noise with leading spacing; take trailing"),
    Case("CogVideoXDPM", None, {"snr_shift_scale": 1.0} | TRAILING),
    Case("PNDM", 0.027),
    Case("PNDM", 0.027, V, "it mixes the v of several noise levels"),
    Case("PNDM", 0.027, {"skip_prk_steps": True}),
    Case("UnCLIP", None, {}, SMALL_VARIANCE),
    Case("LCM", None, {"original_inference_steps": 500}, DISTILLED),
    Case("TCD", None, {"original_inference_steps": 500}, DISTILLED),
    Case("EulerDiscrete", 0.084),
    Case("EulerDiscrete", 0.090, TRAILING),
    Case("EulerDiscrete", 0.159, KARRAS),
    Case("EulerDiscrete", 0.064, KARRAS | {"sigma_max": 80.0, "sigma_min": 0.006}),
    Case("EulerDiscrete", 0.074, EXPONENTIAL),
    Case("EulerDiscrete", 0.958, BETA, WASTED),
    Case("EulerDiscrete", 0.468, BETA | {"sigma_max": 80.0, "sigma_min": 0.006}),
    Case("EulerDiscrete", 0.090, ZERO_SNR),
    Case("EulerDiscrete", 0.156, LINEAR),
    Case("EulerAncestralDiscrete", None),
    Case("HeunDiscrete", 0.015),
    Case("HeunDiscrete", 0.058, KARRAS),
    Case("HeunDiscrete", 0.012, EXPONENTIAL),
    Case("LMSDiscrete", 0.001),
    Case("LMSDiscrete", 0.049, KARRAS),
    Case("KDPM2Discrete", 0.018),
    Case("KDPM2Discrete", 0.033, KARRAS),
    Case("KDPM2AncestralDiscrete", None),
    Case("DPMSolverSDE", None),
    Case("DPMSolverSDE", None, KARRAS),
    Case("DPMSolverMultistep", 0.028),
    Case("DPMSolverMultistep", 0.025, TRAILING),
    Case("DPMSolverMultistep", 0.059, KARRAS),
    Case("DPMSolverMultistep", 0.013, EXPONENTIAL),
    Case("DPMSolverMultistep", 0.013, LU),
    Case("DPMSolverMultistep", 0.950, BETA, WASTED),
    Case("DPMSolverMultistep", 0.065, FLOW),
    Case("DPMSolverMultistep", 0.035, {"solver_order": 3}),
    Case("DPMSolverMultistep", 0.048, NOISE),
    Case("DPMSolverMultistep", None, {"algorithm_type": "sde-dpmsolver++"}),
    Case("DPMSolverMultistep", 0.114, LINEAR),
    Case("DPMSolverMultistep", 0.267, LATENT),
    Case("DPMSolverSinglestep", 0.062),
    Case("DPMSolverSinglestep", 0.086, KARRAS),
    Case("DEISMultistep", 0.023),
    Case("DEISMultistep", 0.031, KARRAS),
    Case("UniPCMultistep", 0.030),
    Case("UniPCMultistep", 0.050, KARRAS),
    Case("UniPCMultistep", 0.059, {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    Case("UniPCMultistep", 0.071, FLOW),
    Case("SASolver", None),
    Case("SASolver", None, KARRAS, "its noise needs more steps with this spacing"),
    Case("EDMEuler", 0.069),
    Case("EDMDPMSolverMultistep", 0.006),
    Case("CosineDPMSolverMultistep", None, {"sigma_min": 0.006, "sigma_max": 80.0}),
    Case("CosineDPMSolverMultistep", None, {}, "its sigma_min of 0.3 is above the data's spread"),
    Case("IPNDM", 0.007),
    Case("DDPMWuerstchen", None, {}, SMALL_VARIANCE),
    Case("CMStochasticIterative", None, {"num_train_timesteps": 500}, DISTILLED),
    Case("FlowMatchEulerDiscrete", 0.064),
    Case("FlowMatchEulerDiscrete", 0.150, {"shift": 3.0}),
    Case("FlowMatchEulerDiscrete", 0.040, KARRAS),
    Case("FlowMatchEulerDiscrete", None, {"stochastic_sampling": True}, DISTILLED),
    Case("FlowMatchHeunDiscrete", 0.018),
    Case("FlowMatchLCM", None, {}, DISTILLED),
    Case("FlowMapEulerDiscrete", 0.062),
    Case("LTXEulerAncestralRF", None),
    Case("LTXEulerAncestralRF", 0.064, {"eta": 0.0}),
    Case("MiniMaxH3", 0.507, {}, "its shift of 12 leaves few steps near the picture"),
    Case("MiniMaxH3", 0.063, {"shift": 1.0}),
    Case("SCM", None, {}, DISTILLED),
    Case("ScoreSdeVe", None, {"num_train_timesteps": 1000}, "its predictor alone, without the corrector"),
]


class Gaussian:
    """The best predictor of data that are normal around `mean`; with a spread of 0 one that knows x_0."""

    predicts_variance = False

    def __init__(self, mean: Tensor, spread: float, prediction_type: str) -> None:
        self.noise_process = NoiseProcess(prediction_type, PROCESS)
        self.mean, self.spread = mean.double(), spread
        self.first: Tensor | None = None

    def predict(self, x_t: Tensor, log_snr: Tensor, *condition: Any) -> Prediction:
        """Predict as a U-Net would; the first sample that it is shown stays in `first`."""
        self.first = x_t if self.first is None else self.first
        alpha, sigma = (float(value[0]) for value in alpha_sigma(log_snr.double()))
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        x_0 = self.mean + gain * (x_t.double() - alpha * self.mean)
        return Prediction(from_x_0(x_0, x_t, alpha, sigma, self.noise_process.prediction_type).float())

    def after(self, x_0: Tensor) -> "Gaussian":
        """Go on as before."""
        return self


def sample(model: Gaussian, scheduler: Any, steps: int, thresholding: str) -> tuple[Tensor, tuple[float, float]]:
    """Draw, and give the pictures and the noise level that sampling started from."""
    bridge = bridge_for(scheduler)
    generator = torch.Generator().manual_seed(0)
    timesteps = bridge.set_timesteps(steps, "cpu")
    level = bridge.noise_level(timesteps[0])
    noise = torch.randn(SHAPE, generator=generator) * bridge.init_noise_sigma
    text = torch.zeros(SHAPE[0], 1, 1)
    condition = StageCondition(text, text[..., 0] == 0, text, text[..., 0] == 0)
    settings = StageSettings(guidance_scale=1.0, thresholding=thresholding)
    control = StepControl(lambda: 1.0, lambda index, timestep, latents: latents, lambda: False)
    drawn = denoise_stage(model, bridge, timesteps, noise, condition, settings, control, generator)
    return drawn, level


def figure(case: Case, steps: int, prediction_type: str = "v_prediction", own_type: str | None = None) -> float:
    """Give the error of a deterministic sampler or the spread of a stochastic one."""
    model = Gaussian(torch.tensor(MEAN), SPREAD, prediction_type)
    drawn, (alpha, sigma) = sample(model, case.scheduler(own_type), steps, "none")
    if case.reference is None:
        return float(drawn.std()) / SPREAD
    norm = math.hypot(alpha, sigma)
    alpha, sigma = alpha / norm, sigma / norm
    exact = MEAN + SPREAD * (model.first.double() - alpha * MEAN) / math.hypot(alpha * SPREAD, sigma)
    return float((drawn - exact).square().mean().sqrt()) / SPREAD


def threshold_error(case: Case, steps: int = 50) -> float:
    """Give the largest distance from exactly thresholded data that lie beyond [-1, 1]."""
    data = torch.rand(SHAPE, generator=torch.Generator().manual_seed(7)) * 6 - 3
    drawn, _ = sample(Gaussian(data, 0.0, "v_prediction"), case.scheduler(), steps, "dynamic")
    return float((drawn - dynamic_threshold(data)).abs().max())


def judged(case: Case, figures: list[float]) -> str:
    """Say whether the limits hold: no worse than the reference and falling, or a spread within 20 % and nearing 1."""
    if case.reference is None:
        misses = [abs(value - 1) for value in figures]
        good = misses[1] <= 0.2 and (misses[-1] <= misses[1] or misses[-1] < 0.02)
    else:
        # The references are rounded to three digits and come from other noise.
        falling = all(after < before or after <= 0.02 for before, after in itertools.pairwise(figures))
        good = figures[1] <= case.reference * 1.05 + 0.002 and falling
    return "" if good else f"exception: {case.exception}" if case.exception else "OUT OF LIMITS"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every scheduler on a model whose answer is known.")
    parser.add_argument("--only", help="only classes whose name begins so")
    parser.add_argument("--prediction-types", action="store_true", help="all of them, at 50 steps")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    cases = [case for case in CASES if case.name.startswith(arguments.only or "")]
    started = time.perf_counter()
    if arguments.prediction_types:
        print_prediction_types(cases)
    else:
        print_steps(cases)
    print(f"{len(cases)} cases in {time.perf_counter() - started:.0f} s, {torch.get_num_threads()} threads")


def print_steps(cases: list[Case]) -> None:
    print(f"{'scheduler':66}{''.join(f'{steps:>8}' for steps in STEPS)}{'before':>8}{'threshold':>11}")
    for case in cases:
        figures = [figure(case, steps) for steps in STEPS]
        before = "spread" if case.reference is None else f"{case.reference:.3f}"
        numbers = "".join(f"{value:8.3f}" for value in figures)
        verdict = judged(case, figures)
        print(f"{case.label:66}{numbers}{before:>8}{threshold_error(case):11.0e}  {verdict}", flush=True)


def print_prediction_types(cases: list[Case]) -> None:
    print(f"{'scheduler, 50 steps':66} figures: model {', '.join(PREDICTION_TYPES)}; scheduler eps, x_0, v")
    for case in cases:
        figures = [figure(case, 50, kind) for kind in PREDICTION_TYPES]
        if "prediction_type" not in case.settings:
            figures += [figure(case, 50, own_type=kind) for kind in ("epsilon", "sample", "v_prediction")]
        print(f"{case.label:66}{''.join(f'{value:8.3f}' for value in figures)}", flush=True)


if __name__ == "__main__":
    main()
