"""Routing fails closed, and the operating point decides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decision import combine, decide, decide_study, examiners, refusal, route, unjudged
from pipeline.domain import Flag, ImageRef
from pipeline.flags import reconcile
from pipeline.outcome import OperatingPoint, Verdict

HALF = {"elbow": 0.5, "hand": 0.5, "shoulder": 0.5}
POINT = OperatingPoint("balanced", threshold=0.6, doubt_below=0.4)


def test_every_region_at_or_above_its_threshold_fires():
    call = route({"elbow": 0.5, "hand": 0.9, "shoulder": 0.49}, HALF)
    assert call.fired == ("hand", "elbow")
    assert refusal(call, {"hand", "elbow"}) is None


def test_no_region_is_refused_with_the_nearest_one_named():
    call = route({"elbow": 0.1, "hand": 0.4, "shoulder": 0.2}, HALF)
    assert call.fired == ()
    assert "nearest is hand with probability 0.400, expected 0.500" in str(refusal(call, HALF))


def test_thresholds_belong_to_regions_not_to_places():
    call = route({"elbow": 0.6, "hand": 0.6}, {"hand": 0.7, "elbow": 0.5})
    assert call.fired == ("elbow",)


def test_fired_without_any_specialist_is_refused():
    call = route({"elbow": 0.1, "hand": 0.9, "shoulder": 0.2}, HALF)
    assert refusal(call, {"elbow"}) == (
        "recognised as hand, which has no specialist; specialists are available for elbow"
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
    with pytest.raises(ValueError, match="expected a number in"):
        route({"elbow": bad, "hand": 0.9, "shoulder": 0.2}, HALF)
    with pytest.raises(ValueError, match="expected a number in"):
        decide("hand", "fracture", bad, POINT)


SURE = {"elbow": 0.1, "hand": 0.9, "shoulder": 0.2}


@pytest.mark.parametrize(
    ("density", "threshold", "fired"),
    [
        (0.5, 0.5, ("hand",)),
        (0.49, 0.5, ()),
        (-0.2, None, ("hand",)),
        (None, None, ("hand",)),
    ],
)
def test_below_the_threshold_of_the_density_gate_no_region_fires(density, threshold, fired):
    call = route(SURE, HALF, density, threshold)
    assert call.fired == fired
    assert call.ranking[0] == "hand"
    assert (call.reason is None) == bool(fired)


def test_an_unfamiliar_picture_is_refused_for_that_reason():
    call = route(SURE, HALF, 0.31, 0.52)
    expected = "unlike anything that the networks were trained on: similarity 0.310, expected 0.520"
    assert str(refusal(call, {"hand"})).startswith(expected)
    assert examiners(call, {"hand"}) == ()


def test_a_far_picture_makes_no_study_positive_that_it_would_not_make_itself() -> None:
    near, far = OperatingPoint("balanced", 0.4, 0.2), OperatingPoint("balanced", 0.9, 0.2)
    of_study = {"hand": OperatingPoint("balanced", 0.5, 0.3)}
    image = ImageRef(Path("a.png"), "0" * 64)
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
def test_a_density_gate_that_cannot_be_applied_is_an_error(density, threshold):
    with pytest.raises(ValueError, match="density"):
        route(SURE, HALF, density, threshold)


# ------------------------------------------------------------------------- the header's word

QUIET = {"elbow": 0.1, "hand": 0.1, "shoulder": 0.1}
BELOW = 1 / (1 + math.exp(1.0))
"""The probability one unit of log odds below a half."""


def heard(probabilities, part=None, *, view="", modality="DX", how="combine", margin=1.0):
    """The call for probabilities against thresholds of a half, and a header."""
    header = {"BodyPartExamined": part or "", "ViewPosition": view, "Modality": modality}
    call = route({**QUIET, **probabilities}, HALF)
    return combine(call, {k: v for k, v in header.items() if v}, how, margin)


@pytest.mark.parametrize("part", ["CHEST", "THORACIC SPINE", "FOOT", "SKULL"])
def test_a_header_that_names_a_part_elsewhere_vetoes_with_both_reasons(part):
    call = heard({"shoulder": 0.9}, part)
    assert (call.fired, call.detected, call.header_effect) == ((), ("shoulder",), "vetoed")
    said = str(refusal(call, HALF))
    assert f"the header says {part}" in said
    assert "the router found shoulder with probability 0.900 (from 0.500)" in said
    assert examiners(call, HALF) == ()


def test_a_veto_stands_also_where_several_regions_fired_and_one_specialist_knows_all():
    call = heard({"hand": 0.9, "elbow": 0.8}, "ANKLE")
    assert examiners(call, ["all"]) == ()
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
        ({"hand": 0.4}, "ELBOW", "nothing", ()),  # another threshold than that of the hand
        ({"hand": 0.9}, "SHOULDER", "nothing", ("hand",)),  # the flag says it
        ({"elbow": 0.4}, "FOREARM", "nothing", ()),  # a neighbour opens nothing
        ({"shoulder": 0.4}, "CLAVICLE", "nothing", ()),
        ({"hand": 0.4}, "HAND FOOT", "nothing", ()),  # contradicts itself
        ({"hand": 0.9}, "HAND FOOT", "agreed", ("hand",)),
        ({"hand": 0.4, "elbow": 0.4}, "HAND ELBOW", "nothing", ()),
        ({"hand": 0.4}, "EXTREMITY", "nothing", ()),
        ({"hand": 0.4}, None, "nothing", ()),
        ({"hand": 0.9}, None, "nothing", ("hand",)),
    ],
)
def test_what_the_header_does(probabilities, part, effect, fired):
    call = heard(probabilities, part)
    assert (call.header_effect, call.fired) == (effect, fired)


def test_a_view_counts_where_it_is_said_of_one_part_alone():
    assert heard({"hand": 0.4}, view="SCAPHOID").header_effect == "helped"
    assert heard({"hand": 0.9}, view="MORTISE").header_effect == "vetoed"
    assert heard({"shoulder": 0.4}, "SHOULDER", view="AXIAL").header_effect == "helped"
    assert heard({"hand": 0.4}, "HAND", view="MORTISE").fired == ()


@pytest.mark.parametrize(("modality", "helps"), [("CR", 1), ("RG", 1), ("OT", 0), ("", 0)])
def test_only_a_projection_radiograph_is_helped_and_anything_is_vetoed(modality, helps):
    assert bool(heard({"hand": 0.4}, "HAND", modality=modality).fired) == helps
    assert heard({"hand": 0.9}, "KNEE", modality=modality).header_effect == "vetoed"


def test_the_margin_is_a_setting_and_zero_helps_nobody():
    assert heard({"hand": 0.2}, "HAND", margin=1.5).fired == ("hand",)
    assert heard({"hand": 0.4999}, "HAND", margin=0.0).fired == ()
    assert "expected 0.269 or more" in str(heard({"hand": 0.2}, "HAND").reason)


def test_a_header_that_is_ignored_does_nothing_and_the_call_says_so():
    for probabilities in ({"shoulder": 0.9}, {"hand": 0.4}):
        call = heard(probabilities, "CHEST", how="ignore")
        assert (call.header_effect, call.veto) == ("ignored", None)
        assert call.fired == route({**QUIET, **probabilities}, HALF).fired


WORDS = ("", "HAND", "ELBOW", "SHOULDER", "CHEST", "FOREARM", "CLAVICLE", "FOOT HAND", "QXYZ")


@given(
    st.fixed_dictionaries({region: st.floats(0, 1) for region in HALF}),
    st.fixed_dictionaries({region: st.floats(0, 1) for region in HALF}),
    st.sampled_from(WORDS), st.sampled_from(["DX", "OT", ""]), st.floats(0, 3),
)  # fmt: skip
def test_a_header_opens_at_most_the_region_that_it_names_and_agrees_with_the_flag(
    probabilities, thresholds, part, modality, margin
):
    alone = route(probabilities, thresholds)
    header = {"BodyPartExamined": part, "Modality": modality}
    call = combine(alone, header, "combine", margin)
    opened = set(call.fired) - set(alone.fired)
    assert opened <= {part.lower()}
    assert bool(opened) == (call.header_effect == "helped")
    assert not opened or modality == "DX"
    closed = set(alone.fired) - set(call.fired)
    assert closed in (set(), set(alone.fired))
    assert bool(closed) == (call.header_effect == "vetoed") == bool(call.veto)
    if opened:
        (region,) = opened
        p, t = probabilities[region], thresholds[region]
        assert p * (1 - t) * math.exp(margin) >= t * (1 - p) * (1 - 1e-9)
    flags = reconcile(header, call.detected if call.veto else call.fired)
    if call.header_effect in ("agreed", "helped"):
        assert flags == ()
    if call.header_effect == "vetoed":
        assert [flag.name for flag in flags] == ["body-part-differs"]


def test_only_a_picture_without_contrast_is_refused_for_a_flag():
    blank, other = Flag("blank", "nothing there"), Flag("too-small", "few pixels")
    assert unjudged([other, blank]) == "blank: nothing there"
    assert unjudged([other]) is None
    assert unjudged([]) is None
