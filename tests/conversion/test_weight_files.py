"""Weights written one by one are the files that safetensors and Diffusers read."""

import json

import pytest
import torch
from safetensors.torch import load_file

from diffusers_imagen.conversion.weight_files import WeightFile, write_weights

WEIGHTS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.arange(4, dtype=torch.float16).reshape(2, 2).t(),
    "c": torch.tensor([1.5], dtype=torch.bfloat16),
    "d": torch.arange(3, dtype=torch.float64),
}
ANNOUNCED = [WeightFile(name, tuple(weight.shape), weight.dtype) for name, weight in WEIGHTS.items()]


@pytest.mark.parametrize(("limit", "count"), [(10**9, 1), (33, 2), (1, 4)])
def test_one_file_or_several_hold_what_was_given(tmp_path, limit, count):
    names = write_weights(tmp_path, ANNOUNCED, WEIGHTS.items(), limit)
    assert len(names) == count
    found = [(name, weight) for file in names for name, weight in load_file(tmp_path / file).items()]
    assert sorted(name for name, _ in found) == list(WEIGHTS)
    assert all(torch.equal(weight, WEIGHTS[name]) and weight.dtype == WEIGHTS[name].dtype for name, weight in found)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    assert index.exists() is (count > 1)
    if count > 1:
        content = json.loads(index.read_text())
        assert content["metadata"]["total_size"] == sum(weight.nbytes for weight in WEIGHTS.values())
        assert all(name in load_file(tmp_path / file) for name, file in content["weight_map"].items())


def test_other_weights_than_announced_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'b' comes as"):
        write_weights(tmp_path, ANNOUNCED[:1], [("b", WEIGHTS["b"])], 10**9)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="got fewer weights than were announced"):
        write_weights(tmp_path / "other", ANNOUNCED, [("a", WEIGHTS["a"])], 10**9)
