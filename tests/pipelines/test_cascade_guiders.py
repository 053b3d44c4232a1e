"""Guiders in whole pictures: against our own guidance, in every stage, in split batches, saved, and refused."""

import math
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image, DDIMScheduler, DiffusionPipeline, HeunDiscreteScheduler
from diffusers.guiders.adaptive_projected_guidance import AdaptiveProjectedGuidance
from diffusers.guiders.adaptive_projected_guidance_mix import AdaptiveProjectedMixGuidance
from diffusers.guiders.auto_guidance import AutoGuidance
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.guiders.classifier_free_zero_star_guidance import ClassifierFreeZeroStarGuidance
from diffusers.guiders.frequency_decoupled_guidance import FrequencyDecoupledGuidance
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.guiders.magnitude_aware_guidance import MagnitudeAwareGuidance
from diffusers.guiders.perturbed_attention_guidance import PerturbedAttentionGuidance
from diffusers.guiders.skip_layer_guidance import SkipLayerGuidance
from diffusers.guiders.smoothed_energy_guidance import SmoothedEnergyGuidance
from diffusers.guiders.tangential_classifier_free_guidance import TangentialClassifierFreeGuidance
from diffusers.hooks.smoothed_energy_guidance_utils import SmoothedEnergyGuidanceConfig
from diffusers.utils import logging

from diffusers_imagen.guiders.catalogue import GUIDERS, Driven
from diffusers_imagen.guiders.unet_auto_guidance import UNetAutoGuidance
from diffusers_imagen.pipelines.guider_plan import plan_guider
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

logging.set_verbosity_error()
SKIP = {"indices": [0], "fqn": "mid_blocks"}
SMOOTH = SmoothedEnergyGuidanceConfig([0], "mid_blocks")
MADE = {
    "AdaptiveProjectedGuidance": lambda unet: AdaptiveProjectedGuidance(4.0, -0.5, 3.0, eta=0.5),
    "AdaptiveProjectedMixGuidance": lambda unet: AdaptiveProjectedMixGuidance(
        adaptive_projected_guidance_start_step=0
    ),
    "AutoGuidance": lambda unet: AutoGuidance(3.0, auto_guidance_config=SKIP),
    "ClassifierFreeGuidance": lambda unet: ClassifierFreeGuidance(4.0, 0.3),
    "ClassifierFreeZeroStarGuidance": lambda unet: ClassifierFreeZeroStarGuidance(4.0),
    "MagnitudeAwareGuidance": lambda unet: MagnitudeAwareGuidance(4.0, 2.0),
    "PerturbedAttentionGuidance": lambda unet: PerturbedAttentionGuidance(
        3.0, 2.0, 0.0, 1.0, perturbed_guidance_config=dict(SKIP, skip_attention=False, skip_attention_scores=True)
    ),
    "SkipLayerGuidance": lambda unet: SkipLayerGuidance(3.0, 2.0, 0.0, 1.0, skip_layer_config=SKIP),
    "SmoothedEnergyGuidance": lambda unet: SmoothedEnergyGuidance(3.0, 2.0, seg_guidance_config=SMOOTH),
    "TangentialClassifierFreeGuidance": lambda unet: TangentialClassifierFreeGuidance(4.0),
    "UNetAutoGuidance": lambda unet: UNetAutoGuidance(unet, 3.0),
}
every_guider = pytest.mark.parametrize("name", MADE)
BOTH = {"base": 4, "sr_1": 4}


@pytest.fixture(scope="module")
def worse_unet(cascade_parts: dict[str, Any]) -> Any:
    """Give a U-Net like the base with smaller weights."""
    unet = type(cascade_parts["unet"]).from_config(cascade_parts["unet"].config)
    weights = {key: 0.7 * value for key, value in cascade_parts["unet"].state_dict().items()}
    unet.load_state_dict(weights)
    return unet.eval()


def draw(pipe: Any, prompt: Any = "a red cat", seeds: tuple[int, ...] = (0,), **options: Any) -> Any:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(prompt, generator=generators, output_type="latent", **options)


def batches(calls: list[Any], name: str = "unet") -> list[int]:
    return [len(arguments["sample"]) for component, arguments in calls if component == name]


