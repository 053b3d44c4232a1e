"""DeepFloyd IF's pipelines as one cascade: the same pictures from the same generator, then with any scheduler."""

import shutil

import diffusers
import pytest
import torch
from diffusers.pipelines.deepfloyd_if import smart27_timesteps
from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker
from diffusers.pipelines.deepfloyd_if.watermark import IFWatermarker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil

from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

LAYOUTS = ("two levels", "released levels", "text of the same width")
STEPS = {"base": 3, "sr_1": 2}
# Carried over in the documented way, X.from_config(pipe.scheduler.config), all of these raise in IF's pipelines.
RAISE_THERE = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)


def cascade_of(pipes, **options):
    pipe = ImagenCascadePipeline.from_deepfloyd_if(*pipes, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def in_two_calls(pipes, prompt, generator, steps=STEPS, **arguments):
    """Draw as Diffusers' documentation of IF does it, each stage's raw tensors in [-1, 1] passed to the next."""
    positive, negative = pipes[0].encode_prompt(prompt, negative_prompt=arguments.pop("negative_prompt", None))
    shared = {"prompt_embeds": positive, "negative_prompt_embeds": negative, "generator": generator} | arguments
    base = pipes[0](**shared, num_inference_steps=steps["base"], output_type="pt").images
    shared["num_images_per_prompt"] = 1
    count = len(base) // len(positive)
    shared |= {
        f"{name}_embeds": shared[f"{name}_embeds"].repeat_interleave(count, 0)
        for name in ("prompt", "negative_prompt")
    }
    large = pipes[1](image=base, **shared, num_inference_steps=steps["sr_1"], output_type="pt").images
    return base, large


def worst(found, expected):
    """Return the largest difference in [0, 1], where pictures are shown."""
    return float(((found / 2 + 0.5).clamp(0, 1) - (expected / 2 + 0.5).clamp(0, 1)).abs().max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cascade_draws_what_ifs_pipelines_draw_from_the_same_generator(deepfloyd, seeded, layout):
    pipes = deepfloyd(2, layout)
    base, large = in_two_calls(pipes, "A red Cat ", seeded(0))
    found = cascade_of(pipes)("A red Cat ", num_inference_steps=STEPS, generator=seeded(0), output_type="latent")
    assert worst(found.stages["base"], base) < 1e-4
    assert worst(found.stages["sr_1"], large) < 1e-4
    assert large.std() > 0.1


def test_prompts_negative_prompts_pictures_per_prompt_and_generators_agree(deepfloyd, seeded):
    pipes = deepfloyd()
    prompts, negative = ["a cat", "a blue dog"], ["red", "hat"]
    base, large = in_two_calls(pipes, prompts, seeded(1, 2, 3, 4), negative_prompt=negative, num_images_per_prompt=2)
    found = cascade_of(pipes)(
        prompts, negative, 2, num_inference_steps=STEPS, generator=seeded(1, 2, 3, 4), output_type="latent"
    )
    assert worst(found.stages["base"], base) < 1e-4
    assert worst(found.images, large) < 1e-4


def test_ifs_own_timesteps_and_another_noise_level_agree(deepfloyd, seeded):
    pipes = deepfloyd()
    generator, steps = seeded(0), smart27_timesteps[::9]
    base = pipes[0]("a cat", timesteps=steps, generator=generator, output_type="pt").images
    large = pipes[1](
        "a cat", image=base, timesteps=steps, noise_level=77, generator=generator, output_type="pt"
    ).images
    found = cascade_of(pipes)(
        "a cat",
        timesteps={"base": steps, "sr_1": steps},
        noise_level={"sr_1": 0.077},
        generator=seeded(0),
        output_type="latent",
    )
    assert worst(found.images, large) < 1e-4


def test_an_enlargement_alone_draws_what_ifs_draws(deepfloyd, seeded):
    pipes = deepfloyd()
    small = torch.rand(1, 3, 8, 8, generator=seeded(7))
    large = pipes[1]("a cat", image=small * 2 - 1, num_inference_steps=2, generator=seeded(0), output_type="pt").images
    found = cascade_of(pipes)(
        "a cat", image=small, num_inference_steps=STEPS, generator=seeded(0), output_type="latent"
    )
    assert worst(found.images, large) < 1e-4


def test_three_stages_make_one_cascade(deepfloyd, seeded):
    pipe = cascade_of(deepfloyd(3))
    found = pipe("a cat", num_inference_steps=STEPS | {"sr_2": 2}, generator=seeded(0), output_type="latent")
    assert {name: pictures.shape[-1] for name, pictures in found.stages.items()} == {"base": 8, "sr_1": 16, "sr_2": 32}


@pytest.mark.parametrize("name", RAISE_THERE)
def test_schedulers_on_which_ifs_pipelines_raise_draw_both_stages(deepfloyd, seeded, name):
    pipes = deepfloyd()
    pipe = cascade_of(pipes)
    new = getattr(diffusers, name)
    for stage in pipes:
        stage.scheduler = new.from_config(stage.scheduler.config)
    with pytest.raises((RuntimeError, AttributeError, TypeError, ValueError)):
        pipes[0]("a cat", num_inference_steps=5, generator=seeded(0))
    pipe.scheduler, pipe.sr_scheduler_1 = (stage.scheduler for stage in pipes)
    found = pipe("a cat", num_inference_steps={"base": 5, "sr_1": 5}, generator=seeded(0), output_type="latent")
    for picture in found.stages.values():
        assert picture.isfinite().all()
        assert 0.1 < picture.abs().max() < 4


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDPMParallelScheduler", "UnCLIPScheduler"])
def test_learned_variance_reaches_the_schedulers_that_take_it(deepfloyd, seeded, name):
    pipe = cascade_of(deepfloyd(1))
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    draws = {"num_inference_steps": 3, "output_type": "latent"}
    learned = pipe("a cat", generator=seeded(0), **draws).images
    with torch.no_grad():
        pipe.unet.conv_out.bias[3:] += 5.0  # the half that says how much noise is drawn anew
    more = pipe("a cat", generator=seeded(0), **draws).images
    assert learned.isfinite().all()
    assert not torch.equal(more, learned)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_learned_variance_is_dropped_for_the_others(deepfloyd, seeded, name):
    pipe = cascade_of(deepfloyd(1))
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, variance_type="fixed_small")
    draws = {"num_inference_steps": 3, "output_type": "latent"}
    fixed = pipe("a cat", generator=seeded(0), **draws).images
    with torch.no_grad():
        pipe.unet.conv_out.bias[3:] += 5.0
    assert torch.equal(pipe("a cat", generator=seeded(0), **draws).images, fixed)


def test_half_precision_and_split_batches_draw(deepfloyd, seeded):
    pipe = cascade_of(deepfloyd())
    arguments = {"num_inference_steps": STEPS, "output_type": "latent"}
    whole = pipe(["a cat", "a dog"], generator=seeded(0), **arguments).images
    parts = pipe(["a cat", "a dog"], generator=seeded(0), max_batch_size=1, **arguments).images
    assert worst(parts, whole) < 1e-3
    for unet in (pipe.unet, pipe.sr_unet_1, pipe.text_encoder):
        unet.to(torch.bfloat16)
    assert pipe("a cat", generator=seeded(0), **arguments).images.isfinite().all()
    for unet in (pipe.unet, pipe.sr_unet_1, pipe.text_encoder):
        unet.to(torch.float32)  # other tests have the text encoder, too


def test_the_cascade_shares_the_loaded_weights_and_the_text_encoder(deepfloyd):
    pipes = deepfloyd()
    pipe = cascade_of(pipes)
    for ours, theirs in ((pipe.unet, pipes[0].unet), (pipe.sr_unet_1, pipes[1].unet)):
        assert type(ours) is DeepFloydUNet2DConditionModel
        weights = dict(theirs.named_parameters())
        assert {name: weight.data_ptr() for name, weight in ours.named_parameters()} == {
            name: weight.data_ptr() for name, weight in weights.items()
        }
    assert pipe.text_encoder is pipes[0].text_encoder


def test_settings_are_those_of_ifs_calls_and_schedulers(deepfloyd):
    settings = cascade_of(deepfloyd()).config.stages
    base, enlargement = settings["base"], settings["sr_1"]
    assert (base["num_inference_steps"], base["guidance_scale"]) == (100, 7.0)
    assert (base["thresholding"], base["threshold_percentile"], base["threshold_max"]) == ("dynamic", 0.95, 1.5)
    assert (enlargement["num_inference_steps"], enlargement["guidance_scale"]) == (50, 4.0)
    assert (enlargement["noise_level"], enlargement["resize"]) == (0.25, "bilinear_align_corners")
    assert enlargement["threshold_max"] == 1.0
    assert base["noise"]["beta_schedule"] == enlargement["noise"]["low_res"]["beta_schedule"] == "squaredcos_cap_v2"


@pytest.mark.parametrize("loader", [ImagenCascadePipeline, diffusers.DiffusionPipeline])
def test_a_saved_cascade_draws_the_same_again(deepfloyd, seeded, tmp_path, loader):
    pipe = cascade_of(deepfloyd())
    drawn = pipe("a cat", num_inference_steps=STEPS, generator=seeded(0), output_type="latent").images
    pipe.save_pretrained(tmp_path / "cascade")
    again = loader.from_pretrained(tmp_path / "cascade")
    again.set_progress_bar_config(disable=True)
    assert type(again.sr_unet_1) is DeepFloydUNet2DConditionModel
    found = again("a cat", num_inference_steps=STEPS, generator=seeded(0), output_type="latent").images
    assert torch.equal(found, drawn)


def test_there_and_back_is_the_same_to_the_bit_and_ifs_pipelines_load_it(deepfloyd, seeded, tmp_path):
    pipes = deepfloyd()
    expected = in_two_calls(pipes, "a cat", seeded(0))[1]
    for number, stage in enumerate(pipes, 1):
        stage.save_pretrained(tmp_path / f"if_{number}")
    shutil.rmtree(tmp_path / "if_2" / "text_encoder")  # of two, the first is loaded
    pipe = ImagenCascadePipeline.from_deepfloyd_if(tmp_path / "if_1", tmp_path / "if_2")
    pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.unet = torch.compile(pipe.unet)
    pipe.save_as_deepfloyd_if(tmp_path / "back")
    first = diffusers.IFPipeline.from_pretrained(tmp_path / "back" / "stage_1", requires_safety_checker=False)
    second = diffusers.IFSuperResolutionPipeline.from_pretrained(tmp_path / "back" / "stage_2")
    for back, there in zip((first, second), pipes, strict=True):
        assert type(back.unet) is diffusers.UNet2DConditionModel
        assert type(back.scheduler) is diffusers.DDPMScheduler
        weights, original = back.unet.state_dict(), there.unet.state_dict()
        assert weights.keys() == original.keys()
        assert all(torch.equal(weights[name], original[name]) for name in original)
        back.set_progress_bar_config(disable=True)
    assert second.text_encoder is None
    assert torch.equal(in_two_calls([first, second], "a cat", seeded(0))[1], expected)


def test_a_folder_that_holds_something_is_left_alone(deepfloyd, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something already"):
        cascade_of(deepfloyd(1)).save_as_deepfloyd_if(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_other_cascades_cannot_be_saved_as_ifs(cascade, tmp_path):
    with pytest.raises(ValueError, match="ImagenUNet2DConditionModel, which IF's pipelines do not know"):
        cascade.save_as_deepfloyd_if(tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_with_a_mask_padding_does_not_change_the_picture_and_without_it_does(deepfloyd, seeded):
    pipes = deepfloyd()
    for mask_padding in (True, False):
        pipe = cascade_of(pipes, mask_padding=mask_padding)
        pictures = []
        for length in (77, 20):
            pipe.register_to_config(text=pipe.config.text | {"max_length": length})
            out = pipe("a cat", "red", num_inference_steps=STEPS, generator=seeded(0), output_type="latent")
            pictures.append(out.images)
        assert (worst(*pictures) < 1e-4) is mask_padding


def test_a_cascade_without_a_text_encoder_wants_negative_states_too(deepfloyd):
    pipe = cascade_of(deepfloyd(1))
    positive, _, negative, _ = pipe.encode_prompt("a cat")
    pipe.text_encoder = None
    with pytest.raises(ValueError, match="`negative_prompt_embeds` is missing"):
        pipe(prompt_embeds=positive)
    drawn = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, num_inference_steps=2, output_type="latent"
    ).images
    assert drawn.isfinite().all()


@pytest.fixture
def guarded(deepfloyd):
    """Give IF's base with a safety checker that finds what its heads' biases say, and a visible watermark."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = size | {"image_size": 32, "patch_size": 16, "projection_dim": 8}
    checker = IFSafetyChecker(CLIPConfig(vision_config=vision, text_config=size, projection_dim=8)).eval()
    for head in (checker.p_head, checker.w_head):
        torch.nn.init.constant_(head.bias, -100.0)
    marker = IFWatermarker()
    marker.watermark_image[..., 3] = 255
    marker.watermark_image[..., 0] = 200
    pipe = deepfloyd(1)[0]
    pipe.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        watermarker=marker,
    )
    return pipe


@pytest.mark.parametrize("bias", [-100.0, 100.0])
def test_watermarker_and_safety_checker_do_as_in_ifs_pipelines(guarded, seeded, bias):
    torch.nn.init.constant_(guarded.safety_checker.p_head.bias, bias)
    pipe = cascade_of([guarded])
    size = {"height": 32, "width": 32}  # where the mark has a pixel
    theirs = guarded("a cat", num_inference_steps=2, generator=seeded(0), **size).images[0]
    ours = pipe("a cat", num_inference_steps=2, generator=seeded(0), **size).images[0]
    assert ours.tobytes() == theirs.tobytes()
    assert ours.getpixel((31, 31)) == (200, 0, 0)
    for output_type in ("np", "pt"):
        plain = pipe("a cat", num_inference_steps=2, generator=seeded(0), **size, output_type=output_type).images
        assert bool((plain == 0).all()) is (bias > 0)


def test_watermarker_and_safety_checker_are_saved_and_can_be_left_out(guarded, tmp_path):
    pipe = cascade_of([guarded])
    pipe.save_pretrained(tmp_path / "cascade")
    again = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade")
    weights = again.safety_checker.state_dict()
    assert type(again.safety_checker) is IFSafetyChecker
    assert all(torch.equal(weights[name], weight) for name, weight in pipe.safety_checker.state_dict().items())
    assert torch.equal(again.watermarker.watermark_image, pipe.watermarker.watermark_image)
    assert ImagenCascadePipeline.from_pretrained(tmp_path / "cascade", safety_checker=None).safety_checker is None
    assert ImagenCascadePipeline(**pipe.components).watermarker is pipe.watermarker


def test_weights_may_stay_on_disk(deepfloyd, seeded, tmp_path):
    pipe = cascade_of(deepfloyd())
    arguments = {"num_inference_steps": {"base": 2, "sr_1": 2}, "output_type": "latent"}
    text = dict(zip(("prompt_embeds", "_", "negative_prompt_embeds"), pipe.encode_prompt("a cat"), strict=False))
    del text["_"]
    drawn = pipe(**text, generator=seeded(0), **arguments).images
    pipe.text_encoder = None  # other tests have it, too
    pipe.save_pretrained(tmp_path / "cascade")
    again = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade")
    again.set_progress_bar_config(disable=True)
    again.enable_model_disk_offload(device="cpu")
    assert torch.equal(again(**text, generator=seeded(0), **arguments).images, drawn)


def test_what_is_no_pipeline_of_ifs_is_refused(deepfloyd, tmp_path):
    first, second = deepfloyd()
    with pytest.raises(ValueError, match="`stage_1` is of class IFSuperResolutionPipeline; give the name"):
        ImagenCascadePipeline.from_deepfloyd_if(second)
    with pytest.raises(ValueError, match="`stage_2` is of class IFPipeline"):
        ImagenCascadePipeline.from_deepfloyd_if(first, first)
    with pytest.raises(ValueError, match=r"`stage_1` is the folder .* holds no model_index.json; original files"):
        ImagenCascadePipeline.from_deepfloyd_if(tmp_path)
    first.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="does not say what noise the U-Net was trained on"):
        ImagenCascadePipeline.from_deepfloyd_if(first)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (None, "`noise` of the stage is None, but DeepFloydUNet2DConditionModel does not say itself"),
        ({"prediction_type": "epsilon"}, "`noise` of the stage is .* give \\['beta_schedule', 'prediction_type'\\]"),
        ({"prediction_type": "eps", "beta_schedule": "linear"}, "`prediction_type` is 'eps'"),
        ({"prediction_type": "epsilon", "beta_schedule": "cosine"}, "which makes no noise schedule"),
        (
            {"prediction_type": "epsilon", "beta_schedule": "linear", "steps": 10},
            "its settings are num_train_timesteps",
        ),
    ],
)
def test_a_stage_that_does_not_say_its_noise_is_refused(deepfloyd, noise, message):
    pipe = cascade_of(deepfloyd(1))
    pipe.register_to_config(stages={"base": pipe.config.stages["base"] | {"noise": noise}})
    with pytest.raises(ValueError, match=message):
        pipe("a cat")


@pytest.mark.parametrize("route", ["auto", "from_pipe"])
def test_a_cascade_goes_the_other_routes_too(deepfloyd, seeded, tmp_path, route):
    pipe = cascade_of(deepfloyd())
    arguments = {"num_inference_steps": {"base": 2, "sr_1": 2}, "output_type": "latent"}
    drawn = pipe("a cat", generator=seeded(0), **arguments).images
    if route == "auto":
        pipe.save_pretrained(tmp_path / "cascade")
        again = diffusers.AutoPipelineForText2Image.from_pretrained(
            tmp_path / "cascade", text_encoder=pipe.text_encoder
        )
        assert again.text_encoder is pipe.text_encoder
    else:
        again = ImagenCascadePipeline.from_pipe(pipe)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(again("a cat", generator=seeded(0), **arguments).images, drawn)


def test_stages_that_make_no_cascade_are_refused_by_name(deepfloyd, tmp_path):
    first, second, third = deepfloyd(3)
    make = ImagenCascadePipeline.from_deepfloyd_if
    with pytest.raises(ValueError, match="`stage_3` is given, but `stage_2`"):
        make(first, None, second)
    for stages in ((first, third, second), (first, second, second)):
        with pytest.raises(ValueError, match=r"draw pictures of \[8, .*in the order in which they enlarge"):
            make(*stages)
    (tmp_path / "model_index.json").write_text('{"_class_name": "IFSuperResolutionPipeline"}')
    with pytest.raises(
        ValueError, match=r"`stage_1` is .*, which holds a IFSuperResolutionPipeline; give a IFPipeline"
    ):
        make(tmp_path)
    first.unet, unet = second.unet, first.unet
    with pytest.raises(ValueError, match="the U-Net of `stage_1` takes 6 channels, but 3 were expected"):
        make(first)
    first.unet = None
    with pytest.raises(ValueError, match="`stage_1` has no `unet`"):
        make(first)
    first.unet, second.image_noising_scheduler = unet, None
    with pytest.raises(ValueError, match="`stage_2` has no `image_noising_scheduler`"):
        make(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float16}, "`dtype` is torch.float16, but all stages are loaded"),
        ({"variant": "fp16"}, "`variant` is 'fp16', but all stages are loaded"),
        ({"dtype": "abc"}, "`dtype` is 'abc'; give one of PyTorch's"),
    ],
)
def test_options_that_nothing_takes_are_refused(deepfloyd, options, message):
    with pytest.raises(ValueError, match=message):
        ImagenCascadePipeline.from_deepfloyd_if(*deepfloyd(1), **options)


def test_clipping_at_another_value_is_refused(deepfloyd):
    (pipe,) = deepfloyd(1)
    clipping = {"thresholding": False, "clip_sample": True, "clip_sample_range": 2.0}
    pipe.scheduler = diffusers.DDPMScheduler.from_config(pipe.scheduler.config, **clipping)
    with pytest.raises(ValueError, match=r"`clip_sample_range` of the scheduler is 2\.0, but cascades clip at 1"):
        cascade_of([pipe])


def test_a_file_that_lacks_a_weight_is_named(deepfloyd, tmp_path):
    (pipe,) = deepfloyd(1)
    pipe.save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_out.bias"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"`stage_1` is .*, whose U-Net's file lacks conv_out\.bias"):
        ImagenCascadePipeline.from_deepfloyd_if(tmp_path)


@pytest.mark.parametrize("later", [False, True])
def test_the_way_back_gives_the_scheduler_that_the_stage_came_with(deepfloyd, tmp_path, later):
    (stage,) = deepfloyd(1)
    own = {"variance_type": "fixed_small", "timestep_spacing": "trailing"}
    stage.scheduler = diffusers.DDPMScheduler.from_config(stage.scheduler.config, **own)
    pipe = cascade_of([stage])
    if later:  # and through a saved cascade
        pipe.save_pretrained(tmp_path / "cascade")
        pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade")
    pipe.scheduler = diffusers.UniPCMultistepScheduler()
    pipe.save_as_deepfloyd_if(tmp_path / "back")
    back = diffusers.DDPMScheduler.from_pretrained(tmp_path / "back" / "stage_1" / "scheduler")
    expected = {name: value for name, value in stage.scheduler.config.items() if not name.startswith("_")}
    assert {name: back.config[name] for name in expected} == expected


def test_a_variance_that_was_given_up_later_stays_so_on_the_way_back(deepfloyd, tmp_path):
    pipe = cascade_of(deepfloyd(1))
    pipe.scheduler = diffusers.DDPMScheduler.from_config(pipe.scheduler.config, variance_type="fixed_small")
    pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.save_as_deepfloyd_if(tmp_path / "back")
    back = diffusers.DDPMScheduler.from_pretrained(tmp_path / "back" / "stage_1" / "scheduler")
    assert back.config.variance_type == "fixed_small"


def test_a_place_under_a_file_is_refused(deepfloyd, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is no folder that can be written to"):
        cascade_of(deepfloyd(1)).save_as_deepfloyd_if(tmp_path / "file" / "x")
