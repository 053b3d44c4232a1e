# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Train the scene judge on real scenes: `python examples/emoji/train_scene_judge.py --art runs/art --out runs/scene_judge`.

Scenes are composed once, in shards, then looked at several times with small shifts and flaws. The same command again
goes on where it was cut off. The judge learns from seen and held-out combinations alike, so that it favors neither.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compose import COLORS
from nouns import EYE_HEIGHT
from PIL import Image
from safetensors.torch import load_file, save_file
from scene_labels import BACKGROUND_NAMES, NONE, NOUN_NAMES, WORN_NAMES, SceneLabels, label_scenes
from scenes import SceneSampler
from settings import SceneSettings
from torch import Tensor

from diffusers_imagen.evaluation.scene_judge import STRIDE, SceneJudge
from diffusers_imagen.evaluation.seen_scene import look

STYLES = {"fluent-3d": 2.0, "fluent-flat": 1.0, "noto": 1.0}
# What captions claim, in about the shares in which it is hard. Things stand in other places and sizes than the
# training data's, too, so that the judge knows a thing by its looks.
KINDS = {
    "single": 3.0,
    "color": 2.0,
    "color pair": 2.0,
    "count": 2.5,
    "pair": 1.0,
    "relation": 2.0,
    "size": 1.5,
    "wear": 3.0,
    "hold": 2.0,
    "scene": 2.0,
}
SIZE = 64
COMPOSED_SIZE = 128
SHARD = 2000
TRAIN_SEED = 1_000_001
CALIBRATION_SEED = 1_000_003
BATCH_SIZE = 128
MOST_SHIFT = 4


def judge_settings(styles: dict[str, float]) -> SceneSettings:
    """Return the distribution of scenes that the judge learns from."""
    return SceneSettings(
        size=COMPOSED_SIZE,
        kinds=KINDS,
        styles=styles,
        backgrounds={"white": 0.4},
        single_fill=(0.45, 0.95),
        single_shift=0.15,
    )


def new_judge(styles: dict[str, float]) -> SceneJudge:
    """Make an untrained judge with the example's vocabulary."""
    return SceneJudge(
        nouns=NOUN_NAMES,
        colors=COLORS,
        worn=WORN_NAMES,
        backgrounds=BACKGROUND_NAMES,
        styles=tuple(styles),
        wearers=tuple(EYE_HEIGHT),
        sample_size=SIZE,
    )


def compose_shard(sampler: SceneSampler, styles: dict[str, float], number: int, path: Path) -> None:
    """Write the pictures and labels of one shard, unless they are there."""
    if path.is_file():
        return
    scenes = [sampler.sample(TRAIN_SEED, number * SHARD + i, split="any") for i in range(SHARD)]
    shrunk = [scene.image.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for scene in scenes]
    pictures = torch.from_numpy(np.stack([np.asarray(image) for image in shrunk])).permute(0, 3, 1, 2).contiguous()
    temporary = path.with_suffix(".tmp")
    save_file({"pictures": pictures, **label_scenes(scenes, tuple(styles)).as_tensors()}, temporary)
    temporary.replace(path)
    print(f"{path.name} composed", flush=True)


def read_shards(paths: list[Path]) -> tuple[Tensor, SceneLabels]:
    """Read all shards into memory: uint8 pictures (B, 3, H, W) and labels."""
    shards = [load_file(path) for path in paths]
    joined = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    return joined.pop("pictures"), SceneLabels(**joined)


