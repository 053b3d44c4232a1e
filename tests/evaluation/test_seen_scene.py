import pytest
import torch
from PIL import Image

from diffusers_imagen.evaluation.scene_judge import JudgeOutput, SceneJudge
from diffusers_imagen.evaluation.seen_scene import look, overlap, read_output


def blank_output() -> JudgeOutput:
    """Say of one picture of 2 by 2 cells that nothing is in it."""
    return JudgeOutput(
        presence=torch.full((1, 2, 2), -9.0),
        box=torch.zeros(1, 2, 2, 4),
        noun=torch.zeros(1, 2, 2, 3),
        color=torch.zeros(1, 2, 2, 2),
        worn=torch.full((1, 2, 2, 1), -9.0),
        held=torch.full((1, 2, 2), -9.0),
        background=torch.tensor([[0.0, 1.0]]),
        style=torch.tensor([[1.0, 0.0]]),
        features=torch.zeros(1, 8),
    )


def put(output: JudgeOutput, row: int, column: int, noun: int, presence: float = 5.0) -> None:
    output.presence[0, row, column] = presence
    output.noun[0, row, column, noun] = 9


def test_a_thing_is_read_from_its_cell(judge: SceneJudge) -> None:
    output = blank_output()
    put(output, 1, 0, noun=1)
    output.color[0, 1, 0, 1] = 9
    output.worn[0, 1, 0, 0] = 9
    output.held[0, 1, 0] = 9
    (scene,) = read_output(judge, output)
    (thing,) = scene.things
    assert (thing.name, thing.color, thing.worn, thing.held) == ("dog", "blue", ("hat",), True)
    assert thing.box == pytest.approx((0.25, 0.75, 0.5, 0.5))
    assert (scene.background, scene.style) == ("black", "flat")


def test_what_cannot_wear_things_wears_nothing(judge: SceneJudge) -> None:
    output = blank_output()
    put(output, 0, 0, noun=2)
    output.worn[0, 0, 0, 0] = 9
    assert read_output(judge, output)[0].things[0].worn == ()


def test_the_surest_thing_comes_first_and_a_faint_one_is_not_seen(judge: SceneJudge) -> None:
    output = blank_output()
    output.box[..., 2:] = -3
    put(output, 0, 0, noun=0, presence=1)
    put(output, 1, 1, noun=2, presence=3)
    put(output, 0, 1, noun=1, presence=-1)
    assert [thing.name for thing in read_output(judge, output)[0].things] == ["hat", "cat"]


def test_neighboring_cells_that_mean_one_thing_count_once(judge: SceneJudge) -> None:
    output = blank_output()
    # Both centers lie on the border between the cells.
    output.box[0, 0, 0, 0], output.box[0, 0, 1, 0] = 9, -9
    put(output, 0, 0, noun=0, presence=2)
    put(output, 0, 1, noun=0, presence=3)
    assert len(read_output(judge, output)[0].things) == 1


def test_an_empty_picture_still_shows_its_nearest_concept(judge: SceneJudge) -> None:
    assert len(read_output(judge, blank_output())[0].things) == 1


def test_overlap_is_shared_by_covered_area() -> None:
    assert overlap((0.5, 0.5, 0.4, 0.4), (0.5, 0.5, 0.4, 0.4)) == pytest.approx(1)
    assert overlap((0.5, 0.5, 0.4, 0.4), (0.7, 0.5, 0.4, 0.4)) == pytest.approx(1 / 3)
    assert overlap((0.2, 0.2, 0.2, 0.2), (0.8, 0.8, 0.2, 0.2)) == 0


def test_looking_at_batches_is_looking_at_each(judge: SceneJudge) -> None:
    pictures = [Image.new("RGB", (20, 20), (60 * i, 10, 200)) for i in range(4)]
    together, alone = look(judge, [pictures]), look(judge, [[picture] for picture in pictures])
    assert [scene.things[0].name for scene in together.scenes] == [scene.things[0].name for scene in alone.scenes]
    torch.testing.assert_close(together.features, alone.features, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="`batches` is empty"):
        look(judge, [])


def test_a_judge_of_odd_size_is_refused() -> None:
    with pytest.raises(ValueError, match="`sample_size` is 20"):
        SceneJudge(("cat",), ("red",), ("hat",), ("white",), ("flat",), sample_size=20)


def test_a_saved_judge_sees_the_same(judge: SceneJudge, tmp_path) -> None:
    judge.save_pretrained(tmp_path)
    pictures = torch.randint(0, 256, (2, 3, 16, 16)).byte()
    again = SceneJudge.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(again.to_input(pictures)).noun, judge(judge.to_input(pictures)).noun)
