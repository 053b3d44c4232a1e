# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Give captioned pictures by index, whatever they are stored in, and replace those that cannot be used.

Decoding, cutting and quarantine are here, once for all; where the bytes lie is in `folder.py`, `shards.py` and
`dataset.py`. Called by the training loop's batches.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from diffusers_imagen.data.buckets import Buckets
from diffusers_imagen.data.quarantine import Quarantine
from diffusers_imagen.data.transforms import to_rgb, to_shape

# What PIL raises for files that are truncated, damaged, of an unknown kind or absurdly large, and what the sources
# raise for pictures that are missing. Other errors of the disk end the run: they may not come again.
_BAD_PICTURE = (
    SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError, MemoryError, OverflowError
)  # fmt: skip
_MISSING = (FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError)

_EXIF_ORIENTATION = 0x0112
# How many times larger than needed a picture is still decoded, for the antialiased resizing to work on.
_SPARE = 2

REPLACEMENT = "\ufffd"
"""What stands in a caption for bytes that are not UTF-8."""


class StoredPicture(NamedTuple):
    """Hold a picture as it is stored: its name, the bytes of its file and its captions, none if it has none."""

    name: str
    content: bytes
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Hold a picture: pixels (height, width, 3) of 0 to 255, its captions and its name within the source.

    `low_res` is the smaller picture that goes with it, (h, w, 3) of 0 to 255, where one is stored.
    """

    pixels: npt.NDArray[np.uint8]
    captions: tuple[str, ...]
    file_name: str
    low_res: npt.NDArray[np.uint8] | None = None


class PictureSource(ABC):
    """Give pictures by index, cut and resized to one size, or to that of their bucket.

    A picture that cannot be used is put into quarantine and replaced by the next good one, always the same.

    Args:
        side: Height and width of the pictures given.
        quarantine: What keeps the list of bad pictures, or the file that shall list them; None for warnings only.
    """

    window: int = 1
    """How many neighbouring groups of pictures are shuffled together."""

    def __init__(self, side: int, quarantine: Quarantine | str | Path | None = None) -> None:
        self._side = side
        self._quarantine = quarantine if isinstance(quarantine, Quarantine) else Quarantine(quarantine)
        self._low_res_folder: Path | None = None
        self._buckets: Buckets | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Give the number of pictures, good and bad."""

    @property
    @abstractmethod
    def content_digest(self) -> str:
        """Tell collections apart: a hash of their pictures' order, names and captions, not of pixels."""

    @property
    @abstractmethod
    def captions(self) -> set[str]:
        """All captions of the source, of pictures that cannot be read too."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Give the name by which a person finds a picture."""

    @abstractmethod
    def read(self, index: int) -> StoredPicture:
        """Read a picture as it is stored.

        Raises:
            ValueError: If it cannot be used.
            OSError: If it cannot be reached.
        """

    def stored_size(self, index: int) -> tuple[int, int]:
        """Read height and width from a picture's header, (0, 0) where there is none."""
        try:
            return picture_size(BytesIO(self.read(index).content))
        except (*_BAD_PICTURE, *_MISSING):
            return 0, 0

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """First index of each group of pictures that lie together on the disk; None where it makes no difference."""
        return None

    def picture_sizes(self) -> npt.NDArray[np.int64]:
        """Give height and width of all pictures as they are seen upright, (N, 2), 0 where they are not known."""
        return np.array([self.stored_size(index) for index in range(len(self))], np.int64).reshape(-1, 2)

    @property
    def digest(self) -> str:
        """Tell apart whatever gives a run other samples: `content_digest`, with the buckets."""
        if self._buckets is None:
            return self.content_digest
        parts = f"{self.content_digest} {self._buckets.shapes} {self._buckets.unit} ".encode()
        return hashlib.sha256(parts + self._buckets.of.tobytes()).hexdigest()

    @property
    def buckets(self) -> Buckets | None:
        """Which size each picture is cut to; None for one size."""
        return self._buckets

    def use_buckets(self, buckets: Buckets) -> None:
        """Cut each picture to the size of its bucket from now on."""
        self._buckets = buckets

    def pair_with(self, low_res_folder: str | Path) -> None:
        """Give with each picture the one of the same name in a folder, always as `.png`.

        Args:
            low_res_folder: The folder; within it are the names of this source, with other endings.

        Raises:
            ValueError: If there is no such folder, or two pictures would share one.
        """
        if not Path(low_res_folder).is_dir():
            raise ValueError(f"`low_res_folder` is {str(low_res_folder)!r}, which is not a folder; give one.")
        self.check_low_res_names()
        self._low_res_folder = Path(low_res_folder)

    def check_low_res_names(self) -> None:
        """Check that each picture has a low resolution of its own, by its name.

        Raises:
            ValueError: If the names of two pictures differ by no more than their ending.
        """
        known: dict[Path, str] = {}
        for index in range(len(self)):
            name = self.name(index)
            place = low_res_path(Path(), name)
            if place in known:
                raise ValueError(
                    f"{known[place]!r} and {name!r} differ by no more than their ending, so they would share the low "
                    f"resolution {str(place)!r}; rename one of them."
                )
            known[place] = name

    def __getitem__(self, index: int) -> Picture:
        """Read the picture at an index, or the next one that can be used.

        Raises:
            ValueError: If no picture can be used, or too many cannot.
            IndexError: If the index is not in [0, len).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"`index` is {index}, but there are {len(self)} pictures.")
        for place in self._candidates(index):
            picture = None if place in self._quarantine else self._picture(place)
            if picture is not None:
                return picture
        raise ValueError(f"None of the {len(self)} pictures can be read; see the warnings.")

    def _candidates(self, index: int) -> Iterator[int]:
        """Give the index and those that may stand in for it, which are cut to the same size."""
        for step in range(len(self)):
            place = (index + step) % len(self)
            if self._buckets is None or self._buckets.of[place] == self._buckets.of[index]:
                yield place

    def _picture(self, index: int) -> Picture | None:
        self._quarantine.count_try()
        try:
            stored = self.read(index)
            captions = _good_captions(stored.captions)
            pixels = self._decode(stored.content, index)
            low_res = self._low_res(stored.name)
        except (*_BAD_PICTURE, *_MISSING) as error:
            reason = f"{type(error).__name__}: {error}"
        except OSError as error:
            # PIL's own have no number; a failing disk's have.
            if error.errno is not None:
                raise
            reason = f"{type(error).__name__}: {error}"
        else:
            return Picture(pixels, captions, stored.name, low_res)
        self._quarantine.add(index, self.name(index), reason, len(self))
        return None

    def _decode(self, content: bytes, index: int) -> npt.NDArray[np.uint8]:
        if not content:
            raise ValueError("the file is empty")
        height, width = (self._side, self._side) if self._buckets is None else self._buckets.shape_of(index)
        try:
            opened = Image.open(BytesIO(content))
        except UnidentifiedImageError as error:
            # Its own words name an address in memory, which is another each time.
            raise ValueError("it is no picture of a kind that is known") from error
        with opened as image:
            # A JPEG much larger than needed is decoded at a half, quarter or eighth: several times faster.
            image.draft(None, (_SPARE * max(height, width),) * 2)
            return np.array(to_shape(to_rgb(image), height, width))

    def _low_res(self, name: str) -> npt.NDArray[np.uint8] | None:
        if self._low_res_folder is None:
            return None
        with Image.open(low_res_path(self._low_res_folder, name)) as image:
            return np.array(to_rgb(image))


def low_res_path(folder: Path, name: str) -> Path:
    """Give the place in a folder of low resolutions of that which goes with the picture of a name."""
    return (folder / name).with_suffix(".png")


def picture_size(file: IO[bytes] | Path) -> tuple[int, int]:
    """Read height and width of a picture from its header, without decoding it.

    Args:
        file: The picture's file, or its beginning.

    Returns:
        Height and width as it is seen upright; (0, 0) for what is no picture.
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except (*_BAD_PICTURE, OSError):
        return 0, 0
    return (width, height) if turned else (height, width)


def is_text(caption: str) -> bool:
    """Tell whether a caption is all text, without characters that stand for bytes that are none."""
    return REPLACEMENT not in caption and not any("\ud800" <= character <= "\udfff" for character in caption)


def _good_captions(captions: tuple[str, ...]) -> tuple[str, ...]:
    """Leave captions out that are no text; a picture that has no other is of no use."""
    good = tuple(caption for caption in captions if is_text(caption))
    if captions and not good:
        raise ValueError("its caption is not UTF-8")
    return good
