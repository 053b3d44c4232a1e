import pytest

from diffusers_imagen.pipelines.call_checks import select_stages, stage_sizes

ALL = ["base", "sr_1", "sr_2"]
SIDES = {"base": 64, "sr_1": 256, "sr_2": 1024}
MULTIPLES = {"base": 8, "sr_1": 16, "sr_2": 16}


@pytest.mark.parametrize(
    ("start", "stop", "has_image", "expected"),
    [
        (None, None, False, ALL),
        ("base", "sr_1", False, ["base", "sr_1"]),
        (None, "base", False, ["base"]),
        (None, None, True, ["sr_1", "sr_2"]),
        ("sr_2", None, True, ["sr_2"]),
        ("sr_1", "sr_1", True, ["sr_1"]),
    ],
)
def test_the_stages_from_start_to_stop_run(start, stop, has_image, expected):
    assert select_stages(ALL, start, stop, has_image) == expected


def test_a_base_alone_takes_no_image():
    with pytest.raises(ValueError, match="the base starts from noise"):
        select_stages(["base"], None, None, True)


@pytest.mark.parametrize(
    ("stages", "height", "width", "expected"),
    [
        (ALL, None, None, {"base": (64, 64), "sr_1": (256, 256), "sr_2": (1024, 1024)}),
        (ALL, 512, 2048, {"base": (32, 128), "sr_1": (128, 512), "sr_2": (512, 2048)}),
        (ALL, 128, None, {"base": (8, 64), "sr_1": (32, 256), "sr_2": (128, 1024)}),
        (["sr_2"], 16, 32, {"sr_2": (16, 32)}),
    ],
)
def test_each_stage_draws_its_share_of_the_final_size(stages, height, width, expected):
    final = SIDES[stages[-1]]
    assert stage_sizes(stages, SIDES, MULTIPLES, height, width, (final, final)) == expected


@pytest.mark.parametrize("side", [1, 4, 8, 10, 16, 20, 39, 40, 41, 60, 80, 100, 120, 160, 200, 240])
def test_a_size_is_refused_exactly_where_a_stage_could_not_draw_it(side):
    def draw():
        return stage_sizes(["base", "sr_1"], {"base": 32, "sr_1": 80}, {"base": 4, "sr_1": 8}, side, None, (80, 80))

    base = side * 32 / 80
    if base.is_integer() and base % 4 == 0 and side % 8 == 0:
        assert draw() == {"base": (base, 32), "sr_1": (side, 80)}
    else:
        with pytest.raises(ValueError, match=rf"`height` is {side} pixels .* multiples of 40; give \d+ or \d+"):
            draw()
