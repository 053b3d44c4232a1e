"""Every scheduler in the cascade's own loop and pipeline: what the U-Net is told, callbacks, swapping, saving."""

import math

import diffusers
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule
from diffusers_imagen.models.stage_model import Prediction
from diffusers_imagen.pipelines.denoise_stage import StageCondition, StepControl, denoise_stage
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.schedulers.bridge import bridge_for
from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven

DRIVEN = [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Driven)]
every_class = pytest.mark.parametrize("name", DRIVEN)


class Listener:
    """A model of black pictures that keeps what it is told."""

    predicts_variance = False
    noise_process = NoiseProcess("sample", NoiseSchedule())

    def __init__(self):
        self.calls = []

    def predict(self, x_t, log_snr, text, text_mask, low_res=None, noise_level=None):
        self.calls.append((x_t, log_snr, low_res, noise_level))
        return Prediction(torch.zeros_like(x_t))

    def after(self, x_0):
        return self


@every_class
def test_the_small_picture_reaches_the_model_bit_by_bit_and_only_the_noisy_one_is_scaled(make_scheduler, name):
    bridge, model = bridge_for(make_scheduler(name)), Listener()
    generator = torch.Generator().manual_seed(0)
    timesteps = bridge.set_timesteps(200 if name == "ScoreSdeVeScheduler" else 6, "cpu")
    noise = torch.randn(2, 3, 16, 16, generator=generator) * bridge.init_noise_sigma
    low_res, level = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1, torch.tensor([0.1, 0.2])
    mask = torch.ones(2, 1, dtype=torch.bool)
    condition = StageCondition(torch.ones(2, 1, 4), mask, torch.ones(2, 1, 4), ~mask, low_res.clone(), level.clone())
    control = StepControl(lambda: 2.0, lambda index, timestep, sample: sample, lambda: False)
    denoise_stage(model, bridge, timesteps, noise, condition, StageSettings(), control, generator)
    assert len(model.calls) == len(timesteps)
    for x_t, log_snr, told_low_res, told_level in model.calls:
        assert torch.equal(told_low_res, torch.cat([low_res, low_res]))
        assert torch.equal(told_level, torch.cat([level, level]))
        # Of black pictures there is only noise, and it has the size that the model is told.
        expected = float(torch.sigmoid(-log_snr[0]).sqrt())
        assert float(x_t.std()) == pytest.approx(expected, rel=0.2)


