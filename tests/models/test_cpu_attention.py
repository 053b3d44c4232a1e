"""Attention by matrix products against the definition in float64."""

import pytest
import torch

from diffusers_imagen.models.cpu_attention import _MAX_KEPT_BYTES, matmul_attention, prefers_matmul


def reference(query, key, value, mask):
    scores = torch.einsum("bnhd,bmhd->bhnm", query.double(), key.double()) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, value.double())


def tensors(B, N, L, H, D, dtype):
    generator = torch.Generator().manual_seed(0)
    query, image_key, image_value = (torch.randn(B, N, H, D, generator=generator).to(dtype) for _ in range(3))
    text_key, text_value = (torch.randn(B, L, H, D, generator=generator).to(dtype) for _ in range(2))
    mask = torch.ones(B, N + L, dtype=torch.bool)
    mask[-1, N + 1 :] = False
    return query, [image_key, text_key], [image_value, text_value], mask


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03)])
def test_the_joined_parts_are_attended_to_as_the_definition_says(dtype, tolerance, padded):
    query, keys, values, mask = tensors(2, 48, 7, 3, 16, dtype)
    mask = mask if padded else torch.ones_like(mask)
    output = matmul_attention(query, keys, values, mask)
    assert output.dtype == dtype
    expected = reference(query, torch.cat(keys, 1), torch.cat(values, 1), mask)
    assert (output.double() - expected).abs().max() < tolerance


def test_rows_taken_in_turns_are_the_rows_taken_at_once(monkeypatch):
    query, keys, values, mask = tensors(2, 80, 7, 3, 16, torch.float32)
    whole = matmul_attention(query, keys, values, mask)
    monkeypatch.setattr("diffusers_imagen.models.cpu_attention._CHUNK_BYTES", 0)
    assert (matmul_attention(query, keys, values, mask) - whole).abs().max() < 1e-6


def test_gradients_are_those_of_the_definition():
    query, keys, values, mask = tensors(2, 12, 5, 2, 8, torch.float64)
    parts = [query, *keys, *values]
    for part in parts:
        part.requires_grad_()
    weight = torch.randn(query.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    joined = reference(query, torch.cat(keys, 1), torch.cat(values, 1), mask)
    expected = torch.autograd.grad((joined * weight).sum(), parts)
    gradients = torch.autograd.grad((matmul_attention(query, keys, values, mask) * weight).sum(), parts)
    # The softmax is computed in float32.
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5)


def test_only_bfloat16_on_cpus_goes_this_way_and_training_only_while_scores_are_few():
    query = torch.zeros(1, 64, 2, 16)
    assert not prefers_matmul(query, 64)
    query = query.bfloat16().requires_grad_()
    many = _MAX_KEPT_BYTES // (6 * 2 * 64) + 1
    assert prefers_matmul(query, many - 1)
    assert not prefers_matmul(query, many)
    with torch.no_grad():
        assert prefers_matmul(query, many)


def test_attention_compiles_to_one_graph_and_gives_the_same():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 16, 2, 8, dtype=torch.bfloat16) for _ in range(3))
    mask = torch.arange(16)[None] < 12
    # Raises where the graph breaks.
    compiled = torch.compile(matmul_attention, fullgraph=True, backend="eager")
    assert torch.equal(compiled(query, [key], [value], mask), matmul_attention(query, [key], [value], mask))
