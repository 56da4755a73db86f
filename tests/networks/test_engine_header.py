"""Effect of the DICOM header on the routing of the engine."""

from __future__ import annotations

from pathlib import Path

from bundles import for_all, paint
from engine_runs import judge, open_bundles
from factories import dicom, dicom_file

from pipeline.outcome import Status


def write_dicom(path: Path, regions: dict[str, float], **header: str) -> Path:
    """A painted DICOM file with this header; P(fracture) of hand and shoulder is high."""
    pixels = paint(regions, {"hand": 0.8, "shoulder": 0.8})
    path.write_bytes(dicom_file(dicom(pixels, bits=8, **header)))
    return path


def test_header_vetoes_another_region(weights, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", {"shoulder": 0.9}, BodyPartExamined="CHEST")
    (outcome,) = judge([path], weights)
    assert (outcome.status, outcome.findings) == (Status.UNSUPPORTED, ())
    assert "the header says CHEST" in str(outcome.error)
    assert "the router found shoulder with probability 1.000" in str(outcome.error)
    assert outcome.region is not None
    assert (outcome.region.fired, outcome.region.header_effect) == ((), "vetoed")
    assert [flag.name for flag in outcome.flags if flag.name == "body-part-differs"]
    assert set(outcome.bundle_digests) == {"trunk", "region"}
    (ignored,) = judge([path], weights, header="ignore")
    assert (ignored.status, ignored.region.header_effect) == (Status.OK, "ignored")
    assert "body-part-differs" in [flag.name for flag in ignored.flags]


def test_header_lowers_threshold_of_its_region(weights, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", {"hand": 0.48}, BodyPartExamined="HAND")
    (outcome,) = judge([path], weights)
    assert [finding.region for finding in outcome.findings] == ["hand"]
    assert "header-helped" in [flag.name for flag in outcome.flags]
    assert outcome.region is not None
    assert outcome.region.header_effect == "helped"
    for changes in ({"header": "ignore"}, {"header_margin": 0.2}):
        assert judge([path], weights, **changes)[0].status is Status.UNSUPPORTED
    other = write_dicom(tmp_path / "b.dcm", {"hand": 0.4}, BodyPartExamined="HAND")
    assert judge([other], weights)[0].status is Status.UNSUPPORTED


def test_header_is_ignored_without_region_stage(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", {}, BodyPartExamined="KNEE")
    (outcome,) = judge([path], open_bundles(tmp_path / "w", for_all()))
    assert (outcome.status, outcome.region) == (Status.OK, None)
