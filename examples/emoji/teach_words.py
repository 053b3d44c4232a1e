# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Teach a base's text adapter to read descriptions as the nouns that they describe; the U-Net stays as it is.

python examples/emoji/teach_words.py --unet runs/base_64/unet --data runs/data/mixed --encoder runs/encoder \
    --out runs/base_64_taught

"Purring pet with whiskers" shall become the tokens that "a cat" is to the U-Net, alone and within a caption ("... wearing a
hat"). What the plain words are is what the adapter made of them before, and captions of scenes are held to what they
were. What was understood is told by descriptions that are not taught: the last but one of each noun.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from describe import UNSEEN, read_descriptions
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from word_lessons import Lesson, Reader, Reading, lessons_of, nouns_of

from diffusers_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.models.embeddings import TextAdapter
from diffusers_imagen.text.loading import load_text_encoder

# Weights: which noun, how near to its tokens, how near captions stay. Noise and lost words: against learning by heart.
NAMING, NEARNESS, HOLDING = 0.3, 0.5, 12.0
STATE_NOISE = 0.3
WORDS_LOST = 0.2
_SHARPNESS = 4.0
_REPORT_EVERY = 100


def captions_of(folder: Path, count: int, chosen: random.Random) -> list[str]:
    """Read some of a data set's captions, as many scenes as halve the count.

    Raises:
        ValueError: If the folder has no `metadata.jsonl`.
    """
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise ValueError(
            f"`folder` {folder} has no metadata.jsonl; give a folder that make_dataset.py or join.py made."
        )
    lines = metadata.read_text(encoding="utf-8").splitlines()
    return [
        caption for line in chosen.sample(lines, min(count // 2, len(lines))) for caption in json.loads(line)["text"]
    ]


class Teaching:
    """Train an adapter in place.

    Args:
        adapter: The text adapter of a U-Net.
        lessons: Descriptions.
        kept: Captions that stay what they were.
        nouns: The tokens to choose among (2, N, D).
        rate: Largest learning rate.
    """

    def __init__(
        self, adapter: TextAdapter, lessons: Sequence[Lesson], kept: Sequence[Reading], nouns: Tensor, rate: float
    ) -> None:
        self.adapter, self.lessons, self.kept, self.nouns, self.rate = adapter, lessons, kept, nouns, rate
        self.sharpness = _SHARPNESS / nouns.var(1).mean()
        self.noise = STATE_NOISE * torch.cat([lesson.reading.states.float() for lesson in lessons[::5]]).std(0)
        self.optimizer = torch.optim.AdamW(adapter.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)

    def step(self, chosen: random.Random, progress: float, batch_size: int) -> dict[str, float]:
        """Take one step, the rate falling to 0 over its second half, and return the parts of the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, 20 * progress + 0.02, 2 * (1 - progress))
        naming, nearness = self._lesson_losses(chosen.choices(self.lessons, k=batch_size))
        states, mask, tokens, pooled = _batch(chosen.choices(self.kept, k=batch_size))
        tokens_now, _, pooled_now = self.adapter(states, mask)
        holding = _relative(tokens_now[mask], tokens[mask]) + _relative(pooled_now, pooled)
        self.optimizer.zero_grad()
        (NAMING * naming + NEARNESS * nearness + HOLDING * holding).backward()
        nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
        self.optimizer.step()
        return {"naming": naming.item(), "nearness": nearness.item(), "holding": holding.item()}

    def _lesson_losses(self, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
        states, mask, tokens, pooled = _batch([lesson.reading for lesson in lessons])
        inside = pad_sequence([lesson.inside for lesson in lessons], batch_first=True)
        lost = inside & (torch.rand(inside.shape) < WORDS_LOST)
        lost &= (inside & ~lost).any(1, keepdim=True)  # never the whole description
        mask, inside = mask & ~lost, inside & ~lost
        states = states + self.noise * (torch.randn(len(states), 1, states.shape[2]) + torch.randn_like(states))
        tokens_now, _, pooled_now = self.adapter(states, mask)
        nearness = _relative(tokens_now[mask], tokens[mask]) + _relative(pooled_now, pooled)
        choices = self.nouns[[lesson.language for lesson in lessons]]
        distance = (choices - _middle(tokens_now, inside)[:, None]).square().mean(-1)
        wanted = torch.tensor([lesson.noun for lesson in lessons])
        return F.cross_entropy(-self.sharpness * distance, wanted, label_smoothing=0.05), nearness


def _middle(tokens: Tensor, inside: Tensor) -> Tensor:
    return (tokens * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)


def _batch(readings: Sequence[Reading]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return states (B, L, S * E), mask (B, L), tokens (B, L, D) and pooled texts (B, T)."""
    states = pad_sequence([reading.states.float() for reading in readings], batch_first=True)
    tokens = pad_sequence([reading.tokens for reading in readings], batch_first=True)
    lengths = torch.tensor([len(reading.states) for reading in readings])
    mask = torch.arange(states.shape[1]) < lengths[:, None]
    return states, mask, tokens, torch.stack([reading.pooled for reading in readings])


def _relative(now: Tensor, wanted: Tensor) -> Tensor:
    return (now - wanted).square().mean() / wanted.square().mean()


@torch.no_grad()
def understood(adapter: TextAdapter, asked: Sequence[Lesson], nouns: Tensor) -> float:
    """Return the share of descriptions whose tokens' middle is nearest to their own noun's, of all nouns."""
    right = 0
    for start in range(0, len(asked), 64):
        part = asked[start : start + 64]
        states, mask, _, _ = _batch([lesson.reading for lesson in part])
        inside = pad_sequence([lesson.inside for lesson in part], batch_first=True)
        middle = _middle(adapter(states, mask)[0], inside)
        nearest = (nouns[[lesson.language for lesson in part]] - middle[:, None]).square().mean(-1).argmin(1)
        right += int((nearest == torch.tensor([lesson.noun for lesson in part])).sum())
    return right / len(asked)


def teach(teaching: Teaching, asked: Sequence[Lesson], steps: int, batch_size: int, seed: int) -> float:
    """Train, tell how it goes, and return the share of the asked that is understood in the end."""
    adapter, chosen = teaching.adapter, random.Random(seed)
    for step in range(steps):
        adapter.train()
        parts = teaching.step(chosen, step / steps, batch_size)
        adapter.eval()
        if (step + 1) % _REPORT_EVERY == 0:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
            told = understood(adapter, asked, teaching.nouns)
            print(f"step {step + 1}: {losses}; {told:.1%} of what is not taught understood", flush=True)
    return understood(adapter, asked, teaching.nouns)


def main() -> None:
    arguments = _read_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    chosen = random.Random(arguments.seed)
    captions = captions_of(arguments.data, arguments.captions, chosen)
    unet = ImagenUNet2DConditionModel.from_pretrained(arguments.unet).eval()
    reader = Reader(*load_text_encoder(arguments.encoder), unet.text_adapter)
    described = read_descriptions()
    taught = {noun: known[:-UNSEEN] for noun, known in described.items()}
    lessons = lessons_of(reader, taught, chosen, arguments.variants)
    # The last of each is the suite's; the one before may be looked at.
    asked = lessons_of(reader, {noun: known[-UNSEEN : -UNSEEN + 1] for noun, known in described.items()}, chosen, 0)
    kept = list(reader.read(captions).values())
    teaching = Teaching(unet.text_adapter, lessons, kept, nouns_of(reader, list(described)), arguments.lr)
    before = understood(unet.text_adapter, asked, teaching.nouns)
    print(f"{len(lessons)} lessons, {len(kept)} captions; {before:.1%} of {len(asked)} understood", flush=True)
    told = teach(teaching, asked, arguments.steps, arguments.batch_size, arguments.seed)
    unet.save_pretrained(arguments.out)
    print(f"{arguments.out}: {told:.1%} of {len(asked)} descriptions understood that were not taught")


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", type=Path, required=True, help="folder of a base")
    parser.add_argument("--data", type=Path, required=True, help="image folder whose captions stay what they are")
    parser.add_argument("--encoder", type=Path, required=True, help="folder with tokenizer/ and text_encoder/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the U-Net to write")
    parser.add_argument("--captions", type=int, default=16000, help="captions that stay what they are")
    parser.add_argument("--variants", type=int, default=1, help="captions around each description")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
