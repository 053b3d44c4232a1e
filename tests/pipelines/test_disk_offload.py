"""Models whose weights are in memory only while they run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

MODELS = ("text_encoder", "unet", "sr_unet_1")


@pytest.fixture
def folder(cascade: ImagenCascadePipeline, tmp_path: Path) -> Path:
    cascade.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def loaded(folder: Path) -> ImagenCascadePipeline:
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, prompt: str = "a red cat", **options: Any) -> torch.Tensor:
    return pipe(prompt, generator=torch.Generator().manual_seed(0), output_type="latent", **options).images


def in_memory(pipe: Any) -> list[str]:
    """Return the models whose weights all begin where PyTorch puts fresh ones; mapped ones hardly ever all do."""
    return [name for name in MODELS if all(w.data_ptr() % 64 == 0 for w in getattr(pipe, name).parameters())]


def test_loading_leaves_weights_in_their_files_until_a_stage_runs(loaded):
    assert in_memory(loaded) == []
    draw(loaded, stop_stage="base")
    assert in_memory(loaded) == ["text_encoder", "unet"]
    draw(loaded)
    assert in_memory(loaded) == list(MODELS)


def test_one_model_at_a_time_is_in_memory_and_none_after_the_call(loaded, cascade):
    loaded.enable_model_disk_offload()
    assert in_memory(loaded) == []
    seen: list[list[str]] = []
    for name in MODELS:
        getattr(loaded, name).register_forward_hook(lambda *_: seen.append(in_memory(loaded)))
    expected = draw(cascade)
    for _ in range(2):
        seen.clear()
        assert torch.equal(draw(loaded), expected)
        assert seen == [["text_encoder"]] + [["unet"]] * 3 + [["sr_unet_1"]] * 2
        assert in_memory(loaded) == []


def test_what_lies_in_the_checkpoint_is_not_written_again(loaded, tmp_path):
    loaded.enable_model_disk_offload(tmp_path / "offload")
    assert not (tmp_path / "offload").exists()


def test_weights_that_are_in_no_file_are_written(loaded, tmp_path, folder):
    with torch.no_grad():
        loaded.unet.conv_in.weight += 1
    loaded.sr_unet_1.to(torch.bfloat16)
    expected = draw(loaded)
    before = (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    loaded.enable_model_disk_offload(tmp_path / "offload")
    written = {path.name: load_file(path) for path in (tmp_path / "offload").iterdir()}
    assert list(written["unet-0.safetensors"]) == ["conv_in.weight"]
    names = {name for name, _ in (*loaded.sr_unet_1.named_parameters(), *loaded.sr_unet_1.named_buffers())}
    assert written["sr_unet_1-0.safetensors"].keys() == names
    assert torch.equal(draw(loaded), expected)
    assert torch.equal(draw(loaded), expected)
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == before


def test_a_cascade_that_was_never_saved_can_be_offloaded(make_cascade, cascade_parts, tmp_path):
    fresh = {
        name: type(part).from_config(part.config)
        for name, part in cascade_parts.items()
        if name in ("unet", "sr_unet_1")
    }
    for name, model in fresh.items():
        model.load_state_dict(cascade_parts[name].state_dict())
    pipe = make_cascade(2, **fresh, text_encoder=None, tokenizer=None)
    texts = dict(
        zip(("prompt_embeds", "prompt_attention_mask"), make_cascade(2).encode_prompt("a cat")[:2], strict=True)
    )
    expected = draw(pipe, None, **texts)
    pipe.enable_model_disk_offload()
    assert torch.equal(draw(pipe, None, **texts), expected)


def test_a_model_that_is_away_is_still_whole(loaded, folder, tmp_path):
    loaded.enable_model_disk_offload()
    loaded.save_pretrained(tmp_path / "again")
    for path in folder.rglob("*.safetensors"):
        assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert loaded.device == torch.device("cpu")
    with torch.no_grad():
        text = loaded.encode_prompt("a cat")
        loaded.unet(torch.zeros(1, 3, 8, 8), 500, text[0], text[1])


def test_removing_the_hooks_brings_everything_back_for_good(loaded, cascade):
    loaded.enable_model_disk_offload()
    loaded.remove_all_hooks()
    assert in_memory(loaded) == list(MODELS)
    assert torch.equal(draw(loaded), draw(cascade))
    assert in_memory(loaded) == list(MODELS)


def test_packed_weights_are_unpacked_first(loaded, cascade):
    loaded.unet.pack_weights()
    loaded.enable_model_disk_offload()
    assert {name for name, _ in loaded.unet.named_parameters()} == {
        name for name, _ in cascade.unet.named_parameters()
    }
    assert torch.equal(draw(loaded), draw(cascade))


def test_a_layout_in_memory_is_kept(loaded):
    loaded.unet.to(memory_format=torch.channels_last)
    loaded.enable_model_disk_offload()
    seen = []
    loaded.unet.register_forward_hook(
        lambda unet, *_: seen.append(unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last))
    )
    draw(loaded, stop_stage="base")
    assert seen == [True] * 3


def test_switching_it_on_again_takes_the_weights_as_they_are(loaded, tmp_path):
    loaded.enable_model_disk_offload(tmp_path / "first")
    loaded.remove_all_hooks()
    with torch.no_grad():
        loaded.unet.conv_out.weight.zero_()
    expected = draw(loaded)
    loaded.enable_model_disk_offload(tmp_path / "second")
    assert torch.equal(draw(loaded), expected)
    assert list(load_file(tmp_path / "second/unet-0.safetensors")) == ["conv_out.weight"]


def test_a_model_without_weights_in_memory_is_refused(make_cascade, cascade_parts):
    with torch.device("meta"):
        unet = type(cascade_parts["unet"]).from_config(cascade_parts["unet"].config)
    pipe = make_cascade(1, unet=unet, text_encoder=None, tokenizer=None)
    with pytest.raises(ValueError, match="The weights of `unet` are offloaded already"):
        pipe.enable_model_disk_offload()


def test_saving_over_the_files_that_weights_are_mapped_from_keeps_them(loaded, folder, cascade):
    loaded.save_pretrained(folder)
    again: Callable[..., Any] = ImagenCascadePipeline.from_pretrained(folder)
    assert torch.equal(draw(again), draw(cascade))
    assert torch.equal(draw(loaded), draw(cascade))
