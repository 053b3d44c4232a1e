# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The judge: a small classifier that says which noun a picture of 32 by 32 pixels shows. And its file.

How it learns is in `judge_training.py`; what its answers count for is in `recognise.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

JUDGE_SIZE = 32
_WEIGHTS = "judge.safetensors"
_CARD = "judge.json"


@dataclass(frozen=True)
class JudgeCard:
    """Say what a judge knows and how well.

    Attributes:
        nouns: The classes, in the order of the logits.
        styles: Drawing styles it has seen.
        num_unseen: Number of unseen real pictures it was tried on.
        top1: Part of them it named right.
        top5: Part of them whose noun was among its five best guesses.
        confusions: Its most frequent mistakes on them: true noun, named noun, how often.
    """

    nouns: tuple[str, ...]
    styles: tuple[str, ...]
    num_unseen: int
    top1: float
    top5: float
    confusions: tuple[tuple[str, str, int], ...]


class NounJudge(nn.Module):
    """Classify pictures by the noun they show.

    Args:
        num_nouns: Number of classes.
    """

    def __init__(self, num_nouns: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 32, stride=1),
            *_convolution(32, 64, stride=2),
            *_convolution(64, 96, stride=2),
            *_convolution(96, 128, stride=1),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(128 * 4 * 4, num_nouns))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits (B, nouns) of pictures (B, 3, 32, 32) in [-1, 1]."""
        logits: Tensor = self.classifier(self.features(pictures))
        return logits


def _convolution(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]


def shrink(image: Image.Image) -> Image.Image:
    """Resize a picture of any size to what the judge looks at, antialiased, on white where it is transparent."""
    if image.mode in ("RGBA", "LA", "P"):
        cut_out = image.convert("RGBA")
        image = Image.new("RGBA", cut_out.size, "white")
        image.alpha_composite(cut_out)
    return image.convert("RGB").resize((JUDGE_SIZE, JUDGE_SIZE), Image.Resampling.BICUBIC)


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Stack shrunk pictures to uint8 (B, 3, 32, 32)."""
    pixels = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def to_signed(pixels: Tensor) -> Tensor:
    """Map uint8 pixels to [-1, 1]."""
    return pixels.float() / 127.5 - 1


@torch.no_grad()
def rank_nouns(judge: NounJudge, pixels: Tensor, batch_size: int = 256) -> Tensor:
    """Rank all nouns for each picture, the best guess first.

    Args:
        judge: The judge.
        pixels: Pictures, uint8 (B, 3, 32, 32).
        batch_size: Pictures looked at together.

    Returns:
        Indices of nouns (B, nouns).
    """
    judge.eval()
    logits = [judge(to_signed(batch)) for batch in pixels.split(batch_size)]
    return torch.cat(logits).argsort(dim=1, descending=True)


def save_judge(folder: Path, judge: NounJudge, card: JudgeCard) -> None:
    """Write a judge's weights and card to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (_WEIGHTS + ".tmp")
    save_file(judge.state_dict(), temporary)
    temporary.replace(folder / _WEIGHTS)
    (folder / _CARD).write_text(json.dumps(asdict(card), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_judge(folder: Path) -> tuple[NounJudge, JudgeCard]:
    """Read a judge that `save_judge` wrote.

    Raises:
        ValueError: If the folder holds no judge.
    """
    if not (folder / _WEIGHTS).is_file():
        raise ValueError(f"`judge` is {folder}, which has no {_WEIGHTS}: train one with `recognise.py train`.")
    fields = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    card = JudgeCard(
        nouns=tuple(fields["nouns"]),
        styles=tuple(fields["styles"]),
        num_unseen=fields["num_unseen"],
        top1=fields["top1"],
        top5=fields["top5"],
        confusions=tuple((true, named, count) for true, named, count in fields["confusions"]),
    )
    judge = NounJudge(len(card.nouns))
    judge.load_state_dict(load_file(folder / _WEIGHTS))
    return judge.eval(), card