def test_all_that_are_driven_are_tried_here_but_the_one_without_its_package():
    driven = {name: verdict for name, verdict in GUIDERS.items() if isinstance(verdict, Driven)}
    assert set(MADE) == {name for name, verdict in driven.items() if not verdict.needs}


@pytest.mark.parametrize("settings", [{}, {"rescale": 0.7}, {"interval": (0.25, 0.75)}])
def test_plain_guidance_is_that_of_diffusers(cascade, settings):
    rescale, interval = settings.get("rescale", 0.0), settings.get("interval", (0.0, 1.0))
    ours = {"guidance_scale": 3.0, "guidance_rescale": rescale, "guidance_interval": interval}
    guider = ClassifierFreeGuidance(3.0, rescale, start=interval[0], stop=interval[1])
    ours = {name: dict.fromkeys(BOTH, value) for name, value in ours.items()}
    expected = draw(cascade, num_inference_steps=BOTH, **ours).stages
    drawn = draw(cascade, num_inference_steps=BOTH, guider=dict.fromkeys(BOTH, guider)).stages
    for name, picture in expected.items():
        torch.testing.assert_close(drawn[name], picture, rtol=0, atol=3e-6)
    plain = draw(cascade, num_inference_steps=BOTH, guidance_scale=dict.fromkeys(BOTH, 1.0)).stages
    assert float((expected["base"] - plain["base"]).abs().max()) > 0.01


@every_guider
def test_the_same_call_twice_gives_the_same_pictures_and_leaves_the_guider_as_it_was(cascade, worse_unet, name):
    guider = MADE[name](worse_unet)
    before = dict(vars(guider))
    first, second = (draw(cascade, num_inference_steps=4, guider=guider).images for _ in range(2))
    assert torch.equal(first, second)
    assert vars(guider) == before
    assert first.isfinite().all()
    assert not torch.equal(first, draw(cascade, num_inference_steps=4, guidance_scale=1.0).images)


@every_guider
def test_pictures_do_not_depend_on_how_a_batch_is_split(cascade, worse_unet, name):
    guider, prompts = MADE[name](worse_unet), ["a cat", "a dog", "a red hat"]

    def drawn(size: int | None) -> torch.Tensor:
        options = {"num_inference_steps": 4, "stop_stage": "base", "max_batch_size": size}
        return draw(cascade, prompts, (0, 1, 2), guider=guider, **options).images

    whole = drawn(None)
    for size in (1, 2):
        # Not to the bit: a network's sums depend on how many pictures it gets.
        torch.testing.assert_close(drawn(size), whole, rtol=0, atol=1e-4)


@every_guider
def test_a_step_of_two_evaluations_is_guided_at_each(make_cascade, record_calls, worse_unet, name):
    pipe = make_cascade(1, scheduler=HeunDiscreteScheduler(beta_schedule="squaredcos_cap_v2"))
    calls, worse = record_calls(pipe), []
    handle = worse_unet.register_forward_pre_hook(lambda *_: worse.append(1))
    drawn = draw(pipe, num_inference_steps=3, guider=MADE[name](worse_unet)).images
    handle.remove()
    assert drawn.isfinite().all()
    assert pipe.num_timesteps == 5
    expected = {"AutoGuidance": [1] * 10, "UNetAutoGuidance": [1] * 5}
    # Diffusers leaves the layers in at the first evaluation, whatever the interval says.
    late = ("SkipLayerGuidance", "PerturbedAttentionGuidance", "SmoothedEnergyGuidance")
    expected |= {key: [2, *([2, 1] * 4)] for key in late}
    assert batches(calls) == expected.get(name, [2] * 5)
    assert len(worse) == (5 if name == "UNetAutoGuidance" else 0)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((0.0, 1.0), [2, 2, 2, 2]), ((0.25, 0.75), [1, 2, 2, 1]), ((0.5, 0.5), [1] * 4), ((0.0, 0.3), [2, 1, 1, 1])],
)
@pytest.mark.parametrize("guider_class", [ClassifierFreeGuidance, AdaptiveProjectedGuidance])
def test_outside_its_interval_a_guider_costs_nothing(cascade, record_calls, guider_class, interval, expected):
    calls = record_calls(cascade)
    guider = guider_class(3.0, start=interval[0], stop=interval[1])
    draw(cascade, num_inference_steps=4, guider=guider, stop_stage="base")
    assert batches(calls) == expected


