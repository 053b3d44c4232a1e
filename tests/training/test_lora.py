import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from diffusers_imagen.models.unet import ImagenUNet
from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.checkpoint import checkpoint_steps
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.config_file import load_config
from diffusers_imagen.training.dry_run import dry_run
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.fine_tune_config import LoraConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.run_folder import unet_folder
from diffusers_imagen.training.state import make_unet

MakeConfig = Callable[..., TrainConfig]

ATTENTION = ("add_k_proj", "add_v_proj", "to_k", "to_out.0", "to_q", "to_v")
WEIGHT_NAME = "pytorch_lora_weights.safetensors"


def pretrained(config: TrainConfig, folder: Path) -> Path:
    """Save a U-Net of a run's own kind whose last layers are not zero, as those of a trained one are not."""
    unet = make_unet(config.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    unet.save_pretrained(folder)
    return folder


@pytest.fixture
def make_lora_config(make_config: MakeConfig, tmp_path: Path) -> MakeConfig:
    """Give a function that describes a run that adapts a saved U-Net."""

    def make(enlarges: bool = False, **changes: Any) -> TrainConfig:
        folder = tmp_path / f"pretrained-{enlarges}"
        if not folder.exists():
            pretrained(make_config(enlarges=enlarges), folder)
        model = {"config": {}, "pretrained": str(folder)}
        values = {"lora": {"rank": 2, "alpha": 6.0}, "optimizer": {"warmup_steps": 0, "lr": 1e-2}} | changes
        lora = values.pop("lora")
        config = make_config(enlarges=enlarges, model=model | values.pop("model", {}), **values)
        return replace(config, lora=LoraConfig(**lora))

    return make


def final_state(config: TrainConfig) -> dict[str, torch.Tensor]:
    newest = next(iter(checkpoint_steps(Path(config.output_dir) / "checkpoints").values()))
    return {
        f"{name} {key}": tensor
        for name in ("unet", "ema", "optimizer")
        for key, tensor in load_file(newest / f"{name}.safetensors").items()
    }


def inputs(unet: ImagenUNet) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(2, 3, 8, 8, generator=generator)
    condition = {"low_res": picture.flip(0), "noise_level": torch.tensor([0.1, 0.4])}
    return {
        "sample": picture,
        "timestep": torch.tensor([200.0, 700.0]),
        "encoder_hidden_states": torch.randn(2, 5, 16, generator=generator),
        **(condition if unet.config.low_res_channels else {}),
    }


@torch.no_grad()
def predict(unet: ImagenUNet) -> torch.Tensor:
    return unet.eval()(**inputs(unet)).sample


def test_new_adapter_changes_nothing_and_only_it_is_trained(make_lora_config: MakeConfig) -> None:
    config = make_lora_config()
    plain, adapted = make_unet(config.model), make_unet(config.model, config.lora)

    torch.testing.assert_close(predict(adapted), predict(plain), rtol=0, atol=0)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in adapted.named_parameters() if ".lora_" in name}
    layers = {name.partition(".lora_")[0] for name in trained}
    assert {name.rpartition(".attn.")[2] for name in layers if ".attn." in name} == {*ATTENTION}
    assert {name for name in layers if ".attn." not in name} == {"text_adapter.pooling.to_q"}


@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("lora", [{"rank": 2, "alpha": 6.0}, {"rank": 3, "alpha": 1.0, "layers": "all"}])
def test_exported_adapter_is_as_strong_in_a_fresh_unet(
    make_lora_config: MakeConfig, enlarges: bool, lora: dict[str, Any]
) -> None:
    config = make_lora_config(enlarges=enlarges, lora=lora)
    averages: list[torch.Tensor] = []
    train(config, preview=lambda unet, step: averages.append(predict(unet)))
    kind = EfficientUNet2DConditionModel if enlarges else ImagenUNet2DConditionModel
    folder = Path(config.output_dir) / "lora"

    fresh = kind.from_pretrained(config.model.pretrained)
    before = predict(fresh)
    fresh.load_lora_adapter(folder, weight_name=WEIGHT_NAME, prefix=None)
    torch.testing.assert_close(predict(fresh), averages[-1], rtol=0, atol=1e-5)
    assert (averages[-1] - before).abs().max() > 1e-3
    # By its path, Diffusers does not read the header.
    fresh = kind.from_pretrained(config.model.pretrained)
    fresh.load_lora_adapter(str(folder / WEIGHT_NAME), prefix=None)
    torch.testing.assert_close(predict(fresh), averages[-1], rtol=0, atol=1e-5)
    assert not (folder.parent / "unet").exists()


def test_exported_adapter_says_what_it_is_and_takes_a_prefix(make_lora_config: MakeConfig) -> None:
    config = make_lora_config()
    averages: list[torch.Tensor] = []
    train(config, preview=lambda unet, step: averages.append(predict(unet)))
    file = Path(config.output_dir) / "lora" / WEIGHT_NAME
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["lora_adapter_metadata"])

    assert (header["r"], header["lora_alpha"]) == (2, 2)
    assert header["target_modules"] == [*ATTENTION]
    fresh = ImagenUNet2DConditionModel.from_pretrained(config.model.pretrained)
    fresh.load_lora_adapter({f"unet.{name}": tensor for name, tensor in load_file(file).items()}, prefix="unet")
    torch.testing.assert_close(predict(fresh), averages[-1], rtol=0, atol=1e-5)


