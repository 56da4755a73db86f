"""Routing, refusal, header rules and operating points."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decision import (
    combine,
    decide,
    decide_study,
    exclusion_reason,
    refusal,
    route,
    specialists_for,
)
from pipeline.domain import Flag, ImageRef
from pipeline.flags import reconcile
from pipeline.outcome import OperatingPoint, Verdict

HALF = {"elbow": 0.5, "hand": 0.5, "shoulder": 0.5}
POINT = OperatingPoint("balanced", threshold=0.6, doubt_below=0.4)


def test_regions_at_or_above_their_threshold_fire():
    call = route({"elbow": 0.5, "hand": 0.9, "shoulder": 0.49}, HALF)
    assert call.fired == ("hand", "elbow")
    assert refusal(call, {"hand", "elbow"}) is None


def test_refusal_names_the_nearest_region():
    call = route({"elbow": 0.1, "hand": 0.4, "shoulder": 0.2}, HALF)
    assert call.fired == ()
    assert "nearest is hand with probability 0.400, expected 0.500" in str(refusal(call, HALF))


def test_thresholds_are_matched_by_region():
    call = route({"elbow": 0.6, "hand": 0.6}, {"hand": 0.7, "elbow": 0.5})
    assert call.fired == ("elbow",)


def test_region_without_specialist_is_refused():
    call = route({"elbow": 0.1, "hand": 0.9, "shoulder": 0.2}, HALF)
    assert refusal(call, {"elbow"}) == (
        "recognised as hand, which has no specialist; specialists are available for elbow"
    )
    assert refusal(call, set()) is not None


def test_one_of_two_specialists_is_sufficient():
    assert refusal(route({"elbow": 0.8, "hand": 0.9, "shoulder": 0.2}, HALF), {"elbow"}) is None


@pytest.mark.parametrize(
    ("fired", "specialists", "expected"),
    [
        (["hand"], ["elbow", "hand"], ("hand",)),
        (["hand"], ["hand", "all"], ("hand",)),
        (["hand"], ["elbow", "all"], ("all",)),
        (["hand", "shoulder"], ["elbow", "all"], ("all",)),  # listed once
        (["hand", "shoulder"], ["hand", "all"], ("hand", "all")),
        (["hand", "elbow"], ["elbow"], ("elbow",)),
        (["hand"], ["elbow"], ()),
        ([], ["hand", "all"], ()),  # refused
        (None, ["all"], ("all",)),
    ],
)
def test_examiners_of_a_picture(fired, specialists, expected):
    call = None
    if fired is not None:
        call = route({region: 0.9 if region in fired else 0.1 for region in HALF}, HALF)
    assert set(specialists_for(call, specialists)) == set(expected)
    assert len(specialists_for(call, specialists)) == len(expected)
    assert (refusal(call, specialists) is None) == bool(expected)


@pytest.mark.parametrize(
    ("probability", "verdict"),
    [
        (0.6, Verdict.POSITIVE),
        (0.599, Verdict.UNCERTAIN),
        (0.4, Verdict.UNCERTAIN),
        (0.399, Verdict.NEGATIVE),
    ],
)
def test_verdict_at_the_limits_of_the_operating_point(probability, verdict):
    assert decide("hand", "fracture", probability, POINT).verdict is verdict


@pytest.mark.parametrize("bad", [float("nan"), -0.1, 1.1])
def test_invalid_probability_is_refused(bad):
    with pytest.raises(ValueError, match="expected a number in"):
        route({"elbow": bad, "hand": 0.9, "shoulder": 0.2}, HALF)
    with pytest.raises(ValueError, match="expected a number in"):
        decide("hand", "fracture", bad, POINT)


CLEAR = {"elbow": 0.1, "hand": 0.9, "shoulder": 0.2}


@pytest.mark.parametrize(
    ("density", "threshold", "fired"),
    [
        (0.5, 0.5, ("hand",)),
        (0.49, 0.5, ()),
        (-0.2, None, ("hand",)),
        (None, None, ("hand",)),
    ],
)
def test_no_region_fires_below_the_density_threshold(density, threshold, fired):
    call = route(CLEAR, HALF, density, threshold)
    assert call.fired == fired
    assert call.ranking[0] == "hand"
    assert (call.reason is None) == bool(fired)


def test_refusal_of_an_unfamiliar_picture():
    call = route(CLEAR, HALF, 0.31, 0.52)
    expected = "unlike anything that the networks were trained on: similarity 0.310, expected 0.520"
    assert str(refusal(call, {"hand"})).startswith(expected)
    assert specialists_for(call, {"hand"}) == ()


def test_study_point_does_not_lower_the_threshold_of_a_far_picture() -> None:
    near, far = OperatingPoint("balanced", 0.4, 0.2), OperatingPoint("balanced", 0.9, 0.2)
    of_study = {"hand": OperatingPoint("balanced", 0.5, 0.3)}
    image = ImageRef(Path("a.png"), sha256="0" * 64)
    for point, is_far, threshold in ((near, False, 0.5), (far, True, 0.9)):
        call = decide("hand", "fracture", 0.7, point, far=is_far)
        (study,) = decide_study([(image, call)], of_study)
        assert study.call.operating_point.threshold == threshold
        (alone,) = decide_study([(image, call)], {})
        assert alone.call.operating_point == point


@pytest.mark.parametrize(
    ("density", "threshold"),
    [(float("nan"), 0.5), (float("inf"), 0.5), (None, 0.5), (0.5, float("nan"))],
)
def test_density_gate_without_valid_values_is_an_error(density, threshold):
    with pytest.raises(ValueError, match="density"):
        route(CLEAR, HALF, density, threshold)


# ------------------------------------------------------------------------- rules on the header

LOW = {"elbow": 0.1, "hand": 0.1, "shoulder": 0.1}
BELOW = 1 / (1 + math.exp(1.0))
"""The probability that is one unit of log odds below 0.5."""


def combined(probabilities, part=None, *, view="", modality="DX", how="combine", margin=1.0):
    """The call for these probabilities, thresholds of 0.5 and a header."""
    header = {"BodyPartExamined": part or "", "ViewPosition": view, "Modality": modality}
    call = route({**LOW, **probabilities}, HALF)
    return combine(call, {k: v for k, v in header.items() if v}, how, margin)


@pytest.mark.parametrize("part", ["CHEST", "THORACIC SPINE", "FOOT", "SKULL"])
def test_header_that_names_another_part_vetoes(part):
    call = combined({"shoulder": 0.9}, part)
    assert (call.fired, call.detected, call.header_effect) == ((), ("shoulder",), "vetoed")
    reason = str(refusal(call, HALF))
    assert f"the header says {part}" in reason
    assert "the router found shoulder with probability 0.900 (from 0.500)" in reason
    assert specialists_for(call, HALF) == ()


def test_veto_applies_to_several_regions_and_to_the_specialist_for_all():
    call = combined({"hand": 0.9, "elbow": 0.8}, "ANKLE")
    assert specialists_for(call, ["all"]) == ()
    assert "hand with probability 0.900" in str(refusal(call, ["all"]))
    assert "elbow with probability 0.800" in str(refusal(call, ["all"]))


@pytest.mark.parametrize(
    ("probabilities", "part", "effect", "fired"),
    [
        ({"hand": 0.9}, "WRIST", "agreed", ("hand",)),
        ({"hand": 0.9, "elbow": 0.8}, "ELBOW", "agreed", ("hand", "elbow")),
        ({"shoulder": 0.9}, "CLAVICLE", "agreed", ("shoulder",)),
        ({}, "CHEST", "agreed", ()),
        ({"hand": BELOW + 1e-6}, "HAND", "helped", ("hand",)),
        ({"hand": BELOW - 1e-6}, "HAND", "nothing", ()),
        ({"hand": 0.4, "elbow": 0.9}, "HAND", "helped", ("elbow", "hand")),
        ({"hand": 0.4}, "ELBOW", "nothing", ()),  # the header does not name the hand
        ({"hand": 0.9}, "SHOULDER", "nothing", ("hand",)),  # only a flag is raised
        ({"elbow": 0.4}, "FOREARM", "nothing", ()),  # an adjacent part does not help
        ({"shoulder": 0.4}, "CLAVICLE", "nothing", ()),
        ({"hand": 0.4}, "HAND FOOT", "nothing", ()),  # contradictory
        ({"hand": 0.9}, "HAND FOOT", "agreed", ("hand",)),
        ({"hand": 0.4, "elbow": 0.4}, "HAND ELBOW", "nothing", ()),
        ({"hand": 0.4}, "EXTREMITY", "nothing", ()),
        ({"hand": 0.4}, None, "nothing", ()),
        ({"hand": 0.9}, None, "nothing", ("hand",)),
    ],
)
def test_effect_of_the_header(probabilities, part, effect, fired):
    call = combined(probabilities, part)
    assert (call.header_effect, call.fired) == (effect, fired)


def test_view_is_used_only_if_it_implies_one_part():
    assert combined({"hand": 0.4}, view="SCAPHOID").header_effect == "helped"
    assert combined({"hand": 0.9}, view="MORTISE").header_effect == "vetoed"
    assert combined({"shoulder": 0.4}, "SHOULDER", view="AXIAL").header_effect == "helped"
    assert combined({"hand": 0.4}, "HAND", view="MORTISE").fired == ()


@pytest.mark.parametrize(("modality", "helps"), [("CR", 1), ("RG", 1), ("OT", 0), ("", 0)])
def test_header_helps_radiographs_only_and_vetoes_any_modality(modality, helps):
    assert bool(combined({"hand": 0.4}, "HAND", modality=modality).fired) == helps
    assert combined({"hand": 0.9}, "KNEE", modality=modality).header_effect == "vetoed"


def test_margin_of_the_header():
    assert combined({"hand": 0.2}, "HAND", margin=1.5).fired == ("hand",)
    assert combined({"hand": 0.4999}, "HAND", margin=0.0).fired == ()
    assert "expected 0.269 or more" in str(combined({"hand": 0.2}, "HAND").reason)


def test_ignored_header_has_no_effect():
    for probabilities in ({"shoulder": 0.9}, {"hand": 0.4}):
        call = combined(probabilities, "CHEST", how="ignore")
        assert (call.header_effect, call.veto) == ("ignored", None)
        assert call.fired == route({**LOW, **probabilities}, HALF).fired


WORDS = ("", "HAND", "ELBOW", "SHOULDER", "CHEST", "FOREARM", "CLAVICLE", "FOOT HAND", "QXYZ")


@given(
    st.fixed_dictionaries({region: st.floats(0, 1) for region in HALF}),
    st.fixed_dictionaries({region: st.floats(0, 1) for region in HALF}),
    st.sampled_from(WORDS), st.sampled_from(["DX", "OT", ""]), st.floats(0, 3),
)  # fmt: skip
def test_header_adds_at_most_the_region_that_it_names(
    probabilities, thresholds, part, modality, margin
):
    alone = route(probabilities, thresholds)
    header = {"BodyPartExamined": part, "Modality": modality}
    call = combine(alone, header, "combine", margin)
    added = set(call.fired) - set(alone.fired)
    assert added <= {part.lower()}
    assert bool(added) == (call.header_effect == "helped")
    assert not added or modality == "DX"
    removed = set(alone.fired) - set(call.fired)
    assert removed in (set(), set(alone.fired))
    assert bool(removed) == (call.header_effect == "vetoed") == bool(call.veto)
    if added:
        (region,) = added
        p, t = probabilities[region], thresholds[region]
        assert p * (1 - t) * math.exp(margin) >= t * (1 - p) * (1 - 1e-9)
    flags = reconcile(header, call.detected if call.veto else call.fired)
    if call.header_effect in ("agreed", "helped"):
        assert flags == ()
    if call.header_effect == "vetoed":
        assert [flag.name for flag in flags] == ["body-part-differs"]


def test_only_the_flag_blank_refuses_a_picture():
    blank, other = Flag("blank", "no contrast"), Flag("too-small", "few pixels")
    assert exclusion_reason([other, blank]) == "blank: no contrast"
    assert exclusion_reason([other]) is None
    assert exclusion_reason([]) is None
