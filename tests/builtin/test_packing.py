import pytest
import torch

from diffusers_imagen.builtin.packing import pack_q8, unpack_tensors


def test_int8_keeps_each_weight_within_half_a_step_of_its_channel():
    weight = torch.randn(8, 16, 3, 3) * torch.logspace(-4, 2, 8)[:, None, None, None]
    unpacked = unpack_tensors(pack_q8({"conv.weight": weight}, smallest=1))["conv.weight"]
    step = weight.abs().flatten(1).amax(1)[:, None, None, None] / 127
    assert ((unpacked - weight).abs() <= step * 0.501).all()
    assert unpacked.shape == weight.shape


def test_small_tensors_and_integers_stay_themselves():
    state = {"bias": torch.linspace(-1, 1, 5).half(), "positions": torch.arange(4)}
    unpacked = unpack_tensors(pack_q8(state))
    assert unpacked["bias"].dtype == torch.float32
    assert torch.equal(unpacked["bias"], state["bias"].float())
    assert torch.equal(unpacked["positions"], state["positions"])


def test_a_channel_of_zeros_stays_zero():
    assert unpack_tensors(pack_q8({"w": torch.zeros(2, 8)}, smallest=1))["w"].abs().max() == 0


def test_four_bits_are_read_as_the_format_says():
    # One row, one block: byte i holds column i in its low nibble and column 16 + i in its high one.
    columns = torch.arange(32) % 16
    values = (columns[:16] | (columns[16:] << 4)).to(torch.uint8)[None]
    unpacked = unpack_tensors({"w.q4": values, "w.scale": torch.tensor([[0.5]], dtype=torch.float16)})["w"]
    assert torch.equal(unpacked, ((columns - 8) * 0.5)[None])


def test_a_parameter_called_scale_is_no_packing():
    assert torch.equal(unpack_tensors({"norm.scale": torch.ones(3)})["norm.scale"], torch.ones(3))


def test_a_missing_scale_is_refused():
    with pytest.raises(ValueError, match=r"'w.q8' without 'w.scale'"):
        unpack_tensors({"w.q8": torch.zeros(1, 2, dtype=torch.int8)})
