from typing import Any

import pytest

from diffusers_imagen.evaluation.claims import ClaimedThing, Claims, give_verdict, parse_claims, stands
from diffusers_imagen.evaluation.seen_scene import SeenScene, SeenThing

KNOWN = {
    "nouns": ("cat", "dog", "star"),
    "colors": ("red", "blue"),
    "worn": ("top hat", "cap", "glasses"),
    "backgrounds": ("white", "sea"),
    "styles": ("flat",),
}


def thing(name: str, x: float = 0.5, y: float = 0.5, side: float = 0.4, **fields: Any) -> SeenThing:
    given = {"color": "red", "worn": (), "held": False} | fields
    return SeenThing(name=name, box=(x, y, side, side), probability=0.9, **given)


def scene(*things: SeenThing, background: str = "white", style: str = "flat") -> SeenScene:
    return SeenScene(things, background, style)


def claims(*things: ClaimedThing, **fields: Any) -> Claims:
    return Claims(things, **fields)


CAT, DOG = ClaimedThing(("cat",)), ClaimedThing(("dog",))


@pytest.mark.parametrize(
    ("claimed", "seen", "hit", "nouns"),
    [
        (claims(CAT), scene(thing("cat")), True, True),
        (claims(CAT), scene(thing("dog")), False, False),
        (claims(CAT), scene(thing("cat"), thing("dog")), False, True),
        (claims(CAT), scene(thing("cat"), thing("cat", 0.9)), False, True),
        (claims(CAT), scene(thing("cat", worn=("cap",))), False, True),
        (claims(ClaimedThing(("cat",), number=2)), scene(thing("cat"), thing("cat", 0.9)), True, True),
        (claims(ClaimedThing(("cat",), color="blue")), scene(thing("cat")), False, True),
        (claims(ClaimedThing(("cat",), color="red")), scene(thing("cat")), True, True),
        (claims(ClaimedThing(("cat", "dog"))), scene(thing("dog")), True, True),
        (claims(CAT, background="sea"), scene(thing("cat")), False, True),
        (claims(CAT, background="white", style="flat"), scene(thing("cat")), True, True),
        (claims(CAT, DOG), scene(thing("cat")), False, False),
        (claims(CAT, DOG, layout="left"), scene(thing("dog", 0.8), thing("cat", 0.2)), True, True),
        (claims(CAT, DOG, layout="left"), scene(thing("dog", 0.2), thing("cat", 0.8)), False, True),
        (claims(CAT, concept_only=True), scene(thing("cat"), thing("dog")), True, True),
        (claims(CAT, concept_only=True), scene(thing("dog"), thing("cat")), False, False),
    ],
)
def test_a_hit_shows_what_is_claimed_and_nothing_else(
    claimed: Claims, seen: SeenScene, hit: bool, nouns: bool
) -> None:
    verdict = give_verdict(claimed, seen)
    assert (verdict.hit, verdict.nouns) == (hit, nouns)


def test_colors_belong_to_their_things() -> None:
    claimed = claims(ClaimedThing(("star",), color="red"), ClaimedThing(("cat",), color="blue"))
    right = scene(thing("star", 0.2), thing("cat", 0.8, color="blue"))
    swapped = scene(thing("star", 0.2, color="blue"), thing("cat", 0.8))
    assert give_verdict(claimed, right).hit
    assert not give_verdict(claimed, swapped).hit


def test_any_right_hat_will_do_but_no_more_than_claimed() -> None:
    hat = ClaimedThing(("cat",), worn=(("top hat", "cap"),))
    both = ClaimedThing(("cat",), worn=(("top hat", "cap"), ("glasses",)))
    with_cap, with_both = thing("cat", worn=("cap",)), thing("cat", worn=("glasses", "cap"))
    assert [hat.fits(with_cap), hat.fits(with_both), both.fits(with_cap), both.fits(with_both)] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("x", "y", "true"),
    [(0.2, 0.5, {"left", "beside"}), (0.8, 0.6, {"right", "beside"}), (0.5, 0.2, {"above"}), (0.4, 0.9, {"below"})],
)
def test_a_place_holds_in_the_main_direction_only(x: float, y: float, true: set[str]) -> None:
    found = {
        name
        for name in ("left", "right", "above", "below", "beside")
        if stands(thing("cat", x, y), name, thing("dog"))
    }
    assert found == true


def test_bigger_and_holding_are_read_from_boxes_and_the_held_thing() -> None:
    big, small = thing("cat", side=0.6), thing("dog", side=0.3, held=True)
    assert stands(big, "bigger", small)
    assert not stands(small, "bigger", big)
    assert stands(big, "holds", small)
    assert not stands(small, "holds", big)


def test_claims_are_read_from_json() -> None:
    fields = {"things": [{"names": ["cat"], "worn": [["cap"]]}, {"names": ["dog"], "color": "red"}], "layout": "above"}
    first, second = ClaimedThing(("cat",), worn=(("cap",),)), ClaimedThing(("dog",), color="red")
    assert parse_claims(fields, KNOWN) == Claims((first, second), layout="above")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`claims.things` is None"),
        ({"things": [{"names": ["unicorn"]}]}, r"name \['unicorn'\], which are not among the judge's 3 nouns"),
        ({"things": [{"names": ["cat"], "number": 0}]}, "the number 0"),
        ({"things": [{"names": ["cat"], "colour": "red"}]}, "no fields but"),
        ({"things": [{"names": ["cat"], "worn": ["cap"]}]}, r"\['cap'\] worn"),
        ({"things": [{"names": ["cat"]}], "layout": "left"}, "`claims.layout` is 'left' of 1 things"),
        ({"things": [{"names": ["cat"]}], "style": "noto"}, "1 styles"),
    ],
)
def test_malformed_claims_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_claims(fields, KNOWN)
