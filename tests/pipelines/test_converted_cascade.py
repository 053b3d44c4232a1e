"""Converted cascades as pipelines: they draw with any scheduler, are saved and loaded, and go back."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusers_imagen.conversion.imagen_pytorch import convert_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions
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
    given = ImagenOptions(image_sizes=(8, 16), timesteps=3, num_sample_steps=3, **options)
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
        (lambda weights: weights.pop("conv_out.bias"), "1 weights are missing, such as conv_out.bias"),
        (lambda weights: weights.update(more=torch.ones(1)), "1 weights are unknown, such as more"),
        (lambda weights: weights.update({"conv_out.bias": torch.ones(4)}), "1 weights are of a wrong shape"),
    ],
)
def test_weights_are_all_accounted_for(state, change, message):
    stage = converted(state).stages["base"]
    change(stage.state)
    with pytest.raises(ValueError, match=message):
        converted_unet(stage)


def test_another_cascade_has_no_way_back(cascade_parts):
    schedulers = dict.fromkeys(["scheduler", "sr_scheduler_1", "sr_scheduler_2"])
    with pytest.raises(ValueError, match="has a ImagenUNet2DConditionModel as 'base'"):
        exported_state_dict(ImagenCascadePipeline(**cascade_parts, **schedulers))


def run(*arguments):
    command = [sys.executable, ROOT / "scripts" / "convert" / "convert_imagen_pytorch.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
def test_the_command_asks_reports_and_writes_all_or_nothing(state, tmp_path):
    torch.save(state, tmp_path / "imagen.pt")
    before = sorted(path.name for path in tmp_path.iterdir())
    asked = run(tmp_path / "imagen.pt", tmp_path / "out")
    assert asked.returncode == 1
    assert "image_sizes: no usual value" in asked.stderr
    assert "pred_objectives: usually 'noise'" in asked.stderr
    arguments = (tmp_path / "imagen.pt", tmp_path / "out", "--set", "image_sizes=[8,16]", "--usual")
    dry = run(*arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "layout of release 2.0" in dry.stdout
    assert "nothing written" in dry.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert run(*arguments).returncode == 0
    assert (tmp_path / "out" / "model_index.json").is_file()
    again = run(*arguments)
    assert again.returncode == 1
    assert "holds something already" in again.stderr
