"""Codes of the DICOM objects, compared with the tables of the standard in pydicom."""

from __future__ import annotations

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from pipeline.domain import REGIONS
from pipeline.outcome import Verdict
from pipeline.report.dicom import codes

CONTEXT_GROUPS = [
    (4031, codes.SITES.values()),
    (244, codes.SIDES.values()),
    (240, codes.PRESENCE.values()),
    (7181, [codes.NO_UNITS]),
    (7021, [codes.TITLE]),
    (100, [codes.PROCEDURE]),
    (7202, [codes.SOURCE]),
    (6333, [codes.TARGETS["abnormality"]]),
]


def listed(code: Code) -> list[tuple[str, str]]:
    """(keyword, meaning) of every entry of DICOM's tables with this code."""
    return [
        (keyword, entries[code.value][0])
        for keyword, entries in concepts.get(code.scheme_designator, {}).items()
        if code.value in entries
    ]


@pytest.mark.parametrize(
    ("group", "code"), [(group, code) for group, members in CONTEXT_GROUPS for code in members]
)
def test_codes_of_context_groups_have_their_meaning(group, code):
    members = cid_concepts[group][code.scheme_designator]
    assert code.meaning in [meaning for keyword, meaning in listed(code) if keyword in members]


@pytest.mark.parametrize("code", [codes.PROBABILITY, codes.OPERATING_POINT, codes.COMMENT])
def test_codes_of_annex_d_have_their_meaning(code):
    assert code.scheme_designator == "DCM"
    assert code.meaning in [meaning for _, meaning in listed(code)]


def test_every_region_verdict_and_target_has_a_code():
    assert set(codes.SITES) == set(REGIONS)
    assert set(codes.PRESENCE) == set(codes.VERDICTS) == set(Verdict)
    assert set(codes.TARGETS) == {"fracture", "abnormality"}


def test_private_codes_fit_their_element():
    private = [codes.VERDICT, codes.POSITIVE_FROM, codes.UNCERTAIN_FROM, *codes.VERDICTS.values()]
    for code in private:
        assert code.scheme_designator == codes.PRIVATE
        assert len(code.value) <= 16
        assert len(code.meaning) <= 64
