"""What may count as a weight, wherever it comes from."""

import pytest
import torch

from diffusers_imagen.conversion.deepfloyd_files import convert_folders
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.weight_checks import check_weights

WRONG = {
    "whole numbers": (torch.ones(2, dtype=torch.int64), "as torch.int64"),
    "complex numbers": (torch.ones(2, dtype=torch.complex64), "as torch.complex64"),
    "sparse": (torch.eye(2).to_sparse(), "torch.sparse_coo"),
    "no values": (torch.ones(2, device="meta"), "without values"),
    "a number": (7, "a int and no tensor"),
    "more shape than storage": (torch.zeros(1).expand(1, 10**10, 8), "but only 4 bytes for it"),
    "NaN": (torch.tensor([1.0, float("nan")]), "with NaN or infinity"),
    "infinity": (torch.tensor([1.0, -float("inf")], dtype=torch.bfloat16), "with NaN or infinity"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_weight_is_refused_by_name(name):
    value, message = WRONG[name]
    averaged = {"0.step": torch.tensor(1), "0.ema_model.a": value, "0.ema_model.b": torch.ones(1)}
    good = {"unets.0.a": torch.ones(2), "unets.0.b": torch.ones(1)}
    for data in (good | {"unets.0.a": value}, {"model": good, "ema": averaged}):
        with pytest.raises(ValueError, match=f"U-Net 0 .* holds 'a'.*{message}"):
            find_unets(data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_plain_weights_parameters_views_and_empty_ones_pass(dtype):
    many = torch.arange(12.0, dtype=dtype)
    check_weights({"a": many, "b": many[2:8].view(2, 3).T, "c": torch.nn.Parameter(many), "d": many[:0]}, "it")


def test_an_original_file_of_ifs_with_nan_is_refused_and_nothing_is_written(original_folder, tmp_path):
    folder = original_folder("small", lambda weights: weights["out.2.bias"].fill_(float("nan")))
    for is_dry in (True, False):
        with pytest.raises(ValueError, match=r"pytorch_model\.bin' holds 'out\.2\.bias' with NaN"):
            convert_folders([folder], tmp_path / "out", dry_run=is_dry)
    assert not (tmp_path / "out").exists()
