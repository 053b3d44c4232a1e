# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write captioned pictures of the moffle as an image folder: what `character.yaml` teaches the built-in cascade.

python examples/emoji/make_character.py --out runs/data/moffle --sheet runs/data/moffle.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from captions import Caption, on_background
from character import sample_moffle
from contact_sheet import write_contact_sheet

NAME = Caption("a moffle", "一只莫弗怪", is_phrase=True)


def captions_for(background: str) -> list[str]:
    """Give the captions of a moffle on a plain background, in English and Chinese."""
    caption = NAME if background == "white" else on_background(NAME, background)[0]
    return [caption.english, caption.chinese]


def write_pictures(out: Path, num_images: int, side: int, seed: str) -> None:
    """Write pictures 0 to `num_images` - 1 of a seed and their `metadata.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(num_images):
        picture, background = sample_moffle(f"{seed}/{number}", side)
        picture.save(out / f"{number:03d}.png")
        row = {"file_name": f"{number:03d}.png", "text": captions_for(background), "facts": {"noun": "moffle"}}
        lines.append(json.dumps(row, ensure_ascii=False))
    temporary = out / ".metadata.jsonl"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(out / "metadata.jsonl")


def main() -> None:
    """Read the command line and write the pictures."""
    parser = argparse.ArgumentParser(description="Write pictures of a new character, with captions.")
    parser.add_argument("--out", type=Path, required=True, help="image folder to write")
    parser.add_argument("--num-images", type=int, default=24)
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--sheet", type=Path, help="PNG of all of them to write as well")
    arguments = parser.parse_args()
    if arguments.num_images < 1 or arguments.size < 8:
        parser.error("--num-images must be at least 1 and --size at least 8")
    write_pictures(arguments.out, arguments.num_images, arguments.size, "train")
    print(f"{arguments.out}: {arguments.num_images} pictures")
    if arguments.sheet is not None:
        write_contact_sheet(arguments.out, arguments.sheet, arguments.num_images)


if __name__ == "__main__":
    main()
