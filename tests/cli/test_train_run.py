"""From pictures to a cascade through the program: presets, dry run, training, report, average, assembly."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from diffusers_imagen.cli.train import read_settings
from diffusers_imagen.models.presets import PRESETS
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.training.memory import estimate_memory
from diffusers_imagen.training.preset_files import preset_names, preset_path
from diffusers_imagen.training.state import check_unet, describe_unet

CONFIG = """
data: {{folder: pictures, size: {size}, validation_fraction: 0.3, {data}}}
model:
  model_class: {model_class}
  config:
    sample_size: {size}
    {model}
    block_out_channels: [8, 16]
    layers_per_block: [1, 1]
    attention_types: [none, self]
    attention_head_dim: 8
    norm_num_groups: 4
    conditioning_dim: 16
    encoder_hid_dim: 16
    cross_attention_dim: 16
    text_max_length: 12
text: {{folder: {text}, max_length: 12}}
ema: {{post_hoc: true, snapshot_every_steps: 1}}
preview: {{every_steps: 1, num_inference_steps: 2, num_images: 3, guidance_scale: 2.5}}
output_dir: {run}
max_steps: 200
batch_size: 2
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for i in range(12):
        Image.new("RGB", (16, 16), (20 * i, 255 - 20 * i, 99)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a cat {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def base(pictures: Path, checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(
        CONFIG.format(size=8, data="", model_class="base", model="patch_size: 1", text=checkpoint, run="runs/base")
    )
    return path


@pytest.fixture
def enlargement(pictures: Path, checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "sr.yaml"
    sr = {"data": "low_res_factor: 2, low_res_resize: bilinear", "model_class": "super_resolution"}
    path.write_text(CONFIG.format(size=16, model="low_res_channels: 3", text=checkpoint, run="runs/sr", **sr))
    return path


def test_two_runs_become_a_cascade_that_draws(run, base, enlargement, tmp_path, caplog):
    for config in (base, enlargement):
        result = run("train", config, "--steps", "2")
        assert result.code == 0, result.err
        assert result.out.splitlines()[-1] == "2 steps, 0 skipped, finished"
        assert "step 2 of 2, loss" in caplog.text
    assert (tmp_path / "runs" / "base" / "report.png").is_file()
    prompts = (tmp_path / "runs" / "base" / "previews" / "prompts.txt").read_text().splitlines()
    assert len(prompts) == 3
    assert all(prompt.startswith("a cat ") for prompt in prompts)
    again = run("train", base, "--steps", "1")
    assert again.out.splitlines()[-1] == "2 steps were made before, and `max_steps` is 1: give more to go on"

    result = run("ema", "runs/base", "--sigma-rel", "0.08", "--output", "runs/average")
    assert result.code == 0, result.err
    assert "from 2 snapshots" in result.out

    result = run("assemble", "runs/sr", "runs/average", "--output", "cascade", "--steps", "sr_1=1")
    assert result.code == 0, result.err
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.config.stages == {
        "base": {"num_inference_steps": 2, "guidance_scale": 2.5},
        "sr_1": {
            "num_inference_steps": 1,
            "guidance_scale": 1.0,
            "noise_level": 0.05,
            "thresholding": "static",
            "resize": "bilinear",
        },
    }
    assert pipe.config.text["max_length"] == 12
    assert pipe("a cat", generator=torch.Generator().manual_seed(0)).images[0].size == (16, 16)


def test_dry_run_tells_what_training_takes_and_writes_nothing(run, base, tmp_path):
    result = run("train", base, "--dry-run", "--steps", "30")
    assert result.code == 0, result.err
    facts = {line.split()[0]: line for line in result.out.splitlines() if line[0] != " "}
    unet = describe_unet(read_settings(base, None, [], None).model)
    assert f"{sum(p.numel() for p in unet.parameters()):,}" in facts["parameters"]
    held_out = int(facts["data"].split(", ")[2].split()[0])
    assert 0 < held_out < 12
    assert f"{12 - held_out} pictures, {12 - held_out} captions" in facts["data"]
    assert f"30 of 2 samples in 1 process(es), {30 * 2 / (12 - held_out):.1f} epochs" in facts["steps"]
    assert "MiB a process, estimated: weights" in facts["memory"]
    assert "s a step" in facts["time"]
    assert "hours" in facts["time"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "`CONFIG` is None and `--preset` is None; give one of the two"),
        (("a.yaml", "--preset", "tiny-base"), "give one of the two"),
        (("--preset", "huge"), "`preset` is 'huge'; choose one of dreambooth"),
        (("--preset", "tiny-base"), "tiny-base.yaml is refused"),
    ],
)
def test_run_that_nobody_described_is_refused(run, words, message):
    result = run("train", *words)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize("name", [name for name in preset_names() if not name.startswith("if-")])
def test_presets_lack_nothing_but_folders(name, tmp_path):
    folders = [f"data.folder={tmp_path}", f"text.folder={tmp_path}", f"output_dir={tmp_path}"]
    if name == "dreambooth":
        folders.append(f"prior.folder={tmp_path}")
    config = read_settings(None, name, folders, 7)
    assert config.max_steps == 7
    unet = describe_unet(config.model)
    assert config.data.crop_side % unet.size_multiple == 0
    assert unet.config.sample_size == config.data.size
    assert unet.config.num_text_layers == len(config.text.layers)
    assert config.text.max_length <= unet.config.text_max_length


@pytest.mark.parametrize(("name", "stage"), [("if-lora", 1), ("if-sr-lora", 2)])
def test_presets_for_deepfloyd_if_lack_nothing_but_folders(name, stage, deepfloyd_unet, tmp_path):
    deepfloyd_unet(stage).save_pretrained(tmp_path / "unet")
    names = ("data.folder", "text.folder", "output_dir", "model.pretrained")
    config = read_settings(None, name, [f"{key}={tmp_path}" for key in names], 7)
    unet = describe_unet(config.model, config.lora)
    check_unet(unet, config, 32)
    assert any(weight.requires_grad for weight in unet.parameters())


@pytest.mark.parametrize(
    ("name", "shape"),
    [("imagen-base-64", "imagen-2b-64"), ("imagen-sr-256", "imagen-600m-256"), ("imagen-sr-1024", "imagen-400m-1024")],
)
def test_presets_of_the_paper_are_its_unets(name, shape):
    config = yaml.safe_load(preset_path(name).read_text())["model"]["config"]
    for key, value in PRESETS[shape].items():
        assert config[key] == (list(value) if isinstance(value, tuple) else value)


def test_memory_of_the_papers_base_can_be_told_without_having_it(tmp_path):
    folders = [f"data.folder={tmp_path}", f"text.folder={tmp_path}", f"output_dir={tmp_path}"]
    config = read_settings(None, "imagen-base-64", folders, None)
    memory = estimate_memory(describe_unet(config.model), config, text_length=64)
    assert memory.weights == memory.gradients == memory.averages == pytest.approx(4 * 2e9, rel=0.05)
    # Adafactor keeps a row and a column of each matrix, which of 3x3 kernels are two thirds.
    assert 0.5 < memory.optimizer / memory.weights < 2 / 3
    assert memory.activations > 0


def test_presets_are_listed_and_printed(run):
    assert "imagen-base-64  The paper's 64 px base" in run("presets").out
    assert yaml.safe_load(run("presets", "tiny-sr").out)["data"]["crop"] == 64
    assert "choose one of" in run("presets", "none").err
