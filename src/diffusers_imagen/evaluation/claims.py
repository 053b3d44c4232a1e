# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a prompt claims of its picture, and whether what was seen is that. Facts and rules only: no pictures here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers_imagen.evaluation.seen_scene import SeenScene, SeenThing

LAYOUTS = ("left", "right", "above", "below", "beside", "bigger", "holds")
# A big thing's longer side, by that of a small one: in between, neither is bigger.
_BIGGER = 1.5


@dataclass(frozen=True)
class ClaimedThing:
    """Claim a thing, or several equal ones.

    Attributes:
        names: Nouns that are right, any of them.
        number: How many there are.
        color: Its color; None if nothing is said of it.
        worn: What it wears: for each word, the nouns that are right. It wears nothing else.
    """

    names: tuple[str, ...]
    number: int = 1
    color: str | None = None
    worn: tuple[tuple[str, ...], ...] = ()

    def fits(self, seen: SeenThing) -> bool:
        """Tell whether a thing seen is one of these."""
        dressed = len(seen.worn) == len(self.worn) and all(set(names) & set(seen.worn) for names in self.worn)
        return seen.name in self.names and self.color in (None, seen.color) and dressed


@dataclass(frozen=True)
class Claims:
    """Claim what a picture shows: these things and no others.

    Attributes:
        things: The things, at least one.
        layout: Where the first thing is, seen from the second ("left", "right", "above", "below", "beside"), or that it
            is "bigger" than the second or "holds" it; None if nothing is said.
        background: Name of the background, or None.
        style: Name of the style, or None.
        concept_only: Free text: enough that the surest thing seen bears one of the first claim's names.
    """

    things: tuple[ClaimedThing, ...]
    layout: str | None = None
    background: str | None = None
    style: str | None = None
    concept_only: bool = False


@dataclass(frozen=True)
class Verdict:
    """Say whether a picture shows what is claimed (`hit`), and whether at least all nouns are there (`nouns`)."""

    hit: bool
    nouns: bool


def give_verdict(claims: Claims, seen: SeenScene) -> Verdict:
    """Compare claims with what was seen."""
    if claims.concept_only:
        right = seen.things[0].name in claims.things[0].names
        return Verdict(right, right)
    names = {thing.name for thing in seen.things}
    fitting = [[thing for thing in seen.things if claim.fits(thing)] for claim in claims.things]
    counted = all(len(found) == claim.number for found, claim in zip(fitting, claims.things, strict=True))
    hit = (
        counted
        and len(seen.things) == sum(claim.number for claim in claims.things)
        and (claims.layout is None or stands(fitting[0][0], claims.layout, fitting[1][0]))
        and claims.background in (None, seen.background)
        and claims.style in (None, seen.style)
    )
    return Verdict(hit, all(names & set(claim.names) for claim in claims.things))


def stands(first: SeenThing, layout: str, second: SeenThing) -> bool:
    """Tell whether a layout holds: a place holds if it is the main direction from the second thing to the first."""
    if layout == "holds":
        return second.held
    if layout == "bigger":
        return max(first.box[2:]) >= _BIGGER * max(second.box[2:])
    x, y = first.box[0] - second.box[0], first.box[1] - second.box[1]
    if abs(x) >= abs(y):
        return layout in ("beside", "left" if x < 0 else "right")
    return layout == ("above" if y < 0 else "below")


def parse_claims(fields: Mapping[str, Any], known: Mapping[str, tuple[str, ...]]) -> Claims:
    """Read claims from JSON.

    Args:
        fields: `{"things": [{"names": [...], "number": 1, "color": null, "worn": [[...]]}], "layout": null, ...}`; what
            is left out is not claimed.
        known: The judge's `nouns`, `colors`, `worn`, `backgrounds` and `styles`.

    Raises:
        ValueError: If a field is unknown or malformed, or names what the judge does not know.
    """
    _check_fields("claims", fields, {"things", "layout", "background", "style", "concept_only"})
    things = fields.get("things")
    if not isinstance(things, list) or not things:
        raise ValueError(f"`claims.things` is {things!r}; give a list of at least one thing.")
    layout = fields.get("layout")
    if layout is not None and (layout not in LAYOUTS or len(things) != 2):
        raise ValueError(
            f"`claims.layout` is {layout!r} of {len(things)} things; give one of {LAYOUTS} and two things."
        )
    background, style = fields.get("background"), fields.get("style")
    for kind, name in (("backgrounds", background), ("styles", style)):
        _check_known(kind, [] if name is None else [name], known)
    parsed = tuple(_parse_thing(thing, known) for thing in things)
    concept_only = fields.get("concept_only", False)
    if not isinstance(concept_only, bool):
        raise ValueError(f"`claims` has `concept_only` {concept_only!r}; give true or false.")
    return Claims(parsed, layout, background, style, concept_only)


def _parse_thing(fields: Mapping[str, Any], known: Mapping[str, tuple[str, ...]]) -> ClaimedThing:
    _check_fields("claims.things", fields, {"names", "number", "color", "worn"})
    names, number = fields.get("names"), fields.get("number", 1)
    color, worn = fields.get("color"), fields.get("worn", [])
    if not isinstance(names, list) or not names:
        raise ValueError(f"`claims.things` has the names {names!r}; give a list of at least one noun.")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`claims.things` has the number {number!r}; give a whole number of at least 1.")
    if not isinstance(worn, list) or not all(isinstance(word, list) and word for word in worn):
        raise ValueError(f"`claims.things` has {worn!r} worn; give a list of the right nouns for each word.")
    _check_known("nouns", names, known)
    _check_known("colors", [] if color is None else [color], known)
    _check_known("worn", [name for word in worn for name in word], known)
    return ClaimedThing(tuple(names), number, color, tuple(tuple(word) for word in worn))


def _check_fields(place: str, fields: object, allowed: set[str]) -> None:
    if not isinstance(fields, Mapping) or not set(fields) <= allowed:
        raise ValueError(f"`{place}` is {fields!r}; give an object with no fields but {sorted(allowed)}.")


def _check_known(kind: str, names: list[Any], known: Mapping[str, tuple[str, ...]]) -> None:
    unknown = [name for name in names if name not in known[kind]]
    if unknown:
        raise ValueError(f"the claims name {unknown}, which are not among the judge's {len(known[kind])} {kind}.")