def disturb(pictures: Tensor, labels: SceneLabels, generator: torch.Generator) -> tuple[Tensor, SceneLabels]:
    """Shift pictures by a few pixels, and their labels with them; change contrast and sharpness a little, add noise."""
    shape = (len(pictures), 1, 1, 1)
    down, right = (int(torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (), generator=generator)) for _ in range(2))
    padded = F.pad(pictures, (MOST_SHIFT,) * 4, mode="replicate")
    top, left = MOST_SHIFT - down, MOST_SHIFT - right
    shifted = padded[:, :, top : top + SIZE, left : left + SIZE]
    moved = SceneLabels(**labels.as_tensors())
    moved.box = labels.box + torch.tensor((right / SIZE, down / SIZE, 0, 0))

    blurred = F.avg_pool2d(F.pad(shifted, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = 0.6 * torch.rand(shape, generator=generator)
    contrast = 1 + 0.2 * (torch.rand(shape, generator=generator) - 0.5)
    brightness = 0.1 * (torch.rand(shape, generator=generator) - 0.5)
    noise = 0.1 * torch.rand(shape, generator=generator) * torch.randn(shifted.shape, generator=generator)
    return torch.lerp(shifted, blurred, blur) * contrast + brightness + noise, moved


def judge_loss(judge: SceneJudge, pictures: Tensor, labels: SceneLabels) -> Tensor:
    """Compute the loss: is there a thing in each cell, and what is true of those there are."""
    with torch.autocast("cpu", torch.bfloat16):
        output = judge(pictures.contiguous(memory_format=torch.channels_last))
    cells = SIZE // STRIDE
    picture, place = (labels.noun != NONE).nonzero(as_tuple=True)
    box = labels.box[picture, place]
    at = box[:, :2] * cells
    column, row = at.floor().long().clamp(0, cells - 1).unbind(1)
    cell = (picture, row, column)

    presence = torch.zeros_like(output.presence, dtype=torch.float32)
    presence[cell] = 1
    inside = (at - torch.stack((column, row), dim=1)).clamp(0, 1)
    box_target = torch.cat((inside, box[:, 2:].clamp(0, 1)), dim=1)
    noun, color = labels.noun[picture, place], labels.color[picture, place]
    binary, classes = F.binary_cross_entropy_with_logits, F.cross_entropy
    found = (
        5 * F.l1_loss(output.box[cell].float().sigmoid(), box_target)
        + classes(output.noun[cell].float(), noun, label_smoothing=0.02)
        + classes(output.color[cell].float(), color, ignore_index=NONE)
        + 4 * binary(output.worn[cell].float(), labels.worn[picture, place])
        + binary(output.held[cell].float(), labels.held[picture, place])
    )
    whole = classes(output.background.float(), labels.background) + classes(output.style.float(), labels.style)
    there = binary(output.presence.float(), presence, reduction="sum") / len(pictures)
    return found + there + 0.3 * whole


def learning_rate_at(step: int, total: int) -> float:
    """Return the factor of the learning rate: up over the first tenth of all steps, then down a cosine to nothing."""
    progress = min(1.0, step / max(1, total))
    return progress / 0.1 if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def train(out: Path, paths: list[Path], styles: dict[str, float], epochs: int) -> SceneJudge:
    """Train a judge for a number of epochs, going on from the last finished one in `out`."""
    pictures, labels = read_shards(paths)
    torch.manual_seed(0)
    judge = new_judge(styles).to(memory_format=torch.channels_last).train()
    steps_each = len(pictures) // BATCH_SIZE
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, epochs * steps_each))
    state = out / "state.pt"
    first = 0
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        judge.load_state_dict(kept["judge"])
        optimizer.load_state_dict(kept["optimizer"])
        first = kept["epoch"]
        schedule.last_epoch = first * steps_each
    for epoch in range(first, epochs):
        generator = torch.Generator().manual_seed(epoch)
        total = 0.0
        for chosen in torch.randperm(len(pictures), generator=generator)[: steps_each * BATCH_SIZE].split(BATCH_SIZE):
            disturbed, moved = disturb(pictures[chosen].float() / 127.5 - 1, labels[chosen], generator)
            loss = judge_loss(judge, disturbed, moved)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps_each:.3f}", flush=True)
        parts = {"judge": judge, "optimizer": optimizer}
        temporary = state.with_suffix(".tmp")
        torch.save({"epoch": epoch + 1, **{name: part.state_dict() for name, part in parts.items()}}, temporary)
        temporary.replace(state)
        judge.save_pretrained(out / "judge")
    return judge.eval()


def calibrate(judge: SceneJudge, sampler: SceneSampler, num_scenes: int = 600) -> float:
    """Choose the highest threshold of presence at which the most new scenes show as many things as they have.

    Returns:
        The share of those scenes.
    """
    scenes = [sampler.sample(CALIBRATION_SEED, number, split="any") for number in range(num_scenes)]
    numbers = [len(scene.facts.things) for scene in scenes]
    shares = {}
    for threshold in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        judge.register_to_config(presence_threshold=threshold)
        seen = look(judge, ([scene.image] for scene in scenes)).scenes
        shares[threshold] = sum(len(s.things) == n for s, n in zip(seen, numbers, strict=True)) / len(scenes)
    best = max(shares, key=lambda threshold: shares[threshold])
    judge.register_to_config(presence_threshold=best)
    print(f"threshold {best}: {shares[best]:.1%} of {len(scenes)} new scenes show as many things as they have")
    return shares[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--art", type=Path, required=True, help="folder of <style>.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder of the judge and what it learns from")
    parser.add_argument("--styles", nargs="+", default=list(STYLES))
    parser.add_argument("--scenes", type=int, default=60_000, help=f"scenes to compose, in shards of {SHARD}")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    styles = {style: STYLES.get(style, 1.0) for style in arguments.styles}
    shards = arguments.out / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    paths = [shards / f"{number:04d}.safetensors" for number in range(-(-arguments.scenes // SHARD))]
    try:
        sampler = SceneSampler(arguments.art, judge_settings(styles))
        for number, path in enumerate(paths):
            compose_shard(sampler, styles, number, path)
        judge = train(arguments.out, paths, styles, arguments.epochs)
        calibrate(judge, sampler)
        judge.save_pretrained(arguments.out / "judge")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
