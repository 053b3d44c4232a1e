# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make one image folder of several, by links: no picture is copied.

python examples/emoji/join.py runs/data/scenes_256 runs/data/singles_128 --out runs/data/mixed
python examples/emoji/join.py runs/data/scenes_256 --first 6000 --out runs/data/scenes_256_part
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROWS, _NEW_ROWS = "metadata.jsonl", ".metadata.jsonl"


def read_rows(folder: Path, first: int | None = None) -> list[dict[str, Any]]:
    """Read the first rows of an image folder's `metadata.jsonl`, or all.

    Raises:
        ValueError: If `first` is less than 1, or a line is not an object with a `file_name`.
    """
    if first is not None and first < 1:
        raise ValueError(f"`first` is {first}; give at least 1, or leave it out for all pictures.")
    rows = []
    path = folder / _ROWS
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[:first], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON ({error}); mend or delete that line.") from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise ValueError(f"{path}, line {number}, has no `file_name`; mend or delete that line.")
        rows.append(row)
    return rows


def join(folders: Sequence[Path], out: Path, first: int | None) -> int:
    """Write an image folder whose pictures are those of others, one folder's after another's.

    Args:
        folders: Image folders with a `metadata.jsonl`, of different names.
        out: The new folder.
        first: Pictures to take of each folder; `None` for all.

    Returns:
        The number of pictures.

    Raises:
        ValueError: If two folders have one name, one has no readable `metadata.jsonl` or lies in `out`, `out` holds
            what this did not write, or `first` is less than 1.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"`folders` are named {', '.join(names)}; give folders of different names.")
    for folder in folders:
        check_folder(folder, out)
    parts = [(folder, read_rows(folder, first)) for folder in folders]
    rows = []
    for folder, chosen in parts:
        link = link_folder(folder, out)
        rows += [row | {"file_name": f"{link}/{row['file_name']}"} for row in chosen]
    write_metadata(out, rows)
    return len(rows)


def check_folder(folder: Path, out: Path) -> None:
    """Refuse a folder without a `metadata.jsonl`, one that lies in `out`, and an `out` that holds more than links."""
    if not (folder / _ROWS).is_file():
        raise ValueError(
            f"{str(folder)!r} has no metadata.jsonl; give an image folder, such as make_dataset.py writes."
        )
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"`out` is {str(out)!r}, in which {str(folder)!r} lies; give another folder.")
    present = sorted(out.iterdir()) if out.is_dir() else []
    foreign = [path.name for path in present if not path.is_symlink() and path.name not in (_ROWS, _NEW_ROWS)]
    if foreign or (present and not any(path.is_symlink() for path in present)):
        held = (foreign or [_ROWS])[0]
        raise ValueError(f"`out` is {str(out)!r}, whose {held!r} is no link that this made; give a new folder.")


def link_folder(folder: Path, out: Path) -> str:
    """Link a folder from within another; return the link's name."""
    out.mkdir(parents=True, exist_ok=True)
    link = out / folder.resolve().name
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder.resolve(), out.resolve()), target_is_directory=True)
    return link.name


def write_metadata(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write an image folder's `metadata.jsonl` in one go."""
    temporary = out / _NEW_ROWS
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(out / _ROWS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="image folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, help="pictures to take of each folder; all by default")
    arguments = parser.parse_args()
    try:
        count = join(arguments.folders, arguments.out, arguments.first)
    except ValueError as error:
        parser.error(str(error))
    print(f"{arguments.out}: {count} pictures")


if __name__ == "__main__":
    main()
