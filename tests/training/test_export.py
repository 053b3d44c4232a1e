from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.export import export_model
from diffusers_imagen.training.state import make_unet


def test_export_replaces_the_earlier_model_and_leaves_nothing_else(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        unet = make_unet(make_config().model)
        # What a crash in an earlier export may have left.
        (tmp_path / ".unet-unfinished").mkdir()
        (tmp_path / ".unet-unfinished" / "half.safetensors").write_bytes(b"half")
        export_model(unet, tmp_path / "unet")
        loaded = ImagenUNet2DConditionModel.from_pretrained(tmp_path / "unet")
        assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), loaded.parameters(), strict=True))

    assert sorted(path.name for path in (tmp_path / "unet").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_model_whose_export_was_cut_short_still_loads(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(make_unet(make_config().model), tmp_path / "unet")
    replace = Path.replace

    def killed_before_the_configuration(path: Path, target: Path) -> Path:
        if path.name == "config.json":
            raise KeyboardInterrupt
        return replace(path, target)

    newer = make_unet(make_config().model)
    monkeypatch.setattr(Path, "replace", killed_before_the_configuration)
    with pytest.raises(KeyboardInterrupt):
        export_model(newer, tmp_path / "unet")
    loaded = ImagenUNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert all(torch.equal(a, b) for a, b in zip(newer.parameters(), loaded.parameters(), strict=True))
