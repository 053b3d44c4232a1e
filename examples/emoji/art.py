# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Emoji pictures by style and code points, read from `<style>.parquet` files.

The files are made by `fetch_art.py`. What the pictures are used for is none of this module's business.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

# Alpha up to this counts as empty when a picture is cropped: antialiasing leaves faint rims.
_EMPTY_ALPHA = 8
_COLUMNS = ["image", "codepoints", "group", "name_en", "name_zh", "keywords_en", "keywords_zh"]


@dataclass(frozen=True)
class ArtRecord:
    """Hold one emoji's encoded picture and its names in both languages."""

    encoded: bytes
    code_points: str
    name_en: str
    name_zh: str
    keywords_en: tuple[str, ...]
    keywords_zh: tuple[str, ...]


def crop_to_content(image: Image.Image) -> Image.Image:
    """Crop an RGBA picture to the box of its visible pixels.

    Raises:
        ValueError: If nothing in the picture is visible.
    """
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > _EMPTY_ALPHA)).getbbox()
    if box is None:
        raise ValueError("`image` is fully transparent: give a picture with visible pixels.")
    return image.crop(box)


def _read_records(path: Path) -> dict[str, ArtRecord]:
    table = pq.read_table(path, columns=_COLUMNS)
    table = table.filter(pc.not_equal(table["group"], "flags"))
    records = {}
    for row in table.to_pylist():
        records[row["codepoints"]] = ArtRecord(
            encoded=row["image"]["bytes"],
            code_points=row["codepoints"],
            name_en=row["name_en"],
            name_zh=row["name_zh"],
            keywords_en=tuple(row["keywords_en"] or ()),
            keywords_zh=tuple(row["keywords_zh"] or ()),
        )
    return records


def style_files(folder: Path, styles: Sequence[str]) -> dict[str, Path]:
    """Find the file of each style.

    Raises:
        ValueError: If a style has no file in `folder`.
    """
    paths = {style: Path(folder) / f"{style}.parquet" for style in styles}
    for style, path in paths.items():
        if not path.is_file():
            raise ValueError(f"`styles` names {style!r}, but there is no {path}: make it with fetch_art.py.")
    return paths


class ArtLibrary:
    """Look up emoji pictures of one or more drawing styles.

    Flags are left out: the origin of the country flags is not known.

    Args:
        folder: Folder of the `<style>.parquet` files.
        styles: Names of the styles to read, such as "fluent-3d".

    Raises:
        ValueError: If a style has no file in `folder`.
    """

    def __init__(self, folder: Path, styles: Sequence[str]) -> None:
        self._records = {style: _read_records(path) for style, path in style_files(folder, styles).items()}
        self._cached_image = lru_cache(maxsize=600)(self._decode)

    def has(self, style: str, code_points: str) -> bool:
        """Tell whether a style has a picture for the code points."""
        return code_points in self._records[style]

    def code_points(self, style: str) -> list[str]:
        """List the code points of a style's pictures, in the file's order."""
        return list(self._records[style])

    def record(self, style: str, code_points: str) -> ArtRecord:
        """Return one emoji's record."""
        return self._records[style][code_points]

    def image(self, style: str, code_points: str) -> Image.Image:
        """Return one emoji as a tightly cropped RGBA picture. It is shared: do not draw on it."""
        return self._cached_image(style, code_points)

    def _decode(self, style: str, code_points: str) -> Image.Image:
        encoded = self._records[style][code_points].encoded
        return crop_to_content(Image.open(io.BytesIO(encoded)).convert("RGBA"))