@every_class
def test_every_stage_draws_with_it_and_callbacks_change_the_sample_at_every_step(make_cascade, make_scheduler, name):
    scheduler = make_scheduler(name)
    pipe = make_cascade(2, scheduler=scheduler, sr_scheduler_1=make_scheduler("DDIMScheduler"))
    pipe.sr_scheduler_1 = scheduler  # one scheduler for both stages, one after the other
    seen = []

    def darken(running, step, timestep, tensors):
        seen.append((step, tuple(tensors["latents"].shape)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    steps = {"base": 4, "sr_1": 4}
    plain = pipe("a cat", num_inference_steps=steps, generator=torch.Generator().manual_seed(0), output_type="latent")
    assert all(picture.isfinite().all() and picture.abs().max() > 0.1 for picture in plain.stages.values())
    dark = pipe("a cat", num_inference_steps=steps, callback_on_step_end=darken, output_type="latent")
    assert [step for step, _ in seen] == list(range(pipe.num_timesteps))
    assert {shape for _, shape in seen} == {(1, 3, 8, 8), (1, 3, 16, 16)}
    assert all(picture.abs().max() == 0 for picture in dark.stages.values())


class Brighten(PipelineCallback):
    tensor_inputs = ["latents"]  # noqa: RUF012 (as Diffusers' own callbacks have it)

    def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
        callback_kwargs["latents"] = callback_kwargs["latents"] + 1
        return callback_kwargs


class WantsPrompt(Brighten):
    tensor_inputs = ["prompt_embeds"]  # noqa: RUF012


def test_callbacks_of_diffusers_say_themselves_what_they_get(cascade, seeded):
    def drawn(callback):
        return cascade(
            "a cat",
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=[],
            generator=seeded(0),
            output_type="latent",
        ).images

    one = drawn(Brighten())
    assert float((one - drawn(None)).mean()) > 0.5
    assert float((drawn(MultiPipelineCallbacks([Brighten(), Brighten()])) - one).mean()) > 0.5
    with pytest.raises(ValueError, match="`callback_on_step_end_tensor_inputs` holds 'prompt_embeds'"):
        drawn(WantsPrompt())


def test_a_scheduler_swapped_in_the_middle_of_a_call_is_used_in_the_next(cascade, seeded):
    def swap(pipe, step, timestep, tensors):
        pipe.scheduler = diffusers.UniPCMultistepScheduler()

    expected = cascade("a cat", generator=seeded(0), output_type="latent").images
    swapped = cascade("a cat", generator=seeded(0), output_type="latent", callback_on_step_end=swap).images
    assert torch.equal(swapped, expected)
    after = cascade("a cat", generator=seeded(0), output_type="latent").images
    assert after.isfinite().all()
    assert not torch.equal(after, expected)


@pytest.mark.parametrize(
    "chain",
    [
        ["DDIM", "EulerAncestralDiscrete", "UniPCMultistep", "HeunDiscrete", "DDPM"],
        ["DPMSolverMultistep", "PNDM", "KDPM2Discrete", "UniPCMultistep", "LMSDiscrete"],
        ["FlowMatchEulerDiscrete", "LTXEulerAncestralRF", "FlowMapEulerDiscrete", "DDIM", "SCM"],
        ["UnCLIP", "LCM", "TCD", "DEISMultistep", "EulerDiscrete"],
        ["EDMEuler", "EDMDPMSolverMultistep", "IPNDM", "CogVideoXDDIM", "SASolver"],
    ],
)
def test_five_schedulers_made_one_from_another_all_draw(make_cascade, tmp_path, chain):
    pipe = make_cascade(1)
    process = pipe.unet.noise_process
    for name in chain:
        pipe.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(pipe.scheduler.config)
        drawn = pipe("a cat", num_inference_steps=5, output_type="latent").images
        assert drawn.isfinite().all()
        assert 0.1 < float(drawn.abs().max()) <= 2.0
        assert pipe.unet.noise_process == process


@every_class
def test_a_cascade_saved_with_another_scheduler_draws_the_same_when_loaded(
    make_cascade, make_scheduler, name, tmp_path
):
    pipe = make_cascade(1, scheduler=make_scheduler(name))
    draw = {"prompt": "a cat", "num_inference_steps": 4, "output_type": "latent"}
    expected = pipe(**draw, generator=torch.Generator().manual_seed(0)).images
    pipe.save_pretrained(tmp_path)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.scheduler).__name__ == name
    assert loaded.unet.noise_process == pipe.unet.noise_process
    assert torch.equal(loaded(**draw, generator=torch.Generator().manual_seed(0)).images, expected)


@pytest.mark.parametrize(
    ("scheduler", "steps", "message"),
    [
        (
            diffusers.RePaintScheduler(),
            4,
            "`scheduler` cannot drive the stage 'base': .* fills holes .* DDPMScheduler",
        ),
        (diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction"), 4, "use_flow_sigmas=True too"),
        (diffusers.DDIMScheduler(rescale_betas_zero_snr=True), 4, 'zero signal-to-noise .*"v_prediction"'),
        (diffusers.DDIMScheduler(), 1001, "The steps of 'base' .* 1000 noise levels; give 1000 or fewer"),
        (diffusers.UniPCMultistepScheduler(timestep_spacing="leading"), 1000, "do not fall from step to step"),
        (diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 4, "use_dynamic_shifting=False"),
    ],
)
def test_nonsense_is_refused_before_any_model_runs(make_cascade, scheduler, steps, message):
    pipe = make_cascade(1, scheduler=scheduler)

    def fail(*_):
        raise AssertionError("a model was run")

    handles = [model.register_forward_pre_hook(fail) for model in (pipe.unet, pipe.text_encoder)]
    try:
        with pytest.raises(ValueError, match=message):
            pipe("a cat", num_inference_steps=steps)
    finally:
        for handle in handles:
            handle.remove()


def test_the_level_that_the_model_is_told_is_the_one_of_the_bridge(make_scheduler):
    bridge, model = bridge_for(make_scheduler("FlowMatchEulerDiscreteScheduler")), Listener()
    timesteps = bridge.set_timesteps(4, "cpu")
    mask = torch.ones(1, 1, dtype=torch.bool)
    condition = StageCondition(torch.ones(1, 1, 4), mask, torch.ones(1, 1, 4), ~mask)
    control = StepControl(lambda: 1.0, lambda index, timestep, sample: sample, lambda: False)
    denoise_stage(model, bridge, timesteps, torch.randn(1, 3, 8, 8), condition, StageSettings(), control)
    told = [float(log_snr[0]) for _, log_snr, *_ in model.calls]
    sigmas = [float(sigma) for sigma in bridge.scheduler.sigmas[:-1]]
    expected = [-15.0, *(2 * math.log((1 - sigma) / sigma) for sigma in sigmas[1:])]
    assert told == pytest.approx(expected, rel=1e-5)
