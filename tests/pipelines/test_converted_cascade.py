"""Converted cascades as pipelines: they draw with any scheduler, are saved and loaded, and go back."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusers_imagen.conversion.imagen_pytorch import convert_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions, UnetOptions
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel
from diffusers_imagen.pipelines.converted_cascade import converted_cascade, converted_unet, exported_state_dict
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

ROOT = Path(__file__).parents[2]
CONVERSION = ROOT / "tests" / "conversion"
FORMULAS = runpy.run_path(str(CONVERSION / "formulas.py"))


@pytest.fixture(scope="module")
def state():
    reference = json.loads((CONVERSION / "references" / "imagen-pytorch-2.1.0.json").read_text(encoding="utf-8"))
    return FORMULAS["by_formula"](reference["shapes"])


def converted(state, **options):
    steps = "num_sample_steps" if options.get("elucidated") else "timesteps"
    given = ImagenOptions(image_sizes=(8, 16), **{steps: 3}, **options)
    return convert_imagen_pytorch([find_unets(state)], given, usual=True)


def draw(pipeline, **arguments):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 3, 24, generator=torch.Generator().manual_seed(1))
    return pipeline(prompt_embeds=text, generator=generator, output_type="pt", **arguments).images


@pytest.mark.parametrize("elucidated", [False, True])
def test_a_cascade_is_saved_loaded_and_draws_the_same(state, tmp_path, elucidated):
    pipeline = converted_cascade(converted(state, elucidated=elucidated))
    expected = draw(pipeline)
    assert expected.shape == (1, 3, 16, 16)
    assert float(expected.std()) > 0.01
    pipeline.save_pretrained(tmp_path)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path)
    assert torch.equal(draw(loaded), expected)
    loaded.unet = torch.compile(loaded.unet)
    back = exported_state_dict(loaded)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("elucidated", [False, True])
@pytest.mark.parametrize(
    "scheduler",
    [
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        HeunDiscreteScheduler,
        UniPCMultistepScheduler,
    ],
)
def test_any_scheduler_draws(state, scheduler, elucidated):
    pipeline = converted_cascade(converted(state, elucidated=elucidated))
    pipeline.scheduler, pipeline.sr_scheduler_1 = scheduler(), scheduler()
    pictures = draw(pipeline, guidance_scale={"base": 2.0, "sr_1": 2.0})
    assert bool(pictures.isfinite().all())
    assert float(pictures.std()) > 0.01


def test_the_stages_keep_what_imagen_pytorch_samples_with(state):
    stages = converted_cascade(converted(state, dynamic_thresholding=(True, False))).config.stages
    assert stages["base"]["thresholding"] == "dynamic"
    assert stages["sr_1"]["thresholding"] == "static"
    assert stages["sr_1"]["resize"] == "nearest"
    assert stages["sr_1"]["guidance_scale"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("conv_out.bias"),
            "base's U-Net are missing, 1 of them, such as `final_conv.bias`",
        ),
        (lambda weights: weights.update(more=torch.ones(1)), "unknown, 1 of them, such as `more`"),
        (
            lambda weights: weights.update({"conv_out.bias": torch.ones(4)}),
            "of a wrong shape, 1 of them, such as `final_conv.bias`",
        ),
    ],
)
def test_weights_are_all_accounted_for(state, change, message):
    stage = converted(state).stages["base"]
    change(stage.state)
    with pytest.raises(ValueError, match=message):
        converted_unet(stage, "base")


def test_another_cascade_has_no_way_back(cascade_parts):
    schedulers = dict.fromkeys(["scheduler", "sr_scheduler_1", "sr_scheduler_2"])
    with pytest.raises(ValueError, match="has a ImagenUNet2DConditionModel as 'base'"):
        exported_state_dict(ImagenCascadePipeline(**cascade_parts, **schedulers))


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a converter as its command line does; returns what it printed and the error that it ended with."""

    def run(script, *arguments):
        folder = ROOT / "scripts" / "convert"
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        error = None
        try:
            runpy.run_path(str(folder / script), run_name="__main__")
        except SystemExit as ended:
            error = str(ended.code)
        return capsys.readouterr().out, error

    return run


def test_the_command_asks_for_what_the_weights_cannot_tell(state, tmp_path, command):
    torch.save(state, tmp_path / "imagen.pt")
    _, error = command("convert_imagen_pytorch.py", tmp_path / "imagen.pt", tmp_path / "out")
    assert "image_sizes: no usual value" in error
    assert 'pred_objectives: usually "noise"' in error
    assert not (tmp_path / "out").exists()


def test_a_dry_run_reports_and_writes_nothing(state, tmp_path, command):
    torch.save(state, tmp_path / "imagen.pt")
    options = ("--set", "image_sizes=[8,16]", "--usual", "--dry-run")
    printed, error = command("convert_imagen_pytorch.py", tmp_path / "imagen.pt", tmp_path / "out", *options)
    assert error is None
    assert "layout of release 2.0" in printed
    assert "nothing written" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["imagen.pt"]


