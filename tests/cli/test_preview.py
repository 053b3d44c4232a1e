"""Training through the program, down to the sheets that it draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel

CONFIG = """
data: {{folder: pictures, size: 16, {data}}}
model:
  model_class: {model_class}
  config:
    sample_size: 16
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
preview: {{every_steps: 1, num_inference_steps: 2, num_images: 3, {preview}}}
output_dir: run
max_steps: 2
batch_size: 2
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Draw four pictures of 16 pixels, each in a colour of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]):
        Image.new("RGB", (16, 16), colour).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a cat {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_a_base_is_trained_and_its_prompts_are_drawn(run, checkpoint, pictures, tmp_path):
    config = CONFIG.format(
        model_class="base", data="", model="", text=checkpoint, preview="prompts: [a cat, 'a dog', 猫, 狗]"
    )
    (tmp_path / "base.yaml").write_text(config, encoding="utf-8")
    result = run("train", "base.yaml", "--set", "optimizer.lr=1e-3")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == "2 steps, 0 skipped, finished"
    assert ImagenUNet2DConditionModel.from_pretrained(tmp_path / "run" / "unet").config.sample_size == 16
    sheets = sorted((tmp_path / "run" / "previews").glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["step-00000001.png", "step-00000002.png"]
    assert Image.open(sheets[0]).size == (4 * 16, 16)
    assert sheets[0].read_bytes() != sheets[1].read_bytes()


def test_an_enlargement_is_shown_between_what_it_gets_and_what_it_should_give(run, checkpoint, pictures, tmp_path):
    config = CONFIG.format(
        model_class="super_resolution",
        data="crop: 8, low_res_factor: 4",
        model="low_res_channels: 3",
        text=checkpoint,
        preview="seed: 3",
    )
    (tmp_path / "sr.yaml").write_text(config, encoding="utf-8")
    result = run("train", "sr.yaml")
    assert result.code == 0, result.err
    assert EfficientUNet2DConditionModel.from_pretrained(tmp_path / "run" / "unet").config.low_res_channels == 3
    sheet = np.asarray(Image.open(tmp_path / "run" / "previews" / "step-00000002.png"))
    assert sheet.shape == (3 * 16, 3 * 16, 3)
    small, drawn, real = sheet[:16], sheet[16:32], sheet[32:]
    assert np.array_equal(small, real)  # plain colours survive shrinking and enlarging
    assert real[0, 0].tolist() == [255, 0, 0]
    assert not np.array_equal(drawn, real)
