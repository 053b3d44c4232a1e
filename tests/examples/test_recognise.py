import json
from pathlib import Path

import pytest
import torch
from art import ArtLibrary
from judge import NounJudge, load_judge, rank_nouns, save_judge, shrink
from judge_training import compose_set, examine, nouns_with_art, train_judge
from PIL import Image
from recognise import noun_of, read_pictures, score, shuffled_hit_rate


def test_a_folder_without_a_single_noun_is_refused_since_a_rate_needs_a_picture(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "kind": "count", "facts": {"noun": "cat"}}\n')
    with pytest.raises(ValueError, match="no picture of kind 'single'"):
        read_pictures(tmp_path, ["cat"])


def test_shuffled_prompts_agree_as_often_as_their_frequencies_say() -> None:
    asked = torch.tensor([0] * 30 + [1] * 10)
    seen = torch.tensor([0] * 20 + [1] * 20)
    assert shuffled_hit_rate(asked, seen) == pytest.approx(0.75 * 0.5 + 0.25 * 0.5, abs=0.01)
    assert shuffled_hit_rate(asked, torch.full((40,), 1)) == pytest.approx(0.25)


def test_a_noun_is_read_from_facts_or_refused() -> None:
    assert noun_of({"facts": {"noun": "cat"}}) == "cat"
    assert noun_of({"facts": {"things": [{"name": "dog"}, {"name": "cat"}]}}) == "dog"
    with pytest.raises(ValueError, match="name no noun"):
        noun_of({"file_name": "0.png", "facts": {"background": "red"}})


def test_transparent_pictures_are_seen_on_white() -> None:
    assert shrink(Image.new("RGBA", (100, 80), (0, 0, 0, 0))).getpixel((16, 16)) == (255, 255, 255)
    assert shrink(Image.new("L", (7, 9), 40)).size == (32, 32)


@pytest.fixture(scope="module")
def trained(art_folder: Path) -> tuple[NounJudge, list[str]]:
    torch.set_num_threads(1)
    art = ArtLibrary(art_folder, ["shapes"])
    names = [noun.singular for noun in nouns_with_art(art, ["shapes"])]
    pixels, labels = compose_set(art, ["shapes"], per_noun=12, seed="train")
    return train_judge(pixels, labels, len(names), epochs=3, batch_size=12), names


def test_a_judge_learns_to_tell_shapes_it_has_not_seen(
    art_folder: Path, trained: tuple[NounJudge, list[str]], tmp_path: Path
) -> None:
    judge, names = trained
    pixels, labels = compose_set(ArtLibrary(art_folder, ["shapes"]), ["shapes"], per_noun=6, seed="unseen")
    card = examine(judge, pixels, labels, names, ["shapes"])
    assert card.top1 > 0.7
    save_judge(tmp_path, judge, card)
    again, card_again = load_judge(tmp_path)
    assert card_again == card
    assert torch.equal(rank_nouns(again, pixels), rank_nouns(judge, pixels))


def test_pictures_of_any_size_are_scored(
    trained: tuple[NounJudge, list[str]], tmp_path: Path, shape_colors: dict
) -> None:
    judge, names = trained
    rows = []
    for index, (name, size) in enumerate([("cat", 20), ("apple", 32), ("balloon", 150)]):
        image = Image.new("RGB", (size, size), "white")
        image.paste(shape_colors[name], (size // 6, size // 6, size - size // 6, size - size // 6))
        image.save(tmp_path / f"{index}.png")
        rows.append({"file_name": f"{index}.png", "kind": "single", "facts": {"noun": name}})
    rows.append({"file_name": "not there.png", "kind": "wear", "facts": {"noun": "cat"}})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    pixels, asked = read_pictures(tmp_path, names)
    report = score(judge, names, pixels, asked)
    assert [names[index] for index in asked] == ["cat", "apple", "balloon"]
    assert report.top5.hits == 3
    assert report.chance == pytest.approx(0.1)
    wrong = score(judge, names, pixels, (rank_nouns(judge, pixels)[:, 0] + 1) % len(names))
    assert wrong.top1.hits == 0
    assert sum(count for _, _, count in wrong.confusions) == 3


def test_a_folder_without_a_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`judge` is"):
        load_judge(tmp_path)