def test_stages_have_guiders_of_their_own_and_one_may_serve_both(cascade, record_calls):
    calls = record_calls(cascade)
    momentum = AdaptiveProjectedGuidance(4.0, -0.75, 3.0)
    zero_star = ClassifierFreeZeroStarGuidance(3.0)
    both = draw(cascade, num_inference_steps=BOTH, guider={"base": momentum, "sr_1": momentum}).stages
    assert batches(calls, "sr_unet_1") == [2] * 4
    mixed = draw(cascade, num_inference_steps=BOTH, guider={"base": momentum, "sr_1": zero_star}).stages
    alone = draw(cascade, num_inference_steps=BOTH, guider=momentum).stages
    assert torch.equal(both["base"], mixed["base"])
    assert torch.equal(both["base"], alone["base"])
    assert len({float(stages["sr_1"].sum()) for stages in (both, mixed, alone)}) == 3
    # What the base left in its guider would show in the enlargement.
    small = (both["base"] + 1) / 2
    again = draw(cascade, num_inference_steps=BOTH, guider={"sr_1": momentum}, image=small)
    fresh = AdaptiveProjectedGuidance(4.0, -0.75, 3.0)
    assert torch.equal(
        again.images, draw(cascade, num_inference_steps=BOTH, guider={"sr_1": fresh}, image=small).images
    )


def test_a_worse_u_net_gets_the_text_and_the_better_one_is_moved_away_from_it(make_cascade, record_calls, worse_unet):
    pipe = make_cascade(1)
    seen = []
    handle = worse_unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((*args, kwargs["encoder_attention_mask"])), with_kwargs=True
    )
    calls = record_calls(pipe)
    options = {"num_inference_steps": 1, "thresholding": "none", "stop_stage": "base"}
    guided = draw(pipe, negative_prompt="a dog", guider=UNetAutoGuidance(worse_unet, 2.5), **options).images
    handle.remove()
    (good,) = (arguments for name, arguments in calls if name == "unet")
    assert torch.equal(seen[0][0], good["sample"])
    assert torch.equal(seen[0][2], good["encoder_hidden_states"])
    assert torch.equal(seen[0][3], good["encoder_attention_mask"])
    pair = []
    for unet in (pipe.unet, worse_unet):
        pair.append(draw(make_cascade(1, unet=unet), guidance_scale=1.0, **options).images)
    torch.testing.assert_close(guided, pair[1] + 2.5 * (pair[0] - pair[1]), rtol=0, atol=1e-4)
    assert float((pair[0] - pair[1]).abs().max()) > 0.05