def test_adapter_that_is_left_and_resumed_ends_in_the_same_bits(make_lora_config: MakeConfig, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"max_steps": 5, "lora": {"rank": 2, "alpha": 6.0, "dropout": 0.2, "layers": "all"}}
    whole = make_lora_config(**changes, output_dir=str(tmp_path / "a"))
    parts = make_lora_config(**changes, output_dir=str(tmp_path / "b"), preview={"every_steps": 2})
    train(whole)
    left = train(parts, preview=lambda unet, step: os.kill(os.getpid(), signal.SIGTERM))
    assert left == (3, 0, False)
    assert train(parts) == (5, 0, True)

    one, other = final_state(parts), final_state(whole)
    assert one.keys() == other.keys()
    assert all(".lora_" in name for name in one)
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []
    exported = [load_file(Path(config.output_dir) / "lora" / WEIGHT_NAME) for config in (whole, parts)]
    assert all(torch.equal(tensor, exported[1][name]) for name, tensor in exported[0].items())


def test_average_shares_the_frozen_weights_and_follows_the_others(make_lora_config: MakeConfig) -> None:
    unet = make_unet(make_lora_config().model, make_lora_config().lora)
    average = ExponentialAverage(unet, 0.5)
    with torch.no_grad():
        for weight in unet.parameters():
            if weight.requires_grad:
                weight.fill_(1.0)
    before = {name: weight.clone() for name, weight in average.model.named_parameters()}
    average.update(unet, 100)

    averaged = dict(average.model.named_parameters())
    for name, weight in unet.named_parameters():
        assert (averaged[name] is weight) != weight.requires_grad
        if weight.requires_grad:
            torch.testing.assert_close(averaged[name], 0.5 * before[name] + 0.5)


def test_adapter_of_other_weights_or_of_another_kind_is_not_resumed(make_lora_config: MakeConfig) -> None:
    config = make_lora_config(max_steps=1)
    train(config)
    with pytest.raises(ValueError, match="had lora "):
        train(make_lora_config(max_steps=2, lora={"rank": 2, "alpha": 2.0}))

    unet = ImagenUNet2DConditionModel.from_pretrained(config.model.pretrained)
    with torch.no_grad():
        unet.conv_in.bias.add_(1)
    unet.save_pretrained(config.model.pretrained)
    with pytest.raises(ValueError, match="had base "):
        train(make_lora_config(max_steps=2))


def test_run_of_an_adapter_can_be_described_anew_but_has_no_unet(make_lora_config: MakeConfig) -> None:
    config = make_lora_config(max_steps=1)
    config = replace(config, lora=replace(config.lora, target_modules=("to_q",)))
    train(config)

    assert load_config(Path(config.output_dir) / "train_config.json") == config
    with pytest.raises(ValueError, match="is the run of a LoRA, which has no U-Net of its own"):
        unet_folder(Path(config.output_dir))


def test_adapter_is_trained_as_it_is_drawn_with(make_lora_config: MakeConfig, tmp_path: Path) -> None:
    config = make_lora_config()
    with pytest.raises(ValueError, match=r"`data\.size` is 16, but the U-Net draws pictures of 8 pixels"):
        train(replace(config, data=replace(config.data, size=16)))

    text = {"layers": [-1], "prefix": "query: "}
    (Path(str(config.model.pretrained)).parent / "model_index.json").write_text(json.dumps({"text": text}))
    with pytest.raises(
        ValueError, match=r"`text.prefix` is '', but the U-Net .* was trained with 'query: '; give that"
    ):
        train(replace(config, output_dir=str(tmp_path / "other")))


def test_dry_run_tells_how_many_parameters_are_trained(make_lora_config: MakeConfig) -> None:
    config = make_lora_config()
    found = dry_run(config)
    unet = make_unet(config.model, config.lora)
    trained = sum(weight.numel() for weight in unet.parameters() if weight.requires_grad)
    whole = sum(weight.numel() for weight in unet.parameters())

    assert (found.trained, found.parameters) == (trained, whole)
    assert f"parameters   {whole:,}, of which {trained:,} are trained" in list(found.lines())
    assert found.memory.gradients == found.memory.averages == 4 * trained
    assert (found.memory.optimizer, found.memory.weights) == (8 * trained, 4 * whole)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0}, r"`lora\.rank` is 0"),
        ({"alpha": 0.0}, r"`lora\.alpha` is 0\.0"),
        ({"dropout": 1.0}, r"`lora\.dropout` is 1\.0"),
        ({"layers": "some"}, r"`lora\.layers` is 'some'"),
        ({"target_modules": ("to_z",)}, r"`lora\.target_modules` holds 'to_z'"),
    ],
)
def test_impossible_adapters_are_refused(make_lora_config: MakeConfig, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(make_lora_config(lora=lora))


def test_adapter_needs_a_trained_unet_and_has_one_average(make_lora_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"`model\.pretrained` is None"):
        make_lora_config(model={"pretrained": None})
    with pytest.raises(ValueError, match=r"`ema\.post_hoc` is True"):
        make_lora_config(ema={"post_hoc": True})
    with pytest.raises(ValueError, match="where there is no U-Net for 'base'"):
        train(make_lora_config(model={"pretrained": "nowhere"}))
