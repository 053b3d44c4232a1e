# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read a Hugging Face dataset as an indexed source: index -> picture.

Local folders of parquet, arrow or pictures never reach the network; an id of the Hub does, and only because the caller
names one. Called where a run opens its data.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusers_imagen.data.folder import captions_of
from diffusers_imagen.data.quarantine import Quarantine
from diffusers_imagen.data.schedule import is_held_out
from diffusers_imagen.data.source import REPLACEMENT, PictureSource, StoredPicture, is_text

_ROWS_AT_ONCE = 1000


class HuggingFaceDataset(PictureSource):
    """Give the pictures of a dataset with random access by index.

    Args:
        rows: A `datasets.Dataset`, its pictures undecoded.
        places: Numbers of the rows that are given, ascending.
        side: Height and width of the pictures given.
        quarantine: What keeps the list of bad pictures, or the file that shall list them; None for warnings only.
        image_column: Column of the pictures.
        caption_columns: Columns of the captions, each a string or a list of strings.
        key_column: Column of a row's name; None for its number.
    """

    def __init__(
        self,
        rows: Any,
        places: npt.NDArray[np.int64],
        side: int,
        quarantine: Quarantine | str | Path | None = None,
        image_column: str = "image",
        caption_columns: Sequence[str] = ("text",),
        key_column: str | None = None,
    ) -> None:
        super().__init__(side, quarantine)
        self._rows = rows
        self._places = places
        self._image = image_column
        self._captions = tuple(caption_columns)
        self._key = key_column
        # Apart from the captions, whose bytes may be no text.
        self._names = None if key_column is None else rows.select_columns([key_column])

    @classmethod
    def open(
        cls,
        name: str,
        side: int,
        held_out: bool = False,
        validation_fraction: float = 0.0,
        quarantine: Quarantine | str | Path | None = None,
        split: str = "train",
        image_column: str = "image",
        caption_columns: Sequence[str] = (),
        key_column: str | None = None,
    ) -> "HuggingFaceDataset":
        """Load a dataset.

        Args:
            name: A folder that `datasets` saved or can load, or the id of a dataset on the Hub.
            side: Height and width of the pictures given.
            held_out: Give the held-out pictures instead of those for training.
            validation_fraction: Share of rows that is held out, chosen by their names.
            quarantine: What keeps the list of bad pictures, or the file that shall list them.
            split: Split of the dataset.
            image_column: Column of the pictures.
            caption_columns: Columns of the captions; none for `text`.
            key_column: Column of a row's name; None for its number.

        Returns:
            The source, in the order of the rows.

        Raises:
            ValueError: If there is no such dataset, split or column, or no row is left.
        """
        captions = tuple(caption_columns) or ("text",)
        rows = _load(name, split)
        for column in (image_column, *captions, *([] if key_column is None else [key_column])):
            if column not in rows.column_names:
                raise ValueError(
                    f"The dataset {name!r} has no column {column!r}, only {', '.join(rows.column_names)}; set "
                    "`data.image_column`, `data.captions` and `data.key_column`."
                )
        rows = _undecoded(rows, image_column)
        keys = (str(n) for n in range(len(rows))) if key_column is None else (str(k) for k in rows[key_column])
        places = np.flatnonzero([is_held_out(key, validation_fraction) == held_out for key in keys])
        if not len(places):
            kind = "held-out" if held_out else "training"
            raise ValueError(
                f"The dataset {name!r} has {len(rows)} rows, which give no {kind} picture; add some or change "
                "`validation_fraction`."
            )
        return cls(rows, places, side, quarantine, image_column, captions, key_column)

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """Give what the row is called, by default its number with nine digits."""
        place = int(self._places[index])
        return f"{place:09d}" if self._names is None else str(self._names[place][self._key])

    def read(self, index: int) -> StoredPicture:
        """Read a row.

        Raises:
            ValueError: If it has no picture.
            OSError: If its picture is a file that cannot be reached.
        """
        place = int(self._places[index])
        row = self._rows[place]
        name = f"{place:09d}" if self._key is None else str(row[self._key])
        return StoredPicture(name, _content(row[self._image]), captions_of(row, self._captions))

    @property
    def captions(self) -> set[str]:
        """All captions of the dataset, of held-out rows too."""
        return {caption for row in self._texts(self._captions) for caption in captions_of(row, self._captions)} - {
            REPLACEMENT
        }

    @property
    def content_digest(self) -> str:
        """A hash of all captions and names in their order, and of the choice among them."""
        digest = hashlib.sha256(json.dumps([self._captions, self._key, len(self._rows)]).encode())
        columns = self._captions if self._key is None else (*self._captions, self._key)
        for row in self._texts(columns):
            digest.update(json.dumps([row[column] for column in columns], default=str).encode())
        digest.update(self._places.tobytes())
        return digest.hexdigest()

    def _texts(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Give columns row by row; texts that are no UTF-8 are `REPLACEMENT`."""
        few = self._rows.select_columns(list(dict.fromkeys(columns))).with_format("arrow")
        for table in few.iter(batch_size=_ROWS_AT_ONCE):
            values = {column: [_value(cell) for cell in table[column]] for column in table.column_names}
            for row in range(len(table)):
                yield {column: cells[row] for column, cells in values.items()}


def _load(name: str, split: str) -> Any:
    if find_spec("datasets") is None:
        raise ValueError("Datasets need a further package: pip install 'diffusers-imagen[datasets]'.")
    # Takes seconds to import, and only these runs need it.
    import datasets

    saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    try:
        if not saved:
            return datasets.load_dataset(name, split=split)
        found = datasets.load_from_disk(name)
        return found[split] if isinstance(found, datasets.DatasetDict) else found
    except (OSError, KeyError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The split {split!r} of the dataset {name!r} cannot be loaded: {error}") from error


def _undecoded(rows: Any, image_column: str) -> Any:
    import datasets

    is_image = isinstance(rows.features[image_column], datasets.Image)
    return rows.cast_column(image_column, datasets.Image(decode=False)) if is_image else rows


def _content(cell: Any) -> bytes:
    """Give a picture's file from a cell of bytes, of a path, or of either as `datasets` stores pictures."""
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, str):
        content, path = None, content
    if content is None and path is None:
        raise ValueError("the row has no picture")
    return bytes(content) if content is not None else Path(str(path)).read_bytes()


def _value(cell: Any) -> Any:
    try:
        value = cell.as_py()
    except UnicodeDecodeError:
        return REPLACEMENT
    if isinstance(value, list):
        return [text if is_text(text) else REPLACEMENT for text in value if text is not None]
    return value if not isinstance(value, str) or is_text(value) else REPLACEMENT