def test_a_skipped_layer_is_what_a_u_net_without_it_would_predict(make_cascade):
    pipe = make_cascade(1)
    skip = {"skip_layer_config": SKIP, "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    # Diffusers leaves them out after the first step only, so there are two, of which the second one's starts are alike.
    steps = {"num_inference_steps": 2, "thresholding": "none"}
    first: list[torch.Tensor] = []

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> None:
        first.append(tensors["latents"])

    guided = draw(pipe, guider=SkipLayerGuidance(1.0, 3.0, **skip), callback_on_step_end=keep, **steps).images
    plain = draw(pipe, guidance_scale=1.0, **steps).images
    handle = pipe.unet.mid_blocks[0].register_forward_hook(lambda module, args, output: args[0])

    def back(_: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"latents": first[0] if step == 0 else tensors["latents"]}

    without = draw(pipe, guidance_scale=1.0, callback_on_step_end=back, **steps).images
    handle.remove()
    torch.testing.assert_close(guided, without + 3.0 * (plain - without), rtol=0, atol=1e-4)
    assert float((plain - without).abs().max()) > 0.05


def test_callbacks_change_samples_and_guiders(cascade):
    guider = ClassifierFreeGuidance(3.0)
    plain = draw(cascade, num_inference_steps=3, guider=guider, stop_stage="base").images
    seen = []

    def off(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(pipe.guidance_scale)
        guider.disable()
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else {}

    stopped = draw(cascade, num_inference_steps=3, guider=guider, stop_stage="base", callback_on_step_end=off).images
    assert seen == [3.0] * 3
    assert float(stopped.abs().max()) == 0.0
    assert not torch.equal(plain, stopped)
    assert torch.equal(
        draw(cascade, num_inference_steps=3, guider=guider, stop_stage="base").images,
        draw(cascade, num_inference_steps=3, guidance_scale=1.0, stop_stage="base").images,
    )


@every_guider
def test_a_saved_guider_guides_when_loaded(make_cascade, worse_unet, name, tmp_path):
    pipe = make_cascade(1)
    # Set later, where Diffusers would note that there is none.
    pipe.guider = MADE[name](worse_unet)
    expected = draw(pipe).images
    pipe.save_pretrained(tmp_path)
    for pipeline_class in (ImagenCascadePipeline, DiffusionPipeline):
        loaded = pipeline_class.from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        assert type(loaded.guider).__name__ == name
        assert torch.equal(draw(loaded).images, expected)


@pytest.mark.parametrize("pipeline_class", [ImagenCascadePipeline, DiffusionPipeline])
def test_a_saved_guider_is_replaced_or_left_out_while_loading(make_cascade, pipeline_class, tmp_path):
    make_cascade(1, guider=ClassifierFreeGuidance(6.0)).save_pretrained(tmp_path)
    for guider in (None, AdaptiveProjectedGuidance(2.0)):
        loaded = pipeline_class.from_pretrained(tmp_path, guider=guider)
        loaded.set_progress_bar_config(disable=True)
        assert loaded.guider is guider
        assert torch.equal(draw(loaded).images, draw(make_cascade(1, guider=guider)).images)


@pytest.mark.parametrize("pipeline_class", [ImagenCascadePipeline, DiffusionPipeline])
def test_a_cascade_that_was_saved_before_there_were_guiders_loads(make_cascade, pipeline_class, tmp_path):
    pipe = make_cascade(1)
    pipe.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    text = index.read_text()
    old = "".join(part for part in text.split('  "guider": [\n    null,\n    null\n  ],\n'))
    assert len(old) < len(text)
    index.write_text(old)
    guider = ClassifierFreeGuidance(6.0)
    for given in ({}, {"guider": guider}):
        loaded = pipeline_class.from_pretrained(tmp_path, **given)
        loaded.set_progress_bar_config(disable=True)
        assert loaded.guider is given.get("guider")
        assert torch.equal(draw(loaded).images, draw(make_cascade(1, guider=given.get("guider"))).images)


def test_a_guider_goes_along_to_another_pipeline(make_cascade):
    pipe = make_cascade(1, guider=ClassifierFreeGuidance(6.0))
    parts = ImagenCascadePipeline(**pipe.components)
    for again in (ImagenCascadePipeline.from_pipe(pipe), AutoPipelineForText2Image.from_pipe(pipe), parts):
        assert again.guider is pipe.guider
        again.set_progress_bar_config(disable=True)
        assert torch.equal(draw(again).images, draw(pipe).images)
    assert ImagenCascadePipeline.from_pipe(pipe, guider=None).guider is None


def test_a_pipelines_guider_is_for_the_base_and_a_call_may_do_without(make_cascade):
    pipe, plain = make_cascade(2, guider=ClassifierFreeGuidance(6.0)), make_cascade(2)
    stages = {"base": {"guidance_scale": 6.0}}
    six = make_cascade(2, settings={**plain.config.stages, "base": plain.config.stages["base"] | stages["base"]})
    torch.testing.assert_close(draw(pipe).images, draw(six).images, rtol=0, atol=1e-5)
    assert torch.equal(draw(pipe, guider={"base": None}).images, draw(plain).images)
    without = draw(pipe, guider={"base": None}, guidance_scale=2.0).images
    assert torch.equal(without, draw(plain, guidance_scale=2.0).images)
    assert not torch.equal(draw(pipe, guider={"sr_1": ClassifierFreeGuidance(3.0)}).images, draw(pipe).images)


def nothing_runs(pipe: Any) -> Any:
    def fail(*_: Any) -> None:
        raise AssertionError("a model was run")

    return [model.register_forward_pre_hook(fail) for model in (pipe.unet, pipe.text_encoder)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guider": 3.0}, "`guider` is 3.0 for 'base'; give a guider of Diffusers"),
        ({"guider": ClassifierFreeGuidance}, "`guider` is <class .* for 'base'; give a guider of Diffusers"),
        (
            {"guider": {"sr_2": ClassifierFreeGuidance()}},
            "`guider` names the stage 'sr_2', but the stages are base, sr_1",
        ),
        (
            {"guider": ClassifierFreeGuidance(), "guidance_scale": 3.0},
            "`guidance_scale` is 3.0 for 'base', which is guided by a ClassifierFreeGuidance .* `guider={'base': None}`",
        ),
        (
            {"guider": ClassifierFreeGuidance(), "guidance_rescale": {"base": 0.5}},
            "`guidance_rescale` is 0.5 for 'base'",
        ),
        (
            {"guider": {"sr_1": ClassifierFreeGuidance()}, "guidance_interval": {"sr_1": (0.0, 0.5)}},
            r"`guidance_interval` is \(0.0, 0.5\) for 'sr_1'",
        ),
        (
            {"guider": SkipLayerGuidance(skip_layer_guidance_layers=[0])},
            r"`guider` \(SkipLayerGuidance\) cannot guide 'base': `fqn` is 'auto', but the U-Net's lists of blocks are",
        ),
        (
            {"guider": AutoGuidance(auto_guidance_config=SKIP | {"indices": [7]})},
            r"`guider` \(AutoGuidance\) cannot guide 'base': `indices` is \[7\]",
        ),
        ({"guider": AutoGuidance(auto_guidance_config=SKIP | {"dropout": 0.5})}, "it skips parts of blocks"),
        ({"guider": SkipLayerGuidance(skip_layer_config=SKIP | {"skip_ff": False})}, "it skips parts of blocks"),
        (
            {"guider": SmoothedEnergyGuidance(seg_blur_sigma=0.0, seg_guidance_config=SMOOTH)},
            "`seg_blur_sigma` is 0.0; give a number above 0",
        ),
        ({"guider": UNetAutoGuidance()}, "`unet` is a NoneType; give a worse U-Net"),
        ({"guider": ClassifierFreeGuidance(math.nan)}, "`guidance_scale` is nan; give a finite number"),
        ({"guider": ClassifierFreeGuidance("5")}, "`guidance_scale` is '5'; give a finite number"),
        ({"guider": AdaptiveProjectedGuidance(10.0, eta=math.inf)}, "`eta` is inf; give a finite number"),
        ({"guider": ClassifierFreeGuidance(5.0, guidance_rescale=5.0)}, "`guidance_rescale` is 5.0; give .* 0 to 1"),
        (
            {"guider": ClassifierFreeZeroStarGuidance(zero_init_steps=3)},
            "`zero_init_steps` of the guider is 3, but 'base' makes 3 steps",
        ),
        (
            {"guider": ClassifierFreeZeroStarGuidance(), "num_inference_steps": 1},
            "`zero_init_steps` of the guider is 1, but 'base' makes 1 steps",
        ),
    ],
)
def test_nonsense_is_refused_before_any_model_runs(cascade, options, message):
    handles = nothing_runs(cascade)
    try:
        with pytest.raises(ValueError, match=message):
            cascade("a cat", **options)
    finally:
        for handle in handles:
            handle.remove()


def test_a_setting_of_the_call_beside_the_pipelines_own_guider_is_refused(make_cascade):
    pipe = make_cascade(1, guider=ClassifierFreeGuidance(6.0))
    with pytest.raises(ValueError, match=r"`guidance_scale` is 3.0 for 'base', which is guided by a ClassifierFree"):
        pipe("a cat", guidance_scale=3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low_res_channels": 3}, "`unet` has `low_res_channels` 3, but the stage's U-Net 0"),
        ({"encoder_hid_dim": 8}, "`unet` has `encoder_hid_dim` 8, but the stage's U-Net 16"),
        ({"text_max_length": 5}, "`unet` takes 5 tokens, but the stage's U-Net 12"),
        ({"sample_size": 16, "patch_size": 8}, "`unet` draws multiples of 16 pixels, not 8 x 8"),
    ],
)
def test_a_worse_u_net_that_does_not_fit_is_refused(cascade, cascade_parts, changes, message):
    unet = type(cascade_parts["unet"]).from_config(cascade_parts["unet"].config, **changes)
    with pytest.raises(ValueError, match=message):
        cascade("a cat", guider=UNetAutoGuidance(unet))


