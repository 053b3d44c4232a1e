"""Saved cascades: what is written, what a new process draws with it, and what damage is called."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoPipelineForText2Image,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    SASolverScheduler,
)
from safetensors.torch import load_file, save_file

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

PROGRAM = Path(__file__).with_name("draw_in_new_process.py")
DRAWN = [
    "ours three",
    "ours two of three",
    "ours without encoder",
    "theirs three",
    "theirs two of three",
    "theirs without encoder",
    "auto two",
    "ours two",
]


def draw(pipe: Any, *arguments: Any, **options: Any) -> torch.Tensor:
    return pipe(*arguments, generator=torch.Generator().manual_seed(0), output_type="latent", **options).images


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, make_cascade: Callable[..., Any]) -> Path:
    """Give a folder with a cascade of two stages and one of three."""
    folder = tmp_path_factory.mktemp("saved")
    for name, stages in (("two", 2), ("three", 3)):
        make_cascade(stages, sr_scheduler_1=EulerDiscreteScheduler()).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def redrawn(
    saved: Path, make_cascade: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, torch.Tensor]]:
    """Give what two new processes draw, by the package that they import first."""
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    embeds = make_cascade(2).encode_prompt("a red cat")
    save_file(dict(zip(names, embeds, strict=True)), saved / "embeds.safetensors")
    save_file(unet_inputs(), saved / "inputs.safetensors")
    results = tmp_path_factory.mktemp("redrawn")
    processes = {
        first: subprocess.Popen(
            [sys.executable, PROGRAM, first, saved, results / first], stderr=subprocess.PIPE, text=True
        )
        for first in ("package", "diffusers")
    }
    pictures = {}
    for first, process in processes.items():
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        pictures[first] = load_file(results / first)
    return pictures


def unet_inputs() -> dict[str, torch.Tensor]:
    return {
        "sample": torch.linspace(-1, 1, 192).view(1, 3, 8, 8),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.linspace(-1, 1, 48).view(1, 3, 16),
    }


@pytest.mark.parametrize("first", ["package", "diffusers"])
@pytest.mark.parametrize("name", DRAWN)
def test_a_new_process_draws_the_same_picture_to_the_bit(redrawn, make_cascade, first, name):
    stages = 3 if name.endswith(" three") and "two" not in name else 2
    expected = draw(make_cascade(stages, sr_scheduler_1=EulerDiscreteScheduler()), "a red cat")
    assert expected.shape == (1, 3, 8 * 2 ** (stages - 1), 8 * 2 ** (stages - 1))
    assert torch.equal(redrawn[first][name], expected)


@pytest.mark.parametrize("first", ["package", "diffusers"])
@pytest.mark.parametrize("name", ["automodel folder", "automodel subfolder"])
def test_a_new_process_loads_a_u_net_by_auto_model(redrawn, cascade_parts, first, name):
    with torch.no_grad():
        expected = cascade_parts["unet"](**unet_inputs()).sample
    # Not to the bit: outside a pipeline the weights stay where the file is mapped, and kernels go by addresses.
    torch.testing.assert_close(redrawn[first][name], expected, rtol=0, atol=1e-5)


def test_the_index_names_the_package_and_holds_the_settings(saved, make_cascade):
    index = json.loads((saved / "two/model_index.json").read_text())
    assert index["_class_name"] == "ImagenCascadePipeline"
    assert index["unet"] == ["diffusers_imagen", "ImagenUNet2DConditionModel"]
    assert index["sr_unet_1"] == ["diffusers_imagen", "EfficientUNet2DConditionModel"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert index["sr_unet_2"] == index["sr_scheduler_2"] == [None, None]
    assert index["stages"]["base"] == {"num_inference_steps": 3, "guidance_scale": 3.0}
    assert index["text"] == {"max_length": 12}
    # Diffusers refuses lists other than [library, class] in what it loads from the Hub.
    lists = [value for key, value in index.items() if isinstance(value, list)]
    assert all(len(value) == 2 for value in lists)


def test_saving_what_was_loaded_writes_the_same(saved, tmp_path):
    ImagenCascadePipeline.from_pretrained(saved / "three").save_pretrained(tmp_path)
    weights = sorted(saved.glob("three/**/*.safetensors"))
    assert len(weights) == 4
    for path in weights:
        assert (tmp_path / path.relative_to(saved / "three")).read_bytes() == path.read_bytes()
    first, second = (json.loads((folder / "model_index.json").read_text()) for folder in (saved / "three", tmp_path))
    # Diffusers notes where it came from.
    assert second.pop("_name_or_path") == str(saved / "three")
    assert first == second


def test_settings_with_pairs_survive_json(make_cascade, tmp_path):
    settings = {"base": {"num_inference_steps": 4, "guidance_interval": (0.25, 0.75)}}
    text = {"layers": (-1,), "max_length": 12}
    pipe = make_cascade(1, settings=settings, text=text)
    pipe.save_pretrained(tmp_path)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(draw(loaded, "a red cat"), draw(pipe, "a red cat"))


def test_components_may_be_replaced_while_loading(saved, make_cascade):
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    loaded = ImagenCascadePipeline.from_pretrained(saved / "two", scheduler=scheduler)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.scheduler is scheduler
    expected = make_cascade(2, scheduler=scheduler, sr_scheduler_1=EulerDiscreteScheduler())
    assert torch.equal(draw(loaded, "a cat"), draw(expected, "a cat"))


def test_loading_in_half_precision_gives_half_precision_weights(saved):
    loaded = DiffusionPipeline.from_pretrained(saved / "two", dtype=torch.bfloat16)
    assert loaded.unet.dtype == loaded.text_encoder.dtype == torch.bfloat16
    loaded.set_progress_bar_config(disable=True)
    assert draw(loaded, "a cat").isfinite().all()


def test_a_variant_is_saved_and_loaded(make_cascade, tmp_path):
    pipe = make_cascade(1)
    pipe.save_pretrained(tmp_path, variant="small")
    assert (tmp_path / "unet/diffusion_pytorch_model.small.safetensors").is_file()
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path, variant="small")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(draw(loaded, "a cat"), draw(pipe, "a cat"))


def test_another_pipeline_is_made_from_the_same_parts(cascade):
    for again in (ImagenCascadePipeline.from_pipe(cascade), AutoPipelineForText2Image.from_pipe(cascade)):
        assert type(again) is ImagenCascadePipeline
        assert again.unet is cascade.unet
        assert again.config.stages == cascade.config.stages
        again.set_progress_bar_config(disable=True)
        assert torch.equal(draw(again, "a cat"), draw(cascade, "a cat"))


def test_the_parts_of_a_pipeline_make_another_that_draws_the_same(make_cascade):
    settings = {"base": {"num_inference_steps": 4, "guidance_scale": 2.0}}
    pipe = make_cascade(2, settings=settings, text={"max_length": 12, "prefix": "a red "})
    again = ImagenCascadePipeline(**pipe.components)
    assert again.config.stages == settings
    assert again.config.text == {"max_length": 12, "prefix": "a red "}
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again, "cat"), draw(pipe, "cat"))
    other = ImagenCascadePipeline(**pipe.components | {"text": {"max_length": 12}})
    other.set_progress_bar_config(disable=True)
    assert torch.equal(draw(other, "a red cat"), draw(pipe, "cat"))


def test_without_settings_the_parts_are_the_components_alone(cascade_parts):
    nothing = dict.fromkeys(("sr_unet_1", "sr_scheduler_1", "sr_unet_2", "sr_scheduler_2", "guider"))
    nothing |= dict.fromkeys(("safety_checker", "feature_extractor", "watermarker"))
    parts = {name: cascade_parts[name] for name in ("tokenizer", "text_encoder", "unet")}
    parts |= {"scheduler": DDIMScheduler()} | nothing
    assert ImagenCascadePipeline(**parts).components == parts


def test_u_nets_are_saved_and_loaded_alone(cascade_parts, tmp_path):
    for name, model_class in (("unet", ImagenUNet2DConditionModel), ("sr_unet_2", EfficientUNet2DConditionModel)):
        cascade_parts[name].save_pretrained(tmp_path / name)
        loaded = model_class.from_pretrained(tmp_path / name)
        assert loaded.config.sample_size == cascade_parts[name].config.sample_size
        weights = cascade_parts[name].state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("path", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_of_weights_is_named(make_cascade, tmp_path, path, share):
    make_cascade(1).save_pretrained(tmp_path)
    content = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(OSError, match=r"fetch or save the checkpoint again") as caught:
        ImagenCascadePipeline.from_pretrained(tmp_path)
    assert path in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(OSError, match=r"holds no model_index\.json; give the folder that `save_pretrained` wrote"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


def test_a_checkpoint_without_one_of_its_folders_is_told(make_cascade, tmp_path):
    make_cascade(1).save_pretrained(tmp_path)
    (tmp_path / "unet/config.json").unlink()
    with pytest.raises(OSError, match=r"unet/config\.json is missing"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


def test_a_name_that_is_nowhere_is_told(tmp_path):
    with pytest.raises((OSError, ValueError), match="no-such-cascade"):
        ImagenCascadePipeline.from_pretrained("no-such-cascade")
    with pytest.raises((OSError, ValueError), match="no-such-folder"):
        ImagenCascadePipeline.from_pretrained(tmp_path / "no-such-folder")


def test_an_unknown_scheduler_in_a_checkpoint_is_told(make_cascade, tmp_path):
    make_cascade(1).save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "QuantumScheduler"))
    with pytest.raises(ValueError, match=r"no class `QuantumScheduler`"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


def test_an_unknown_stage_in_a_checkpoint_is_told(make_cascade, tmp_path):
    make_cascade(1).save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"sr_2": {', '"sr_9": {'))
    with pytest.raises(ValueError, match=r"`stages` names the stage 'sr_9'"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


def test_a_scheduler_that_no_file_can_hold_is_refused_before_anything_is_written(make_cascade, tmp_path):
    pipe = make_cascade(1)
    pipe.scheduler = SASolverScheduler(tau_func=lambda t: 1)
    with pytest.raises(ValueError, match=r"`scheduler` \(SASolverScheduler\) cannot be saved: .*function"):
        pipe.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
