# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Draw a list of prompts with a cascade into an image folder that `recognise.py score` and `contact_sheet.py` read.

python examples/emoji/recognise.py prompts --out runs/prompts.jsonl
python examples/emoji/draw.py --prompts runs/prompts.jsonl --out runs/drawn --languages en,zh
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from diffusers_imagen import ImagenCascadePipeline


def read_prompts(path: Path, languages: list[str], count: int | None, order_seed: int | None) -> list[dict[str, Any]]:
    """Return one row for each picture: the prompt in the languages in turn, and the line's facts.

    Args:
        path: Lines as `recognise.py prompts` writes them, their `text` in English and Chinese.
        languages: "en", "zh" or both; with both, rows alternate.
        count: Rows to return; `None` for one of each line and language.
        order_seed: Seed of the order; `None` for the file's.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if count is None:
        rows = [(line, language) for line in lines for language in languages]
    else:
        if order_seed is not None:
            random.Random(order_seed).shuffle(lines)
        rows = [(lines[i % len(lines)], languages[i % len(languages)]) for i in range(count)]
    index = {"en": 0, "zh": 1}
    return [{**line, "text": line["text"][index[language]], "language": language} for line, language in rows]


def draw(pipe: ImagenCascadePipeline, rows: list[dict[str, Any]], out: Path, seed: int, batch_size: int) -> None:
    """Draw row i from seed + i and write the pictures, then `metadata.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        images = pipe([row["text"] for row in part], generator=generators).images
        for i, (row, image) in enumerate(zip(part, images, strict=True)):
            name = f"{start + i:05d}.png"
            image.save(out / name)
            # A data set's line has a picture of its own.
            drawn = {**row, "file_name": name, "seed": seed + start + i}
            written.append(json.dumps(drawn, ensure_ascii=False))
        print(f"{len(written)} of {len(rows)}", flush=True)
    temporary = out / ".metadata.jsonl"
    temporary.write_text("\n".join(written) + "\n", encoding="utf-8")
    temporary.replace(out / "metadata.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prompts", type=Path, required=True, help="a file of recognise.py prompts, or a data set's metadata.jsonl"
    )
    parser.add_argument("--out", type=Path, required=True, help="image folder to write")
    parser.add_argument("--checkpoint", default="imagen-emoji", help="a folder, a built-in name or a Hub repository")
    parser.add_argument("--languages", default="en,zh", help="en, zh or en,zh")
    parser.add_argument("--num-images", type=int, help="pictures; by default one of each prompt and language")
    parser.add_argument("--order-seed", type=int, help="shuffles the prompts; only with --num-images")
    parser.add_argument(
        "--first", action="append", default=[], metavar="PROMPT", help="prompts to draw before the others"
    )
    parser.add_argument("--seed", type=int, default=0, help="picture i is drawn from seed + i")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    languages = arguments.languages.split(",")
    if not set(languages) <= {"en", "zh"}:
        parser.error(f"--languages is {arguments.languages!r}; give en, zh or en,zh")
    if not arguments.prompts.is_file():
        parser.error(f"--prompts is {str(arguments.prompts)!r}, which is no file; recognise.py prompts writes one")
    logging.disable_progress_bar()
    pipe = ImagenCascadePipeline.from_pretrained(arguments.checkpoint)
    pipe.set_progress_bar_config(disable=True)
    rows = [{"text": prompt} for prompt in arguments.first]
    rows += read_prompts(arguments.prompts, languages, arguments.num_images, arguments.order_seed)
    draw(pipe, rows, arguments.out, arguments.seed, arguments.batch_size)


if __name__ == "__main__":
    main()