def test_a_worse_u_net_elsewhere_is_refused_and_one_in_another_precision_is_not(cascade, cascade_parts):
    unet = type(cascade_parts["unet"]).from_config(cascade_parts["unet"].config)
    with pytest.raises(ValueError, match=r"`unet` is on meta, but the stage's U-Net on cpu; move it: .*to\('cpu'\)"):
        cascade("a cat", guider=UNetAutoGuidance(unet.to("meta")))
    half = type(unet).from_config(unet.config).to(torch.bfloat16)
    assert draw(cascade, guider=UNetAutoGuidance(half)).images.dtype is torch.float32


@pytest.mark.parametrize(
    "settings", [{"guidance_scales": [5.0, 1.0]}, {"guidance_scales": [5.0, 3.0], "stop": [1.0, 0.5]}]
)
def test_frequencies_that_diffusers_would_confuse_are_refused(cascade, monkeypatch, settings):
    monkeypatch.setattr("diffusers.guiders.frequency_decoupled_guidance._CAN_USE_KORNIA", True)
    guider = FrequencyDecoupledGuidance(**settings)
    with pytest.raises(ValueError, match=r"cannot guide 'base': `guidance_scales` is \[5.0, .* confuses the levels"):
        cascade("a cat", guider=guider)


def test_a_guider_that_changes_the_u_net_in_its_own_way_is_refused(cascade):
    class Mine(BaseGuidance):
        _input_predictions = ["pred_cond"]  # noqa: RUF012 (as Diffusers' own guiders have it)

        def prepare_models(self, denoiser: Any) -> None:
            denoiser.conv_out = None

    with pytest.raises(ValueError, match="`guider` is a Mine for 'base', which changes the U-Net in `prepare_models`"):
        cascade("a cat", guider=Mine())


