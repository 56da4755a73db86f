"""Identity of DICOM objects: patient and study, UIDs, and pictures without objects."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from dicom_results import DIGESTS, KINDS, PIXELS, judged, objects, original
from factories import IDENTIFIERS, PATIENT_ID, PATIENT_NAME, ramp, raster
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.config import RunConfig
from pipeline.domain import Flag, ImageRef
from pipeline.outcome import OperatingPoint, Outcome, Status
from pipeline.report.dicom.objects import DicomWriter

# ------------------------------------------------------------------------- patient and study

LONG_STUDY = {
    "StudyDate": "20200102",
    "StudyTime": "030405",
    "StudyID": "S-77",
    "AccessionNumber": "ACC-55",
    "ReferringPhysicianName": "Referrer^Rita",
    "StudyDescription": "Hand after fall, Invented",
    "PatientComments": "Invented comment",
    "PatientAge": "119Y",
    "PatientSex": "F",
    "InstitutionName": "Somewhere Clinic",
    "OperatorsName": "Operator^Otto",
    "StationName": "STATION9",
}
STUDY_WORDS = ("S-77", "ACC-55", "Referrer", "after fall", "119Y", "20200102", "030405")
NEVER = ("Somewhere", "Otto", "STATION9")
"""Values of the modality that made the original, not of the patient or study."""


def test_objects_contain_no_identifiers_by_default(tmp_path):
    objects(tmp_path, judged(original(tmp_path, **LONG_STUDY)))
    files = list((tmp_path / "objects").iterdir())
    assert len(files) == 3
    for file in files:
        content = file.read_bytes()
        for word in (*IDENTIFIERS, *STUDY_WORDS, *NEVER):
            assert word.encode() not in content, (file.name, word)
        ds = dcmread(file)
        assert ds.StudyInstanceUID == "2.25.1002"
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
            assert keyword in ds
            assert not ds[keyword].value


def test_keep_copies_identifiers_of_patient_and_study(tmp_path):
    path = original(tmp_path, **LONG_STUDY)
    objects(tmp_path, judged(path), identifiers="keep")
    source = dcmread(path)
    files = list((tmp_path / "objects").iterdir())
    assert len(files) == 3
    for file in files:
        ds = dcmread(file)
        for keyword in (*LONG_STUDY, "PatientName", "PatientID", "PatientBirthDate"):
            if keyword in ("InstitutionName", "OperatorsName", "StationName"):
                assert keyword not in ds
            else:
                assert ds[keyword].value == source[keyword].value, keyword
        assert not any(word.encode() in file.read_bytes() for word in NEVER)


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        ("ISO_IR 100", "Müller^Jérôme"),
        ("ISO_IR 192", "Ξένος^Ωμέγα"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_names_keep_their_character_set(tmp_path, characters, name, syntax):
    path = original(tmp_path, syntax=syntax, SpecificCharacterSet=characters, PatientName=name)
    made = objects(tmp_path, judged(path), identifiers="keep")
    assert len(made) == 3
    for ds in made.values():
        assert ds.SpecificCharacterSet == characters
        assert str(ds.PatientName) == name


def test_undeclared_characters_are_copied_as_bytes(tmp_path):
    path = original(tmp_path, PatientName="Muller^X")
    path.write_bytes(path.read_bytes().replace(b"Muller^X", b"M\xfcller^X"))
    objects(tmp_path, judged(path), identifiers="keep")
    for file in (tmp_path / "objects").iterdir():
        assert b"M\xfcller^X" in file.read_bytes()


@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_malformed_values_are_tolerated_and_not_logged(tmp_path, caplog, capsys, identifiers):
    bad = {
        b"PatientBirthDate": (b"19010203", b"1901020X"),
        b"PatientName": (b"Invented^Person", b"Inven^t^e^d^Per"),
    }
    path = original(tmp_path, PatientSex="F")
    content = path.read_bytes()
    for before, after in bad.values():
        content = content.replace(before, after)
    path.write_bytes(content.replace(b"CS\x02\0F ", b"CS\x02\0XY"))
    caplog.set_level(logging.DEBUG, "pipeline")
    objects(tmp_path, judged(path), identifiers=identifiers)
    assert len(list((tmp_path / "objects").iterdir())) == 3
    output = "".join(r.getMessage() for r in caplog.records if r.name.startswith("pipeline"))
    output += "".join(capsys.readouterr())
    assert "1901" not in output
    assert "Inven" not in output


# ---------------------------------------------------------------------------------- UIDs and series


def test_each_kind_has_a_series_in_the_study(tmp_path):
    first = original(tmp_path, name="a.dcm")
    second = original(tmp_path, PIXELS // 2, name="b.dcm", SOPInstanceUID="2.25.1004")
    other = original(tmp_path, name="c.dcm", StudyInstanceUID="2.25.2002")
    writer = DicomWriter(tmp_path / "objects", RunConfig(), DIGESTS)
    for path in (first, second, other):
        writer.write(judged(path)[0])
    made = [dcmread(path) for path in (tmp_path / "objects").iterdir()]
    assert len(made) == len({ds.SOPInstanceUID for ds in made}) == 9
    series = {(ds.StudyInstanceUID, ds.SeriesNumber): ds.SeriesInstanceUID for ds in made}
    assert set(series) == {(s, n) for s in ("2.25.1002", "2.25.2002") for n in (9001, 9002, 9003)}
    assert len(set(series.values())) == 6
    for ds in made:
        assert series[ds.StudyInstanceUID, ds.SeriesNumber] == ds.SeriesInstanceUID
    numbers = sorted(ds.InstanceNumber for ds in made if ds.StudyInstanceUID == "2.25.1002")
    assert numbers == [1, 1, 1, 2, 2, 2]
    assert writer.summary == "DICOM objects: report 3, overlay 3, marks 3"


def uids(folder, outcomes, **settings):
    made = objects(folder, outcomes, **settings)
    return {kind: (ds.SeriesInstanceUID, ds.SOPInstanceUID) for kind, ds in made.items()}


def test_uids_are_equal_only_for_the_same_run(tmp_path):
    path = original(tmp_path)
    first = uids(tmp_path, judged(path))
    assert all(
        uid.startswith("2.25.") and len(uid) <= 64 for pair in first.values() for uid in pair
    )
    assert uids(tmp_path, judged(path)) == first
    others = [
        uids(tmp_path, judged(path, {"hand": 0.91})),
        uids(tmp_path, judged(path, point=OperatingPoint("sensitive", 0.3, 0.3))),
        uids(tmp_path, judged(path, digests=DIGESTS | {"trunk": "4" * 64})),
        uids(tmp_path, judged(path, flags=[Flag("blank", "no contrast")])),
        uids(tmp_path, judged(path), identifiers="keep"),
        uids(tmp_path, judged(path), contour=0.3),
        uids(tmp_path, judged(path), operating_point="balanced"),
    ]
    instances = [pairs[kind][1] for pairs in (first, *others) for kind in KINDS]
    assert len(set(instances)) == len(instances)


def test_instances_of_different_runs_are_in_different_series(tmp_path):
    """Weights that include another bundle make another run, even if that bundle was not used."""
    path = original(tmp_path)
    first = uids(tmp_path, judged(path))
    writer = DicomWriter(tmp_path / "more", RunConfig(), DIGESTS | {"fracture-elbow": "5" * 64})
    writer.write(judged(path)[0])
    second = [dcmread(file) for file in (tmp_path / "more").iterdir()]
    assert not {series for series, _ in first.values()} & {ds.SeriesInstanceUID for ds in second}
    assert not {uid for _, uid in first.values()} & {ds.SOPInstanceUID for ds in second}


def test_time_zone_is_that_of_the_original(tmp_path):
    made = objects(tmp_path, judged(original(tmp_path, TimezoneOffsetFromUTC="+0930")))
    for ds in made.values():
        assert ds.TimezoneOffsetFromUTC == "+0930"
        stem = "PresentationCreation" if ds.Modality == "PR" else "Content"
        text = f"{ds[f'{stem}Date'].value}{ds[f'{stem}Time'].value}+0930"
        created = datetime.strptime(text, "%Y%m%d%H%M%S%z")
        assert abs((datetime.now().astimezone() - created).total_seconds()) < 60


@pytest.mark.parametrize("zone", ["", "nonsense", "+9900", None])
def test_invalid_time_zone_is_replaced_by_the_local_one(tmp_path, zone):
    made = objects(tmp_path, judged(original(tmp_path, TimezoneOffsetFromUTC=zone)))
    assert made["report"].TimezoneOffsetFromUTC == datetime.now().astimezone().strftime("%z")


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_picture_without_uids_gets_no_object(tmp_path, caplog, keyword, identifiers):
    path = original(tmp_path)
    ds = dcmread(path)
    delattr(ds, keyword)
    ds.save_as(path)
    assert objects(tmp_path, judged(path), identifiers=identifiers) == {}
    assert f"x.dcm: the header has no {keyword}; no DICOM objects were written" in caplog.text
    assert not any(word in caplog.text for word in IDENTIFIERS)


def test_invalid_uid_gets_no_object_and_is_not_logged(tmp_path, caplog):
    path = original(tmp_path, StudyInstanceUID=None)
    ds = dcmread(path)
    ds.add_new("StudyInstanceUID", "LO", PATIENT_NAME)
    ds.save_as(path)
    assert objects(tmp_path, judged(path)) == {}
    told = [r.getMessage() for r in caplog.records if r.name.startswith("pipeline")]
    assert told[-1].startswith("x.dcm: the StudyInstanceUID is not a valid UID; no DICOM objects")


def test_changed_or_missing_file_gets_no_object(tmp_path, caplog):
    path = original(tmp_path)
    outcomes = judged(path)
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert objects(tmp_path, outcomes) == {}
    assert "x.dcm: the file was changed after it was judged" in caplog.text
    path.unlink()
    assert objects(tmp_path, outcomes) == {}
    assert "x.dcm: cannot read the file" in caplog.text


def test_content_in_memory_gets_no_object(tmp_path, caplog):
    """Its name must not be used as a path: a file of this name may be another one."""
    (outcome,) = judged(original(tmp_path))
    unnamed = replace(outcome, image=replace(outcome.image, path=None))
    assert objects(tmp_path, [unnamed]) == {}
    assert "x.dcm: found content in memory, expected a file to read again" in caplog.text


def test_error_in_one_header_affects_only_its_picture(tmp_path, caplog):
    bad = original(tmp_path, SOPClassUID="2.25.99", name="bad.dcm")  # not a class of the standard
    good = original(tmp_path, name="good.dcm", SOPInstanceUID="2.25.1005")
    writer = DicomWriter(tmp_path / "objects", RunConfig(identifiers="keep"), DIGESTS)
    for path in (bad, good):
        writer.write(judged(path)[0])
    assert len(list((tmp_path / "objects").iterdir())) == 3
    assert "bad.dcm: the header is malformed (KeyError)" in caplog.text
    assert PATIENT_ID not in caplog.text
    assert writer.summary.endswith("; pictures without: not possible (see the warnings) 1")


def test_pictures_without_objects_are_counted(tmp_path):
    picture = tmp_path / "x.png"
    picture.write_bytes(raster(ramp(40, 40, 0, 255, np.uint8), "PNG"))
    writer = DicomWriter(tmp_path / "objects", RunConfig(), DIGESTS)
    writer.write(judged(picture)[0])
    knee = ImageRef(original(tmp_path), sha256="0" * 64)
    header = {"Modality": "DX"}
    writer.write(Outcome(knee, Status.UNSUPPORTED, error="no region", header=header))
    writer.write(Outcome(knee, Status.FAILED, error="broken"))
    assert list((tmp_path / "objects").iterdir()) == []
    assert writer.summary == (
        "DICOM objects: report 0, overlay 0, marks 0; "
        "pictures without: not a DICOM picture 2, no verdict 1"
    )


def test_originals_are_not_changed(tmp_path):
    path = original(tmp_path)
    before = path.read_bytes()
    objects(tmp_path, judged(path), identifiers="keep")
    assert path.read_bytes() == before
