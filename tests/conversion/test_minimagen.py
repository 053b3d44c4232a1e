"""MinImagen's training folders; its U-Net's numbers are compared in test_imagen_pytorch.py."""

import json

import pytest
import torch

from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions
from diffusers_imagen.conversion.minimagen import convert_minimagen, read_minimagen


@pytest.fixture
def folder(tmp_path, make_state, minimagen):
    (tmp_path / "state_dicts").mkdir()
    (tmp_path / "parameters").mkdir()
    parameters = {"image_sizes": [8, 16], "timesteps": 25, "text_encoder_name": "t5_small"}
    (tmp_path / "parameters" / "imagen_params_20230101.json").write_text(json.dumps(parameters))
    state = make_state(minimagen["shapes"])
    for number in (0, 1):
        prefix = f"unets.{number}."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        torch.save({key: 0 * value for key, value in own.items()}, tmp_path / f"state_dicts/unet_{number}_state_1.pth")
        torch.save(own, tmp_path / f"state_dicts/unet_{number}_state_2.pth")
    return tmp_path


def test_a_folder_becomes_a_cascade_on_its_discrete_schedule(folder):
    stages = convert_minimagen(read_minimagen(folder)).stages
    assert list(stages) == ["base", "sr_1"]
    config, settings = stages["sr_1"].config, stages["sr_1"].settings
    assert (config["noise_condition"], config["num_train_timesteps"]) == ("step", 25)
    assert config["low_res_time_frequencies"] is None
    assert not config["final_low_res"]
    assert (settings["num_inference_steps"], settings["threshold_percentile"]) == (25, 0.9)
    # Step 5 of 25: betas from 0.004 to 0.8.
    signal = 1.0
    for step in range(6):
        signal *= 1 - (0.004 + step / 24 * 0.796)
    assert torch.tensor(settings["noise_level"] * torch.pi / 2).cos().item() == pytest.approx(signal**0.5, abs=1e-6)


def test_the_newest_weights_are_taken(folder):
    state = convert_minimagen(read_minimagen(folder)).stages["base"].state
    assert bool(state["conv_out.weight"].any())


def test_options_go_before_the_folders_parameters(folder):
    options = ImagenOptions(image_sizes=(16, 32), timesteps=50)
    config = convert_minimagen(read_minimagen(folder), options).stages["base"].config
    assert (config["sample_size"], config["num_train_timesteps"]) == (16, 50)


def test_folders_and_u_nets_of_others_are_refused(folder, tmp_path, make_state, first):
    with pytest.raises(ValueError, match="has no `state_dicts/unet_"):
        read_minimagen(tmp_path / "parameters")
    state = make_state(first["shapes"])
    own = {key.removeprefix("unets.0."): value for key, value in state.items() if key.startswith("unets.0.")}
    torch.save(own, folder / "state_dicts" / "unet_0_state_3.pth")
    with pytest.raises(ValueError, match="U-Net 0 is none of MinImagen's"):
        convert_minimagen(read_minimagen(folder))
    (folder / "state_dicts" / "other.pth").touch()
    with pytest.raises(ValueError, match=r"holds 'other\.pth'"):
        read_minimagen(folder)


def test_parameters_and_weights_of_another_kind_are_refused_by_name(folder):
    options = ImagenOptions(lowres_sample_noise_level=1.0)
    assert convert_minimagen(read_minimagen(folder), options).stages["sr_1"].settings["noise_level"] > 0.9
    (folder / "parameters" / "imagen_params_2.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"holds 'imagen_params_2\.json', a list"):
        read_minimagen(folder)
    (folder / "parameters" / "imagen_params_2.json").write_text("{}")
    torch.save([1], folder / "state_dicts" / "unet_0_state_3.pth")
    with pytest.raises(ValueError, match=r"holds 'unet_0_state_3\.pth', a list"):
        read_minimagen(folder)
