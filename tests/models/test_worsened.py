"""A U-Net without some of its blocks: which can be left out, and that nothing is left behind."""

import math

import pytest
import torch

from diffusers_imagen.models.stage_model import stage_model_for
from diffusers_imagen.models.worsened import with_blurred_queries, without_blocks, without_self_attention


def inputs():
    generator = torch.Generator().manual_seed(0)
    x_t, text = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 16, generator=generator)
    return x_t, torch.tensor([-1.0, 2.0]), text, torch.ones(2, 3, dtype=torch.bool)


def test_a_skipped_block_hands_on_what_it_gets(cascade_parts):
    unet = cascade_parts["unet"]
    blocks = unet.mid_blocks
    entered, left = [], []
    handles = [
        blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0])),
        unet.up_levels[0][0].register_forward_pre_hook(lambda _, args: left.append(args[0])),
    ]
    with torch.no_grad():
        without_blocks(unet, [("mid_blocks", [0, 1])]).predict(*inputs())
    for handle in handles:
        handle.remove()
    # The way up starts from what came down; beside it is the first skip connection.
    assert torch.equal(left[0][:, : entered[0].shape[1]], entered[0])


def blurred(unet, places):
    return with_blurred_queries(unet, places, 1.5)


@pytest.mark.parametrize("made", [without_blocks, without_self_attention, blurred])
@torch.no_grad()
def test_the_u_net_is_as_it_was_afterwards_also_when_it_fails(cascade_parts, made):
    unet = cascade_parts["unet"]
    plain, worse = stage_model_for(unet), made(unet, [("mid_blocks", [0])])
    before = plain.predict(*inputs()).value
    changed = worse.predict(*inputs()).value
    assert not torch.equal(changed, before)
    with pytest.raises(ValueError, match="`sample` is 7 x 7"):
        worse.predict(inputs()[0][..., :7, :7], *inputs()[1:])
    assert torch.equal(plain.predict(*inputs()).value, before)
    assert torch.equal(worse.predict(*inputs()).value, changed)


def test_only_blocks_that_keep_the_width_can_be_skipped(cascade_parts):
    unet, enlargement = cascade_parts["unet"], cascade_parts["sr_unet_1"]
    without_blocks(enlargement, [("down_levels.0", [0])])
    with pytest.raises(ValueError, match=r"`indices` is \[0\], but of 'up_levels.0' none can be skipped"):
        without_blocks(unet, [("mid_blocks", [0]), ("up_levels.0", [0])])
    with pytest.raises(ValueError, match=r"`indices` is \[2\], but of 'mid_blocks' \[0, 1\] can be skipped"):
        without_blocks(unet, [("mid_blocks", [2])])
    with pytest.raises(ValueError, match=r"`indices` is \[\]"):
        without_blocks(unet, [("mid_blocks", [])])
    with pytest.raises(
        ValueError, match=r"`fqn` is 'auto', but the U-Net's lists of blocks are down_levels.0, .*mid_b"
    ):
        without_blocks(unet, [("auto", [0])])


def test_only_self_attention_can_be_perturbed(cascade_parts):
    unet = cascade_parts["unet"]
    with pytest.raises(ValueError, match=r"`indices` is \[0, 1\], but of 'mid_blocks' \[0\] can be perturbed"):
        without_self_attention(unet, [("mid_blocks", [0, 1])])
    with pytest.raises(ValueError, match=r"of 'down_levels.0' none can be perturbed"):
        without_self_attention(unet, [("down_levels.0", [0])])


@pytest.mark.parametrize("with_memo", [False, True])
@torch.no_grad()
def test_perturbed_attention_is_a_softmax_over_the_place_itself_and_the_text(cascade_parts, with_memo):
    # As the U-Net's own attention with all other places masked: one row of the picture at a time, beside the text.
    unet = cascade_parts["unet"]
    attn = unet.mid_blocks[0].attention.attn
    seen = []
    handle = attn.register_forward_hook(lambda _, args, output: seen.append(args))
    x_t, log_snr, text, mask = inputs()
    mask[0, 1:] = False
    stage_model_for(unet).predict(x_t, log_snr, text, mask)
    handle.remove()
    tokens, tokens_text, tokens_mask = seen[0][:3]
    expected = torch.cat([attn(tokens[:, i : i + 1], tokens_text, tokens_mask) for i in range(tokens.shape[1])], dim=1)
    worse = without_self_attention(unet, [("mid_blocks", [0])])
    memo = [(attn.add_k_proj(tokens_text), attn.add_v_proj(tokens_text))] if with_memo else None
    perturbed = worse._hook(attn, (tokens, tokens_text, tokens_mask, memo), None)
    torch.testing.assert_close(perturbed, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(perturbed, attn(tokens, tokens_text, tokens_mask), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.7, 4.0, math.inf])
@torch.no_grad()
def test_queries_are_blurred_over_the_map_and_nothing_else_is(cascade_parts, sigma):
    unet = cascade_parts["unet"]
    attn, rows, columns, seen = unet.mid_blocks[0].attention.attn, 4, 6, []
    handles = [
        attn.to_q.register_forward_pre_hook(
            lambda _, args: seen.append(attn.to_q.weight.double() @ args[0].double().mT)
        ),
        attn.to_k.register_forward_hook(lambda _, args, output: seen.append(output)),
        attn.register_forward_pre_hook(lambda _, args: seen.append(args)),
    ]
    _, log_snr, text, mask = inputs()
    x_t = torch.randn(2, 3, 2 * rows, 2 * columns, generator=torch.Generator().manual_seed(1))
    blurred_queries = []
    worse = with_blurred_queries(unet, [("mid_blocks", [0])], sigma)
    processor = attn.processor

    def spy(module, tokens, *rest):
        blurred_queries.append(module.to_q(tokens))
        return processor(module, tokens, *rest)

    attn.processor = spy
    worse.predict(x_t, log_snr, text, mask)
    attn.processor = processor
    for handle in handles:
        handle.remove()
    query = next(item for item in seen if isinstance(item, torch.Tensor) and item.dtype is torch.float64)
    query = query.unflatten(-1, (rows, columns))

    def weights(side):
        radius = min(math.ceil(3 * sigma), side - 1)
        matrix = torch.zeros(side, side, dtype=torch.float64)
        for place in range(side):
            for step in range(-radius, radius + 1):
                # Mirrored at the edges, which are not repeated.
                source = abs(place + step)
                source = 2 * (side - 1) - source if source > side - 1 else source
                matrix[place, source] += math.exp(-0.5 * (step / sigma) ** 2)
        return matrix / matrix.sum(1, keepdim=True)

    if math.isinf(sigma):
        expected = query.mean((-2, -1), keepdim=True).expand_as(query)
    else:
        expected = weights(rows) @ query @ weights(columns).mT
    # The last call is that of the hook; before it came the plain one.
    torch.testing.assert_close(blurred_queries[-1].double(), expected.flatten(-2).mT, rtol=0, atol=1e-5)
    assert not torch.allclose(blurred_queries[0], blurred_queries[-1], atol=1e-2)
