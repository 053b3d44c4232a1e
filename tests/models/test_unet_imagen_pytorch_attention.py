"""Attention of imagen-pytorch's U-Net against the formulas written out in double precision."""

import pytest
import torch

from diffusers_imagen.models.unet_imagen_pytorch_attention import AttentionShape, CrossAttention, Similarities
from diffusers_imagen.models.unet_imagen_pytorch_linear import LinearCrossAttention


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("similarity", ["rms", "cosine", "dot"])
@torch.no_grad()
def test_queries_are_compared_with_keys_as_each_release_does(similarity):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 4, dtype=torch.float64) for length in (5, 6, 6))
    module = Similarities(AttentionShape(3, 4, similarity)).double()
    if similarity == "rms":
        module.q_scale.copy_(torch.randn(4))
        module.k_scale.copy_(torch.randn(4))
        scores = 8 * (unit(query) * module.q_scale) @ (unit(key) * module.k_scale).transpose(-1, -2)
    elif similarity == "cosine":
        scores = 16 * unit(query) @ unit(key).transpose(-1, -2)
    else:
        scores = query @ key.transpose(-1, -2) / 2
    expected = (scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 5, 12)
    torch.testing.assert_close(module(query, key, value), expected)


@pytest.mark.parametrize(("similarity", "scale"), [("rms", 8.0), ("cosine", 1.0), ("dot", 0.5)])
@torch.no_grad()
def test_linear_attention_to_text_is_its_own_formula(similarity, scale):
    torch.manual_seed(0)
    shape = AttentionShape(2, 4, similarity)
    module = LinearCrossAttention(8, shape, 6).double()
    x, tokens = torch.randn(1, 5, 8, dtype=torch.float64), torch.randn(1, 3, 6, dtype=torch.float64)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    mixed = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        query = module.to_q(normed)[..., part].softmax(-1) * scale
        key = torch.cat([module.null_kv[:1], module.to_kv(tokens)[0, :, part]])[None].softmax(-2)
        value = torch.cat([module.null_kv[1:], module.to_kv(tokens)[0, :, 8 + 4 * head : 12 + 4 * head]])[None]
        mixed.append(query @ key.transpose(-1, -2) @ value)
    expected = module.norm_out(module.to_out(torch.cat(mixed, dim=-1)))
    torch.testing.assert_close(module(x, tokens), expected)
    # The same weights, asked in the plain way, say something else.
    plain = CrossAttention(8, shape, 6).double()
    plain.load_state_dict(module.state_dict())
    assert float((plain(x, tokens) - expected).abs().max()) > 0.01
