import pytest
import torch
import torch.nn.functional as F
from flops import count_gflop


def test_convolutions_products_and_attention_are_counted():
    x, weight = torch.randn(2, 8, 16, 16), torch.randn(4, 8, 3, 3)
    query, key = torch.randn(1, 2, 32, 16), torch.randn(1, 2, 48, 16)
    product = torch.randn(10, 20), torch.randn(20, 30)
    convolution = 2 * 2 * 4 * 16 * 16 * 8 * 9
    attention = 2 * (2 * 2 * 32 * 48 * 16)
    assert count_gflop(lambda: F.conv2d(x, weight, padding=1)) == pytest.approx(convolution / 1e9)
    assert count_gflop(lambda: F.scaled_dot_product_attention(query, key, key)) == pytest.approx(attention / 1e9)
    assert count_gflop(lambda: product[0] @ product[1]) == pytest.approx(2 * 10 * 20 * 30 / 1e9)
