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


def join(folders: Sequence[Path], out: Path, first: int | None) -> int:
    """Write an image folder whose pictures are those of others, one folder's after another's.

    Args:
        folders: Image folders with a `metadata.jsonl`, of different names.
        out: The new folder.
        first: Pictures to take of each folder; `None` for all.

    Returns:
        The number of pictures.

    Raises:
        ValueError: If two folders have one name, one has no `metadata.jsonl`, or one lies in `out`.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"`folders` are named {', '.join(names)}; give folders of different names.")
    for folder in folders:
        check_folder(folder, out)
    rows = []
    for folder in folders:
        link = link_folder(folder, out)
        for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:first]:
            row = json.loads(line)
            rows.append(row | {"file_name": f"{link}/{row['file_name']}"})
    write_metadata(out, rows)
    return len(rows)


def check_folder(folder: Path, out: Path) -> None:
    """Refuse a folder without a `metadata.jsonl`, and one that lies in `out`."""
    if not (folder / "metadata.jsonl").is_file():
        raise ValueError(
            f"{str(folder)!r} has no metadata.jsonl; give an image folder, such as make_dataset.py writes."
        )
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"`out` is {str(out)!r}, in which {str(folder)!r} lies; give another folder.")


def link_folder(folder: Path, out: Path) -> str:
    """Link a folder from within another; return the link's name."""
    out.mkdir(parents=True, exist_ok=True)
    link = out / folder.resolve().name
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder.resolve(), out.resolve()), target_is_directory=True)
    return link.name


def write_metadata(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write an image folder's `metadata.jsonl` in one go."""
    temporary = out / ".metadata.jsonl"
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(out / "metadata.jsonl")


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
