# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How the judge learns: real pictures of single nouns, composed here, and a plain training loop.

Placement, size and background color of every picture are random, so what is left to learn is the noun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import torch
import torch.nn.functional as F
from art import ArtLibrary
from compose import paste_centered, scale_to_fit
from judge import JudgeCard, NounJudge, rank_nouns, shrink, to_signed, to_tensor
from nouns import NOUNS, Noun
from PIL import Image
from torch import Tensor

_COMPOSED_SIZE = 128


def nouns_with_art(art: ArtLibrary, styles: Sequence[str]) -> list[Noun]:
    """List the nouns that every style has a picture of."""
    return [noun for noun in NOUNS if all(any(art.has(style, cp) for cp in noun.art) for style in styles)]


def compose_picture(rng: Random, art: ArtLibrary, style: str, noun: Noun) -> Image.Image:
    """Draw one noun on a plain background, with random size and place, and shrink it for the judge."""
    size = _COMPOSED_SIZE
    white = rng.random() < 0.4
    red, green, blue = (255 if white else rng.randint(0, 255) for _ in range(3))
    canvas = Image.new("RGBA", (size, size), (red, green, blue, 255))
    code_points = rng.choice([cp for cp in noun.art if art.has(style, cp)])
    fill = size * rng.uniform(0.55, 0.95)
    picture = scale_to_fit(art.image(style, code_points), fill, fill)
    shift = 0.08 * size
    paste_centered(canvas, picture, size / 2 + rng.uniform(-shift, shift), size / 2 + rng.uniform(-shift, shift))
    return shrink(canvas)


def compose_set(art: ArtLibrary, styles: Sequence[str], per_noun: int, seed: str) -> tuple[Tensor, Tensor]:
    """Draw pictures of all nouns.

    Args:
        art: The pictures.
        styles: Styles to draw in, in turn.
        per_noun: Pictures of each noun.
        seed: Settles the chance; different seeds share no picture.

    Returns:
        Pictures, uint8 (B, 3, 32, 32), and the index of each one's noun (B,).
    """
    rng = Random(seed)
    nouns = nouns_with_art(art, styles)
    images, labels = [], []
    for number in range(per_noun):
        for index, noun in enumerate(nouns):
            images.append(compose_picture(rng, art, styles[(number + index) % len(styles)], noun))
            labels.append(index)
    return to_tensor(images), torch.tensor(labels)


def _disturb(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Change contrast, brightness and sharpness a little, and add noise, so that the judge forgives small flaws."""
    shape = (len(pictures), 1, 1, 1)
    contrast = 1 + 0.2 * (torch.rand(shape, generator=generator) - 0.5)
    brightness = 0.2 * (torch.rand(shape, generator=generator) - 0.5)
    blur = 0.6 * torch.rand(shape, generator=generator)
    noise = 0.1 * torch.rand(shape, generator=generator) * torch.randn(pictures.shape, generator=generator)
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(pictures, blurred, blur) * contrast + brightness + noise


def train_judge(pixels: Tensor, labels: Tensor, num_nouns: int, epochs: int, batch_size: int = 128) -> NounJudge:
    """Train a judge.

    Args:
        pixels: Pictures, uint8 (B, 3, 32, 32).
        labels: Index of each picture's noun (B,).
        num_nouns: Number of nouns.
        epochs: Times to look at every picture.
        batch_size: Pictures of a step.

    Returns:
        The trained judge.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    judge = NounJudge(num_nouns).train()
    steps = epochs * (len(pixels) // batch_size)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=max(2, steps), pct_start=0.1)
    for epoch in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        total = 0.0
        for start in range(0, len(order) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            logits = judge(_disturb(to_signed(pixels[batch]), generator))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / max(1, len(order) // batch_size):.3f}", flush=True)
    return judge


def examine(
    judge: NounJudge, pixels: Tensor, labels: Tensor, nouns: Sequence[str], styles: Sequence[str]
) -> JudgeCard:
    """Try a judge on real pictures that it has not seen and write down how it did."""
    ranks = rank_nouns(judge, pixels)
    is_top1 = ranks[:, 0] == labels
    is_top5 = (ranks[:, :5] == labels[:, None]).any(dim=1)
    mistakes = Counter(
        (nouns[int(true)], nouns[int(named)]) for true, named in zip(labels[~is_top1], ranks[~is_top1, 0], strict=True)
    )
    return JudgeCard(
        nouns=tuple(nouns),
        styles=tuple(styles),
        num_unseen=len(labels),
        top1=is_top1.float().mean().item(),
        top5=is_top5.float().mean().item(),
        confusions=tuple((true, named, count) for (true, named), count in mistakes.most_common(10)),
    )
