"""Routing fails closed, and the operating point decides."""

from __future__ import annotations

import pytest

from pipeline.decision import decide, examiners, refusal, route, unjudged
from pipeline.domain import Flag, OperatingPoint, Verdict

HALF = {"elbow": 0.5, "hand": 0.5, "shoulder": 0.5}
POINT = OperatingPoint("balanced", threshold=0.6, doubt_below=0.4)


def test_every_region_at_or_above_its_threshold_fires():
    call = route({"elbow": 0.5, "hand": 0.9, "shoulder": 0.49}, HALF)
    assert call.fired == ("hand", "elbow")
    assert refusal(call, {"hand", "elbow"}) is None


def test_no_region_is_refused_with_the_nearest_one_named():
    call = route({"elbow": 0.1, "hand": 0.4, "shoulder": 0.2}, HALF)
    assert call.fired == ()
    assert "nearest is hand with probability 0.400, wanted 0.500" in str(refusal(call, HALF))


def test_thresholds_belong_to_regions_not_to_places():
    call = route({"elbow": 0.6, "hand": 0.6}, {"hand": 0.7, "elbow": 0.5})
    assert call.fired == ("elbow",)


def test_fired_without_any_specialist_is_refused():
    call = route({"elbow": 0.1, "hand": 0.9, "shoulder": 0.2}, HALF)
    assert refusal(call, {"elbow"}) == (
        "recognised as hand, for which there is no specialist; there is one for elbow"
    )
    assert refusal(call, set()) is not None


def test_fired_with_one_of_two_specialists_goes_on():
    assert refusal(route({"elbow": 0.8, "hand": 0.9, "shoulder": 0.2}, HALF), {"elbow"}) is None


@pytest.mark.parametrize(
    ("fired", "specialists", "looking"),
    [
        (["hand"], ["elbow", "hand"], ("hand",)),
        (["hand"], ["hand", "all"], ("hand",)),
        (["hand"], ["elbow", "all"], ("all",)),
        (["hand", "shoulder"], ["elbow", "all"], ("all",)),  # asked once
        (["hand", "shoulder"], ["hand", "all"], ("hand", "all")),
        (["hand", "elbow"], ["elbow"], ("elbow",)),
        (["hand"], ["elbow"], ()),
        ([], ["hand", "all"], ()),  # refused before anyone looks
        (None, ["all"], ("all",)),
    ],
)
def test_who_looks_at_a_picture(fired, specialists, looking):
    call = None
    if fired is not None:
        call = route({region: 0.9 if region in fired else 0.1 for region in HALF}, HALF)
    assert set(examiners(call, specialists)) == set(looking)
    assert len(examiners(call, specialists)) == len(looking)
    assert (refusal(call, specialists) is None) == bool(looking)


@pytest.mark.parametrize(
    ("probability", "verdict"),
    [
        (0.6, Verdict.POSITIVE),
        (0.599, Verdict.UNCERTAIN),
        (0.4, Verdict.UNCERTAIN),
        (0.399, Verdict.NEGATIVE),
    ],
)
def test_verdict_at_the_edges_of_the_operating_point(probability, verdict):
    assert decide("hand", "fracture", probability, POINT).verdict is verdict


@pytest.mark.parametrize("bad", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="wanted a number in"):
        route({"elbow": bad, "hand": 0.9, "shoulder": 0.2}, HALF)
    with pytest.raises(ValueError, match="wanted a number in"):
        decide("hand", "fracture", bad, POINT)


def test_only_a_picture_without_contrast_is_refused_for_a_flag():
    blank, other = Flag("blank", "nothing there"), Flag("too-small", "few pixels")
    assert unjudged([other, blank]) == "blank: nothing there"
    assert unjudged([other]) is None
    assert unjudged([]) is None
