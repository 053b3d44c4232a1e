"""A toy data set and a tiny real text encoder on disk, for training tests."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import TrainConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230), "yellow": (240, 220, 40)}


def draw_pictures(folder: Path, count: int, side: int) -> Path:
    """Draw coloured squares at two places on white, with English and Chinese-like captions."""
    folder.mkdir(parents=True)
    lines = []
    for i in range(count):
        name, colour = list(COLOURS.items())[i % 4]
        place = "left" if i // 4 % 2 else "right"
        pixels = np.full((side, side, 3), 255, dtype=np.uint8)
        left = 0 if place == "left" else side // 2
        pixels[side // 4 : -side // 4, left : left + side // 2] = colour
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        lines.append({"file_name": f"{i:03d}.png", "text": [f"a {name} square", f"{name} {place}"]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def save_text_encoder(folder: Path) -> Path:
    """Save a random T5 encoder of width 16 and a word tokenizer."""
    words = ["<pad>", "</s>", "<unk>", "a", "square", "left", "right", *COLOURS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", count=12, side=8)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_encoder(tmp_path_factory.mktemp("text"))


UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": (1, 1),
    "attention_types": ("none", "self"),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
    "conditioning_dim": 16,
    "encoder_hid_dim": 16,
    "cross_attention_dim": 16,
    "text_max_length": 16,
    "dropout": 0.1,
}


@pytest.fixture
def make_config(pictures: Path, text_folder: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Give a function that describes a run of a tiny U-Net; keyword arguments replace fields, dicts parts of them."""

    def make(enlarges: bool = False, **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "data": {"folder": str(pictures), "size": 8},
            "model": {"model_class": "base", "config": {**UNET, "sample_size": 8, "patch_size": 1}},
            "text": {"folder": str(text_folder), "max_length": 16},
            "optimizer": {"warmup_steps": 2},
            "output_dir": str(tmp_path / "run"),
            "max_steps": 4,
            "batch_size": 4,
            "trackers": (),
        }
        if enlarges:
            values["data"] |= {"crop": 4, "low_res_factor": 2}
            values["model"] = {
                "model_class": "super_resolution",
                "config": {**UNET, "sample_size": 8, "low_res_channels": 3},
            }
        for name, change in changes.items():
            values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
        parts = {part.name: part.type for part in fields(TrainConfig)}
        return TrainConfig(
            **{name: parts[name](**value) if isinstance(value, dict) else value for name, value in values.items()}
        )

    return make


@pytest.fixture
def make_batches(make_config: Callable[..., TrainConfig]) -> Callable[..., BatchMaker]:
    """Give a function that makes the batches of such a run."""

    def make(processes: int = 1, process: int = 0, **changes: Any) -> BatchMaker:
        config = make_config(**changes)
        source = ImageFolder.open(config.data.folder, config.data.size)
        cache = TextEmbeddingCache.build(source.captions, *load_text_encoder(config.text.folder), config.text.settings)
        return BatchMaker(config, source, cache, processes, process)

    return make
