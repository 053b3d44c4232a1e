# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Lay the first pictures of an image folder out on one sheet, and print their captions in the same order."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from PIL import Image


def write_contact_sheet(folder: Path, path: Path, num_images: int, cell: int = 128) -> list[str]:
    """Write a sheet of the first pictures of a folder.

    Args:
        folder: Image folder with a `metadata.jsonl`.
        path: PNG file to write.
        num_images: Most pictures to show.
        cell: Width and height of one picture on the sheet in pixels.

    Returns:
        Each picture's captions on a line.

    Raises:
        ValueError: If the folder has no `metadata.jsonl`.
    """
    if not (folder / "metadata.jsonl").is_file():
        raise ValueError(f"`folder` is {str(folder)!r}, which has no metadata.jsonl; give an image folder.")
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:num_images]
    columns = max(1, math.ceil(math.sqrt(len(lines))))
    rows = max(1, math.ceil(len(lines) / columns))
    gap = 2
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + gap) + gap), "gray")
    texts = []
    for index, line in enumerate(lines):
        row = json.loads(line)
        with Image.open(folder / row["file_name"]) as picture:
            shown = picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(shown, (gap + index % columns * (cell + gap), gap + index // columns * (cell + gap)))
        text = row["text"]
        texts.append(text if isinstance(text, str) else " | ".join(text))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return texts


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(description="Lay the first pictures of an image folder out on one sheet.")
    parser.add_argument("--images", type=Path, required=True, help="image folder with a metadata.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--num-images", type=int, default=64)
    parser.add_argument("--cell", type=int, default=128, help="pixels of a picture on the sheet")
    arguments = parser.parse_args()
    try:
        texts = write_contact_sheet(arguments.images, arguments.out, arguments.num_images, arguments.cell)
    except ValueError as error:
        parser.error(str(error))
    for index, text in enumerate(texts):
        print(index, text)


if __name__ == "__main__":
    main()
