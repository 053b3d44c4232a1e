"""A U-Net without some of its blocks: which can be left out, and that nothing is left behind."""

import pytest
import torch

from diffusers_imagen.models.skipped_blocks import SkippedBlocksModel, skippable_blocks
from diffusers_imagen.models.stage_model import stage_model_for


def inputs():
    generator = torch.Generator().manual_seed(0)
    x_t, text = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 16, generator=generator)
    return x_t, torch.tensor([-1.0, 2.0]), text, torch.ones(2, 3, dtype=torch.bool)


def test_a_skipped_block_hands_on_what_it_gets(cascade_parts):
    unet = cascade_parts["unet"]
    blocks = skippable_blocks(unet, "mid_blocks", [0, 1])
    assert blocks == list(unet.mid_blocks)
    entered, left = [], []
    handles = [
        blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0])),
        unet.up_levels[0][0].register_forward_pre_hook(lambda _, args: left.append(args[0])),
    ]
    with torch.no_grad():
        SkippedBlocksModel(unet, blocks).predict(*inputs())
    for handle in handles:
        handle.remove()
    # The way up starts from what came down; beside it is the first skip connection.
    assert torch.equal(left[0][:, : entered[0].shape[1]], entered[0])


@torch.no_grad()
def test_the_u_net_is_as_it_was_afterwards_also_when_it_fails(cascade_parts):
    unet = cascade_parts["unet"]
    plain, worse = stage_model_for(unet), SkippedBlocksModel(unet, skippable_blocks(unet, "mid_blocks", [1]))
    before = plain.predict(*inputs()).value
    changed = worse.predict(*inputs()).value
    assert not torch.equal(changed, before)
    with pytest.raises(ValueError, match="`sample` is 7 x 7"):
        worse.predict(inputs()[0][..., :7, :7], *inputs()[1:])
    assert torch.equal(plain.predict(*inputs()).value, before)
    assert torch.equal(worse.predict(*inputs()).value, changed)


def test_only_blocks_that_keep_the_width_can_be_skipped(cascade_parts):
    unet, enlargement = cascade_parts["unet"], cascade_parts["sr_unet_1"]
    assert skippable_blocks(enlargement, "down_levels.0", [0]) == [enlargement.down_levels[0][0]]
    with pytest.raises(ValueError, match=r"`indices` is \[0\], but none of 'up_levels.0' can be skipped"):
        skippable_blocks(unet, "up_levels.0", [0])
    with pytest.raises(ValueError, match=r"`indices` is \[2\], but of 'mid_blocks' \[0, 1\] can be skipped"):
        skippable_blocks(unet, "mid_blocks", [2])
    with pytest.raises(ValueError, match=r"`indices` is \[\]"):
        skippable_blocks(unet, "mid_blocks", [])
    with pytest.raises(
        ValueError, match=r"`fqn` is 'auto', but the U-Net's lists of blocks are down_levels.0, .*mid_blocks"
    ):
        skippable_blocks(unet, "auto", [0])