@pytest.mark.parametrize("name", ["AutoGuidance", "PerturbedAttentionGuidance", "UNetAutoGuidance"])
def test_a_u_net_of_another_kind_cannot_be_made_worse(worse_unet, name):
    with pytest.raises(
        ValueError, match=r"it makes the U-Net worse, which is known for this package's own .* Identity"
    ):
        plan_guider("base", MADE[name](worse_unet), torch.nn.Identity(), (8, 8))


def test_one_scheduler_and_guider_reach_the_enlargement_with_its_small_picture(make_cascade, record_calls):
    pipe = make_cascade(2, sr_scheduler_1=DDIMScheduler())
    calls = record_calls(pipe)
    draw(pipe, guider={"sr_1": TangentialClassifierFreeGuidance(3.0)})
    seen = [arguments for name, arguments in calls if name == "sr_unet_1"]
    assert all(torch.equal(*arguments["low_res"].chunk(2)) for arguments in seen)
    assert {len(arguments["sample"]) for arguments in seen} == {2}


def test_momentum_may_be_none_where_the_class_has_some_by_default(cascade):
    def draw(momentum: float | None) -> torch.Tensor:
        guider = AdaptiveProjectedMixGuidance(
            adaptive_projected_guidance_momentum=momentum, adaptive_projected_guidance_start_step=0
        )
        generator = torch.Generator().manual_seed(0)
        return cascade("a cat", guider=guider, num_inference_steps=BOTH, generator=generator, output_type="pt").images

    assert (draw(None) - draw(0.0)).abs().max() < 1e-6
    assert (draw(None) - draw(-0.5)).abs().max() > 1e-6
