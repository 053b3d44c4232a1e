# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write captioned scenes as an image folder: `python examples/emoji/make_dataset.py --art DIR --out DIR ...`.

The folder holds PNG files and a `metadata.jsonl`. A run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from art import style_files
from contact_sheet import write_contact_sheet
from scenes import Scene, SceneSampler, Split
from settings import ALL_KINDS, PRESETS, SceneSettings

_SHARD = 500
_PER_FOLDER = 1000
_METADATA = "metadata.jsonl"
_PART = "metadata.part-*.jsonl"
_RECIPE = "recipe.json"


@dataclass(frozen=True)
class DatasetPlan:
    """Say which scenes go where.

    Attributes:
        art: Folder of the art.
        out: Folder to write.
        settings: Distribution of the scenes.
        seed: Seed of the set.
        split: Which scenes to draw.
    """

    art: Path
    out: Path
    settings: SceneSettings
    seed: int
    split: Split

    def recipe(self) -> dict[str, object]:
        """Return what settles the pictures' content, as plain JSON."""
        recipe = {"settings": asdict(self.settings), "seed": self.seed, "split": self.split}
        return dict(json.loads(json.dumps(recipe)))


def _write_atomically(path: Path, content: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


def _file_name(number: int) -> str:
    return f"{number // _PER_FOLDER:02d}/{number:06d}.png"


def _row(scene: Scene, number: int) -> dict[str, object]:
    return {
        "file_name": _file_name(number),
        "text": list(scene.text),
        "kind": scene.kind,
        "style": scene.style,
        "facts": scene.facts.as_json(),
        "held_out": scene.held_out,
    }


def _save_picture(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    # Little compression: the pictures are read far more often than written.
    scene.image.save(temporary, format="PNG", compress_level=1)
    temporary.replace(path)


def write_shard(plan: DatasetPlan, numbers: Sequence[int]) -> Path:
    """Write the scenes with the given numbers, then their metadata as a part file.

    Returns:
        The part file. That it exists says that its pictures are all written.
    """
    sampler = SceneSampler(plan.art, plan.settings)
    lines = []
    for number in numbers:
        scene = sampler.sample(plan.seed, number, plan.split)
        _save_picture(scene, plan.out / _file_name(number))
        lines.append(json.dumps(_row(scene, number), ensure_ascii=False))
    part = plan.out / f"metadata.part-{numbers[0]:06d}.jsonl"
    _write_atomically(part, "\n".join(lines) + "\n")
    return part


def read_metadata(folder: Path) -> dict[str, dict[str, object]]:
    """Read the rows of a folder, finished or not, by file name."""
    rows: dict[str, dict[str, object]] = {}
    for path in [folder / _METADATA, *sorted(folder.glob(_PART))]:
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                rows[row["file_name"]] = row
    return rows


def _check_recipe(plan: DatasetPlan) -> None:
    path = plan.out / _RECIPE
    if not path.is_file():
        if (plan.out / _METADATA).exists():
            raise ValueError(f"`out` is {plan.out}, which holds a data set of other making: choose another folder.")
        _write_atomically(path, json.dumps(plan.recipe(), indent=1, ensure_ascii=False) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != plan.recipe():
        raise ValueError(f"`out` is {plan.out}, begun with other settings: see {path}, or choose another folder.")


def make_dataset(plan: DatasetPlan, num_images: int, workers: int = 1) -> int:
    """Write scenes 0 to `num_images` - 1, less those the folder already has.

    Args:
        plan: Which scenes go where.
        num_images: Number of pictures the folder is to hold.
        workers: Number of processes.

    Returns:
        The number of pictures written now.

    Raises:
        ValueError: If the folder was begun with another plan, a style has no art, or a number is below one.
    """
    if num_images < 1 or workers < 1:
        raise ValueError(f"`num_images` and `workers` are {num_images} and {workers}, but must be at least 1.")
    style_files(plan.art, list(plan.settings.styles))
    plan.out.mkdir(parents=True, exist_ok=True)
    _check_recipe(plan)
    present = read_metadata(plan.out)
    missing = [number for number in range(num_images) if _file_name(number) not in present]
    shards = [missing[start : start + _SHARD] for start in range(0, len(missing), _SHARD)]
    if workers == 1:
        for done, shard in enumerate(shards, start=1):
            write_shard(plan, shard)
            print(f"{done}/{len(shards)} shards", flush=True)
    else:
        with ProcessPoolExecutor(workers, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
            running = [pool.submit(write_shard, plan, shard) for shard in shards]
            for done, shard_done in enumerate(as_completed(running), start=1):
                shard_done.result()
                print(f"{done}/{len(shards)} shards", flush=True)
    _merge_parts(plan.out)
    return len(missing)


def _end_with_parent(parent: int) -> None:
    """End this process soon after its parent was killed, which a pool's workers would outlive."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _merge_parts(folder: Path) -> None:
    rows = read_metadata(folder)
    lines = [json.dumps(rows[name], ensure_ascii=False) for name in sorted(rows)]
    _write_atomically(folder / _METADATA, "\n".join(lines) + "\n")
    for part in folder.glob(_PART):
        part.unlink()


def parse_shares(text: str) -> dict[str, float]:
    """Read shares written as "single=0.8,wear=0.2"; a name without a number has share 1.

    Raises:
        ValueError: If a share is no number.
    """
    shares = {}
    for item in text.split(","):
        name, _, share = item.partition("=")
        try:
            shares[name.strip()] = float(share) if share else 1.0
        except ValueError:
            raise ValueError(f"`{text}` gives {name!r} the share {share!r}, which is no number.") from None
    return shares


def _settings_from(arguments: argparse.Namespace) -> SceneSettings:
    preset = PRESETS[arguments.preset]
    return replace(
        preset,
        size=arguments.size or preset.size,
        kinds=parse_shares(arguments.kinds) if arguments.kinds else preset.kinds,
        styles=parse_shares(arguments.styles) if arguments.styles else preset.styles,
        backgrounds=parse_shares(arguments.backgrounds) if arguments.backgrounds else preset.backgrounds,
    )


def main() -> None:
    """Read the command line and write the data set."""
    parser = argparse.ArgumentParser(description="Write captioned emoji scenes as an image folder.")
    parser.add_argument("--art", type=Path, required=True, help="folder of <style>.parquet, as fetch_art.py writes it")
    parser.add_argument("--out", type=Path, required=True, help="image folder to write")
    parser.add_argument("--num-images", type=int, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="all", help="settings to start from")
    parser.add_argument("--size", type=int, help="width and height in pixels")
    parser.add_argument("--kinds", help=f"shares such as single=0.8,wear=0.2, of: {', '.join(ALL_KINDS)}")
    parser.add_argument("--styles", help="shares such as fluent-3d=2,noto=1")
    parser.add_argument("--backgrounds", help="shares such as white=0.6; the rest goes to the other colors")
    parser.add_argument("--split", choices=["train", "held_out", "any"], default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sheet", type=Path, help="PNG of the first 64 pictures to write as well")
    arguments = parser.parse_args()
    try:
        plan = DatasetPlan(arguments.art, arguments.out, _settings_from(arguments), arguments.seed, arguments.split)
        written = make_dataset(plan, arguments.num_images, arguments.workers)
    except ValueError as error:
        parser.error(str(error))
    print(f"{plan.out}: {written} pictures written, {arguments.num_images - written} were there")
    if arguments.sheet is not None:
        write_contact_sheet(plan.out, arguments.sheet, 64)


if __name__ == "__main__":
    main()