def test_the_commands_write_a_cascade_and_its_state_dict_back(state, tmp_path, command):
    torch.save(state, tmp_path / "imagen.pt")
    arguments = (tmp_path / "imagen.pt", tmp_path / "out", "--set", "image_sizes=[8,16]", "--usual")
    printed, error = command("convert_imagen_pytorch.py", *arguments)
    assert error is None
    assert "usual values taken for: elucidated" in printed
    _, error = command("convert_imagen_pytorch.py", *arguments)
    assert "holds something already" in error
    command("export_imagen_pytorch.py", tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.pt", "imagen.pt", "out"]


def test_a_conversion_that_fails_while_it_writes_leaves_nothing(state, tmp_path, command, monkeypatch):
    torch.save(state, tmp_path / "imagen.pt")

    def fail(pipeline, folder):
        (folder / "half").mkdir()
        raise OSError("the disk is full")

    monkeypatch.setattr(ImagenCascadePipeline, "save_pretrained", fail)
    options = ("--set", "image_sizes=[8,16]", "--usual")
    _, error = command("convert_imagen_pytorch.py", tmp_path / "imagen.pt", tmp_path / "out", *options)
    assert error == "error: the disk is full"
    assert [path.name for path in tmp_path.iterdir()] == ["imagen.pt"]


def widened(state, channels):
    """Return a base's weights, by formula, with other input channels."""
    shapes = {name: list(tensor.shape) for name, tensor in state.items() if name.startswith("unets.0.")}
    for name, shape in shapes.items():
        if "init_conv" in name and name.endswith("weight"):
            shape[1] = channels
    return FORMULAS["by_formula"](shapes)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("at_once", [None, 1])
def test_a_self_conditioned_u_net_is_given_nothing_first_and_then_its_last_clean_picture(
    state, monkeypatch, guidance, at_once
):
    options = ImagenOptions(image_sizes=(8,), timesteps=3)
    cascade = convert_imagen_pytorch([find_unets(widened(state, 6))], options, usual=True)
    assert "3 spare input channels are taken for its last clean picture" in cascade.report[0]
    pipeline = converted_cascade(cascade)
    pipeline.set_progress_bar_config(disable=True)
    given, drawn = [], []
    forward, step = ImagenPytorchUNet2DConditionModel.forward, DDPMScheduler.step

    def recorded_forward(self, *args, **kwargs):
        given.append(kwargs["self_condition"])
        return forward(self, *args, **kwargs)

    def recorded_step(self, model_output, *args, **kwargs):
        drawn.append(model_output)
        return step(self, model_output, *args, **kwargs)

    monkeypatch.setattr(ImagenPytorchUNet2DConditionModel, "forward", recorded_forward)
    monkeypatch.setattr(DDPMScheduler, "step", recorded_step)
    text = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    arguments = {"guidance_scale": guidance, "max_batch_size": at_once, "generator": generator}
    pipeline(prompt_embeds=text, output_type="latent", **arguments)
    parts = 1 if at_once is None else 2
    assert len(given) == len(drawn) == 3 * parts
    assert given[:parts] == [None] * parts
    for found, last in zip(given[parts:], drawn[:-parts], strict=True):
        assert float(last.abs().max()) <= 1  # thresholded
        expected = last if guidance == 1 else torch.cat([last, last])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_u_net_that_needs_a_conditioning_picture_makes_no_cascade(state):
    for channels, self_cond in ((4, None), (6, False)):
        options = ImagenOptions(image_sizes=(8,), unets=(UnetOptions(self_cond=self_cond),))
        cascade = convert_imagen_pytorch([find_unets(widened(state, channels))], options, usual=True)
        with pytest.raises(ValueError, match=rf"'base' has {channels - 3} input channels .*`cond_images_channels`"):
            converted_cascade(cascade)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_commands_keep_every_bit_of_other_types(state, tmp_path, command, dtype):
    saved = {name: tensor.to(torch.float32 if "final" in name else dtype) for name, tensor in state.items()}
    torch.save(saved, tmp_path / "imagen.pt")
    command(
        "convert_imagen_pytorch.py", tmp_path / "imagen.pt", tmp_path / "out", "--set=image_sizes=[8,16]", "--usual"
    )
    _, error = command("export_imagen_pytorch.py", tmp_path / "out", tmp_path / "back.pt")
    assert error is None
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert set(back) == set(saved)
    assert all(back[name].dtype == saved[name].dtype and torch.equal(back[name], saved[name]) for name in saved)


def test_the_commands_refuse_wrong_places_in_a_line(state, tmp_path, command):
    torch.save(state, tmp_path / "imagen.pt")
    (tmp_path / "file").touch()
    usual = ("--set=image_sizes=[8,16]", "--usual", "--dry-run")
    _, error = command("convert_imagen_pytorch.py", tmp_path / "imagen.pt", tmp_path / "file" / "out", *usual)
    assert "is no folder that can be written to" in error
    encoder = ("--text-encoder", tmp_path / "absent")
    _, error = command("convert_imagen_pytorch.py", tmp_path / "imagen.pt", tmp_path / "out", *usual, *encoder)
    assert "`--text-encoder` is" in error
    assert "there is no such folder" in error
    for place, message in (
        ("file/back.pt", "is no folder that can be written to"),
        ("file", "holds something already"),
    ):
        _, error = command("export_imagen_pytorch.py", tmp_path / "absent", tmp_path / place)
        assert message in error
    _, error = command("export_imagen_pytorch.py", tmp_path / "absent", tmp_path / "back.pt")
    assert "holds no model_index.json; give a converted cascade" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "imagen.pt"]
