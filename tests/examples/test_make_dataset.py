import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from contact_sheet import write_contact_sheet
from make_dataset import DatasetPlan, make_dataset, parse_shares, write_shard
from PIL import Image
from settings import SceneSettings

SETTINGS = SceneSettings(size=32, styles={"shapes": 1})


def plan_for(art_folder: Path, out: Path, settings: SceneSettings = SETTINGS) -> DatasetPlan:
    return DatasetPlan(art_folder, out, settings, seed=0, split="train")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_data_set_has_its_pictures_captions_and_facts(art_folder: Path, tmp_path: Path) -> None:
    assert make_dataset(plan_for(art_folder, tmp_path), 5) == 5
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["file_name"] for row in rows] == [f"00/00000{number}.png" for number in range(5)]
    for row in rows:
        with Image.open(tmp_path / row["file_name"]) as image:
            assert (image.size, image.mode) == ((32, 32), "RGB")
        assert len(row["text"]) == 2
        assert row["style"] == "shapes"
        assert row["held_out"] is False
        assert row["facts"]["things"][0]["name"]


def test_an_interrupted_run_goes_on_and_ends_the_same(art_folder: Path, tmp_path: Path) -> None:
    make_dataset(plan_for(art_folder, tmp_path / "at once"), 6)
    interrupted = plan_for(art_folder, tmp_path / "interrupted")
    interrupted.out.mkdir()
    (interrupted.out / "recipe.json").write_bytes((tmp_path / "at once" / "recipe.json").read_bytes())
    write_shard(interrupted, [2, 3])
    written = (interrupted.out / "00" / "000002.png").stat().st_mtime_ns
    assert make_dataset(interrupted, 6) == 4
    assert (interrupted.out / "00" / "000002.png").stat().st_mtime_ns == written
    assert contents(interrupted.out) == contents(tmp_path / "at once")


def test_workers_end_when_the_run_is_killed(art_folder: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "emoji" / "make_dataset.py"
    given = ["--art", art_folder, "--out", tmp_path, "--num-images", "100000", "--styles", "shapes", "--workers", "2"]
    run = subprocess.Popen([sys.executable, script, *given], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while len(workers := psutil.Process(run.pid).children()) < 2 or not list(tmp_path.rglob("*.png")):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        run.kill()
        run.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_a_finished_data_set_can_be_made_larger(art_folder: Path, tmp_path: Path) -> None:
    plan = plan_for(art_folder, tmp_path / "grown")
    make_dataset(plan, 3)
    assert make_dataset(plan, 3) == 0
    assert make_dataset(plan, 5) == 2
    make_dataset(plan_for(art_folder, tmp_path / "at once"), 5)
    assert contents(tmp_path / "grown") == contents(tmp_path / "at once")


def test_a_folder_begun_with_other_settings_is_refused(art_folder: Path, tmp_path: Path) -> None:
    make_dataset(plan_for(art_folder, tmp_path), 2)
    with pytest.raises(ValueError, match="begun with other settings"):
        make_dataset(plan_for(art_folder, tmp_path, replace(SETTINGS, size=16)), 2)


def test_shares_are_read_from_text() -> None:
    assert parse_shares("single=0.8, wear=0.2") == {"single": 0.8, "wear": 0.2}
    assert parse_shares("noto") == {"noto": 1.0}
    with pytest.raises(ValueError, match="no number"):
        parse_shares("single=much")


def test_a_contact_sheet_shows_pictures_in_order(art_folder: Path, tmp_path: Path) -> None:
    make_dataset(plan_for(art_folder, tmp_path), 4)
    texts = write_contact_sheet(tmp_path, tmp_path / "sheet.png", num_images=3, cell=32)
    first_row = json.loads((tmp_path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert texts[0] == " | ".join(first_row["text"])
    assert len(texts) == 3
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / first_row["file_name"]) as first:
        assert sheet.crop((2, 2, 34, 34)).tobytes() == first.tobytes()


def test_nothing_is_written_for_a_style_without_art(art_folder: Path, tmp_path: Path) -> None:
    plan = plan_for(art_folder, tmp_path / "out", replace(SETTINGS, styles={"woodcut": 1}))
    with pytest.raises(ValueError, match="`styles` names 'woodcut'"):
        make_dataset(plan, 2)
    assert not plan.out.exists()
