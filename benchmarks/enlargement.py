# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How good a checkpoint's enlargement is: against bicubic enlargement of the same small pictures, and real pictures.

python benchmarks/enlargement.py --suite runs/suite [--checkpoint imagen-emoji] [--category single] [--sheet S.png]

Distances are of the judge's features of tiles at full resolution. The colour shift is the mean of the enlarged picture
less that of the small one, in 1/255.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from default_scheduler import Stage
from diffusers.utils import logging
from PIL import Image
from torch import Tensor, nn

from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.evaluation.distances import frechet_distance, kernel_distance
from diffusers_imagen.evaluation.intervals import wilson_rate
from diffusers_imagen.evaluation.suite import Suite, read_suite

PART = 20


class Enlargements:
    """What is enlarged, a checkpoint's own base pictures and real ones made small, and how enlargements are described.

    Args:
        checkpoint: Whose base draws the small pictures.
        suite: Prompts with real pictures.
    """

    def __init__(self, checkpoint: str, suite: Suite) -> None:
        self.stage = Stage("sr", checkpoint, suite)
        self.pipe, self.real, self.own_unet = self.stage.pipe, self.stage.real, self.stage.pipe.sr_unet_1
        self.prompts = [prompt.prompt for prompt in suite.prompts]
        side = self.pipe.unet.config.sample_size
        self.small = {
            "generated": self._in_parts(lambda part: {}, {"stop_stage": "base"}),
            "real": resize(self.real.float() / 127.5 - 1, (side, side)) / 2 + 0.5,
        }

    def enlarge(self, source: str, unet: nn.Module | None = None, noise_level: float | None = None) -> Tensor:
        """Enlarge with the checkpoint's enlargement, or with another U-Net in its place.

        Returns:
            Pictures (B, 3, H, W), uint8.
        """
        self.pipe.sr_unet_1 = self.own_unet if unet is None else unet
        small = self.small[source]
        given: dict[str, Any] = {"start_stage": "sr_1", "stop_stage": "sr_1"}
        if noise_level is not None:
            given["noise_level"] = {"sr_1": noise_level}
        return _eight_bit(self._in_parts(lambda part: {"image": small[part]}, given))

    def bicubic(self, source: str) -> Tensor:
        """Return the small pictures as large ones, without a model."""
        side = self.real.shape[-1]
        small = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in _eight_bit(self.small[source])]
        large = [one.resize((side, side), Image.Resampling.BICUBIC) for one in small]
        flat = [torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8).view(side, side, 3) for one in large]
        return torch.stack(flat).permute(0, 3, 1, 2)

    def describe(self, pictures: Tensor, source: str) -> dict[str, Any]:
        """Give hits, distances to real pictures, and how far the pictures made small are from what was given."""
        given = self.small[source]
        small = resize(pictures.float() / 255, tuple(given.shape[-2:]))
        shift = 255 * (small - given).mean(dim=(2, 3))
        features, real = self.stage.features_of(pictures), self.stage.real_features
        found = {
            "hits": self.stage.hits(pictures),
            "kernel_distance": kernel_distance(features, real),
            "frechet_distance": frechet_distance(features, real),
            "unfaithful": float((small - given).square().mean().sqrt()),
            "color_shift": shift.mean(0).tolist(),
            "largest_color_shift": float(shift.abs().max()),
        }
        if source == "real":
            found["rms"] = float((pictures.float() - self.real.float()).div(255).square().mean().sqrt())
        return found

    def _in_parts(self, own: Any, given: dict[str, Any]) -> Tensor:
        parts = []
        for start in range(0, len(self.prompts), PART):
            part = slice(start, start + PART)
            generators = [torch.Generator().manual_seed(5000 + start + i) for i in range(len(self.prompts[part]))]
            every = {**given, **own(part), "generator": generators, "output_type": "pt"}
            parts.append(self.pipe(self.prompts[part], **every).images)
        return torch.cat(parts)


def _eight_bit(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


def chosen_prompts(folder: Path, category: str, count: int) -> Suite:
    """Read a suite, with the first prompts of a category alone; of all categories in turn for "all"."""
    suite = read_suite(folder)
    prompts = [prompt for prompt in suite.prompts if prompt.reference and category in ("all", prompt.category)]
    every = max(1, len(prompts) // count) if category == "all" else 1
    return Suite(suite.name, tuple(prompts[::every][:count]), suite.judge, suite.baselines)


def save_sheet(rows: list[Tensor], path: Path) -> None:
    """Save rows of pictures (B, 3, H, W), uint8."""
    canvas = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
    Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy()).save(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, required=True, help="folder of examples/emoji/make_suite.py")
    parser.add_argument("--checkpoint", default="imagen-emoji")
    parser.add_argument("--category", default="all", help="category of the suite's prompts")
    parser.add_argument("--prompts", type=int, default=400, help="how many of them at most")
    parser.add_argument("--sheet", type=Path, help="PNG: bicubic, enlarged, real")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    enlargements = Enlargements(
        arguments.checkpoint, chosen_prompts(arguments.suite, arguments.category, arguments.prompts)
    )
    print(f"N = {len(enlargements.prompts)}")
    for source in enlargements.small:
        pictures = {"bicubic": enlargements.bicubic(source), "enlargement": enlargements.enlarge(source)}
        found = {way: enlargements.describe(made, source) for way, made in pictures.items()}
        for way, one in found.items():
            shift = ", ".join(f"{value:+.2f}" for value in one["color_shift"])
            print(
                f"{source:10}{way:12} hits {wilson_rate(sum(one['hits']), len(one['hits']))}  kernel distance "
                f"{one['kernel_distance']:.4f}  Frechet {one['frechet_distance']:.3f}  RMS to what was given "
                f"{one['unfaithful']:.4f}  colour shift {shift}, at most {one['largest_color_shift']:.2f}"
            )
        for name in ("kernel_distance", "frechet_distance"):
            print(f"{source:10}{name}: {found['bicubic'][name] / found['enlargement'][name]:.2f} times closer")
        if arguments.sheet:
            rows = [*pictures.values(), enlargements.real]
            path = arguments.sheet.with_stem(f"{arguments.sheet.stem}_{source}")
            save_sheet([row[:: max(1, len(row) // 8)][:8] for row in rows], path)


if __name__ == "__main__":
    main()
