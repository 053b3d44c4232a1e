# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Caption pictures of a data set by descriptions of what they show, which do not name it; pictures are linked.

python examples/emoji/describe.py runs/data/singles_128 --out runs/data/described_128

"purring pet with whiskers", "喵星人": `descriptions.jsonl` has about fifty for each noun, each in both languages. The last
two of each are left out, so that one can see what was understood rather than remembered.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captions import Caption, on_background
from join import check_folder, link_folder, read_rows, write_metadata
from nouns import GLASSES, HATS, Wearable

DESCRIPTIONS = Path(__file__).with_name("descriptions.jsonl")
UNSEEN = 2


def read_descriptions(path: Path = DESCRIPTIONS) -> dict[str, list[Caption]]:
    """Read the descriptions of each noun, in the file's order.

    Raises:
        ValueError: If a noun has not as many in both languages.
    """
    described = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if len(row["en"]) != len(row["zh"]):
            raise ValueError(
                f"`path` {path} describes {row['noun']!r} {len(row['en'])} times in English, "
                f"{len(row['zh'])} times in Chinese; give pairs."
            )
        pairs = zip(row["en"], row["zh"], strict=True)
        described[row["noun"]] = [Caption(english, chinese) for english, chinese in pairs]
    return described


def described_caption(description: Caption, worn: list[str], background: str) -> Caption:
    """Say what a described thing wears, and on which color it is, unless that is white."""
    caption = description
    if worn:
        things = [_wearable(name) for name in worn]
        english = " and ".join(thing.english for thing in things)
        chinese = "和".join(thing.chinese for thing in things)
        caption = Caption(f"{caption.english} wearing {english}", f"戴着{chinese}的{caption.chinese}")
    return caption if background == "white" else on_background(caption, background)[1]


def _wearable(name: str) -> Wearable:
    return next(thing for thing in [*HATS.values(), *GLASSES.values()] if thing.art == (name,))


def describe(rows: list[Mapping[str, Any]], described: Mapping[str, list[Caption]]) -> list[dict[str, Any]]:
    """Caption the single things among rows, on plain backgrounds, by their descriptions in turn.

    Args:
        rows: Rows of a data set's `metadata.jsonl`.
        described: The descriptions to take for each noun.

    Returns:
        The rows taken, with new captions.
    """
    turns: Counter[str] = Counter()
    taken = []
    for row in rows:
        facts = row["facts"]
        if row["kind"] not in ("single", "wear"):
            continue
        thing = facts["things"][0]
        choices = described[thing["name"]]
        caption = described_caption(choices[turns[thing["name"]] % len(choices)], thing["worn"], facts["background"])
        turns[thing["name"]] += 1
        taken.append({**row, "text": [caption.english, caption.chinese]})
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="image folder of singles, as make_dataset.py writes it")
    parser.add_argument("--out", type=Path, required=True, help="image folder to write")
    parser.add_argument("--first", type=int, help="pictures of the folder to look at; all by default")
    arguments = parser.parse_args()
    try:
        check_folder(arguments.folder, arguments.out)
        rows = read_rows(arguments.folder, arguments.first)
    except ValueError as error:
        parser.error(str(error))
    link = link_folder(arguments.folder, arguments.out)
    taught = {noun: choices[:-UNSEEN] for noun, choices in read_descriptions().items()}
    taken = describe(rows, taught)
    write_metadata(arguments.out, [row | {"file_name": f"{link}/{row['file_name']}"} for row in taken])
    print(f"{arguments.out}: {len(taken)} pictures")


if __name__ == "__main__":
    main()
