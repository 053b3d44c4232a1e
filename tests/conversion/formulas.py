"""Weights and inputs by formula: the same for whoever recorded the references and for the tests."""

import math

import torch


def by_formula(shapes):
    """Return weights that are the same everywhere: sines, and around 1 where norms and scales begin with ones."""
    state = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        count = math.prod(shape)
        waves = torch.sin(torch.arange(count, dtype=torch.float64) * 0.7 + number).reshape(shape)
        starts_at_one = name.endswith((".g", ".gamma", "_scale")) or (name.endswith(".weight") and len(shape) == 1)
        if name.endswith(".beta"):
            waves = waves * 0
        state[name] = (1 + 0.2 * waves if starts_at_one else waves / math.sqrt(max(shape))).float()
    return state


def inputs_by_formula(side, text_width):
    """Return a batch of one: noisy picture, noise, text, smaller picture and its noise, as the references have them."""

    def waves(*shape, phase):
        return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.9 + phase).reshape(shape).float()

    return {
        "x": waves(1, 3, side, side, phase=0),
        "time": torch.tensor([1.0]),
        "text_embeds": waves(1, 4, text_width, phase=1),
        "text_mask": torch.tensor([[True, True, True, False]]),
        "lowres_cond_img": waves(1, 3, side, side, phase=2),
        "lowres_noise_times": torch.tensor([2.0]),
    }
