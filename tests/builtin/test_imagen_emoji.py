from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoTokenizer, BertModel

from diffusers_imagen.builtin import packing
from diffusers_imagen.builtin.library import MAX_FILE_BYTES, builtin_path
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.text.encoding import TextSettings, encode_text

PACKED = Path(packing.__file__).parent / "imagen-emoji"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builtin_path("imagen-emoji", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> ImagenCascadePipeline:
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_encoder_reads_as_its_source_says(folder):
    # Token ids and the cosine of the two sentence vectors are those published with the 4-bit encoder.
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    text_encoder = BertModel.from_pretrained(folder / "text_encoder")
    prompts = ["a cat wearing a hat", "一只戴着帽子的猫"]
    assert tokenizer("query: " + prompts[0]).input_ids == [0, 39, 860, 12, 10, 3345, 25649, 10, 839, 2]
    assert tokenizer("query: " + prompts[1]).input_ids == [0, 39, 860, 12, 6, 16324, 7318, 997, 26427, 41, 9719, 2]
    text = encode_text(prompts, tokenizer, text_encoder, TextSettings(layers=(12,), prefix="query: "))
    means = (text.hidden_states * text.mask[..., None]).sum(1) / text.mask.sum(1, keepdim=True)
    assert cosine_similarity(means[0], means[1], dim=0).item() == pytest.approx(0.8869, abs=2e-4)


def test_the_encoder_reads_any_text(pipe, monkeypatch):
    prompts = [
        "a cat wearing a hat",
        "一只戴着帽子的猫",
        "قطة ترتدي قبعة",
        "🐱🎩",
        "a\x00cat\n",
        "cat " * 2500,
        "",
        "\t",
    ]
    states, mask, _, _ = pipe.encode_prompt(prompts)
    assert states.shape == (8, 64, 768)
    assert states.isfinite().all()
    counts = mask.sum(1).tolist()
    assert counts[5:] == [64, 0, 0]
    assert min(counts[:5]) > 4
    # Alone, and with a tokenizer that pads on the other side, a prompt has the same states.
    monkeypatch.setattr(pipe.tokenizer, "padding_side", "left")
    for row, prompt in enumerate(prompts[:3]):
        alone, alone_mask, _, _ = pipe.encode_prompt(prompt)
        assert alone_mask.all()
        torch.testing.assert_close(alone[0], states[row, : counts[row]], rtol=0, atol=1e-5)


def test_the_packed_files_keep_their_sizes():
    sizes = {path.name: path.stat().st_size for path in PACKED.glob("*.safetensors")}
    assert max(sizes.values()) <= MAX_FILE_BYTES
    assert sum(size for name, size in sizes.items() if "unet" in name) <= 26_000_000
    assert (PACKED / "files" / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0")


def test_both_languages_are_drawn_and_a_seed_means_a_picture(pipe):
    def draw(prompts: list[str]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
        steps = {"base": 2, "sr_1": 1}
        return pipe(prompts, num_inference_steps=steps, generator=generators, output_type="pt").images

    first = draw(["a cat wearing a hat", "一只戴着帽子的猫"])
    assert first.shape == (2, 3, 256, 256)
    assert torch.equal(first, draw(["a cat wearing a hat", "一只戴着帽子的猫"]))
    assert (first - draw(["a banana", "一根香蕉"])).abs().mean() > 0.01


def test_the_prompt_decides_a_colour(pipe):
    # A heart of this art is red, a tree green: over a few seeds the mean colours must part.
    def redness(prompt: str) -> float:
        generators = [torch.Generator().manual_seed(i) for i in range(4)]
        arguments = {"num_images_per_prompt": 4, "generator": generators, "num_inference_steps": 8}
        images = pipe(prompt, stop_stage="base", output_type="pt", **arguments).images
        return (images[:, 0] - images[:, 1]).mean().item()

    assert redness("a heart") > redness("a tree") + 0.1
