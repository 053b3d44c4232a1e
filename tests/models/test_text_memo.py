"""What a U-Net remembers of a text between steps changes no picture."""

import torch

from diffusers_imagen.models.stage_model import ImagenStageModel
from diffusers_imagen.models.unet import TextMemo


@torch.no_grad()
def test_a_second_call_with_the_memo_gives_what_a_call_without_gives(unet, inputs_of):
    first, second = inputs_of(unet), inputs_of(unet)
    second["sample"] = second["sample"].flip(-1)
    expected = [unet(**inputs).sample for inputs in (first, second)]
    memo = TextMemo()
    outputs = [unet(**inputs, text_memo=memo).sample for inputs in (first, second)]
    assert all(torch.equal(output, other) for output, other in zip(outputs, expected, strict=True))
    assert memo.adapted is not None
    assert sum(len(keys) for keys in memo.keys.values()) == sum(
        name.endswith("add_k_proj") for name, _ in unet.named_modules()
    )


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def predict(model, inputs, text, mask):
    log_snr = torch.tensor([1.0, 0.0, -2.0])
    return model.predict(inputs["sample"], log_snr, text, mask, inputs.get("low_res"), inputs.get("noise_level")).value


@torch.no_grad()
def test_a_stage_reads_each_text_once_even_when_two_alternate(unet, inputs_of):
    inputs = inputs_of(unet)
    states, mask = inputs["encoder_hidden_states"], inputs["encoder_attention_mask"]
    texts = [(states, mask), (states.flip(0), mask.flip(0))]
    expected = [predict(ImagenStageModel(unet), inputs, *text) for text in texts]
    calls = count_calls(unet.text_adapter)
    model = ImagenStageModel(unet)
    for _ in range(3):
        for text, other in zip(texts, expected, strict=True):
            assert torch.equal(predict(model, inputs, *text), other)
    assert len(calls) == 2


def test_nothing_is_remembered_where_gradients_are_wanted(unet, inputs_of):
    inputs = inputs_of(unet)
    states, mask = inputs["encoder_hidden_states"].requires_grad_(), inputs["encoder_attention_mask"]
    model = ImagenStageModel(unet)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(predict(model, inputs, states, mask).sum(), states)
        assert gradient.abs().sum() > 0


@torch.no_grad()
def test_a_memo_of_a_packed_unet_is_no_other(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = unet(**inputs).sample
    unet.pack_weights()
    memo = TextMemo()
    for _ in range(2):
        output = unet(**inputs, text_memo=memo).sample
        assert (output - expected).abs().max() < 1e-5 * expected.abs().max()
