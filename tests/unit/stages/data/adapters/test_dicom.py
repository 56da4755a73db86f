"""DICOM files with a table of labels: headers, matching of labels to files, no identifiers."""

from __future__ import annotations

import logging

import factories
import layouts
import pytest
from layouts import cut, sheet

from pipeline.errors import IndexFaultsError, InputMissingError, UsageError
from stages.data.adapters.dicom import read_studies
from stages.data.index import write_index

HEADERS = [
    {"BodyPartExamined": "ELBOW", "AccessionNumber": "ACC-77"},
    {"BodyPartExamined": "WRIST", "StudyInstanceUID": "2.25.500"},
    {"BodyPartExamined": "LOWER LEG", "PatientID": "NOBODY-0002"},
    {"BodyPartExamined": "FOREARM", "PatientID": "NOBODY-0002"},
    {"PatientID": "", "StudyInstanceUID": "2.25.600"},
    {"PatientID": "", "StudyInstanceUID": ""},
]


@pytest.fixture
def archive(tmp_path):
    return layouts.studies(tmp_path, HEADERS)


def name_of(row):
    return row.path.name


def test_headers_give_patient_study_and_region(archive):
    rows = sorted(read_studies(archive), key=name_of)
    assert [row.regions for row in rows] == [
        *("elbow", "hand", "none", "elbow?;hand?", "unknown", "unknown")
    ]
    assert rows[0].group == rows[1].group != rows[2].group == rows[3].group
    assert rows[0].study != rows[1].study
    assert rows[4].group == rows[4].study  # without a patient, the study
    assert rows[5].group.endswith("ST000002/IM000005")  # without both, the file
    assert {row.label for row in rows} == {None}


def test_table_and_log_contain_no_identifier(archive, tmp_path, caplog):
    labels = sheet(
        tmp_path / "labels.csv",
        [["PatientID", "fractured"], [factories.PATIENT_ID, 1], ["NOBODY-0099", 0]],
    )
    with caplog.at_level(logging.DEBUG):
        rows = read_studies(archive, labels)
    write_index(rows, tmp_path / "index.csv")
    for text in ((tmp_path / "index.csv").read_text(), caplog.text):
        for word in (*factories.IDENTIFIERS, "NOBODY", "2.25", "ACC-77"):
            assert word not in text.replace("PatientID", "")
    assert {row.label for row in rows} == {1, None}
    assert "1 labels match no file (by PatientID)" in caplog.text
    assert "4 of 6 files have no label" in caplog.text


def test_faults_of_dicom_labels_contain_no_identifier(archive, tmp_path):
    labels = sheet(
        tmp_path / "labels.csv",
        [["PatientID", "fractured"], [factories.PATIENT_ID, 1], [factories.PATIENT_ID, 0],
         ["x", factories.PATIENT_NAME]],
    )  # fmt: skip
    with pytest.raises(IndexFaultsError) as caught:
        read_studies(archive, labels)
    assert len(caught.value.faults) == 2
    assert "line 3: contradicts line 2, the same PatientID" in caught.value.faults
    for word in factories.IDENTIFIERS:
        assert word not in str(caught.value).replace("PatientID", "")


@pytest.mark.parametrize(
    ("key", "value", "labelled"),
    [
        ("file", "ST000000/IM000001", {"IM000001"}),
        ("SOPInstanceUID", "2.25.9003", {"IM000003"}),
        ("StudyInstanceUID", "2.25.600", {"IM000004"}),
        ("AccessionNumber", "ACC-77", {"IM000000"}),
        ("PatientID", "NOBODY-0002", {"IM000002", "IM000003"}),
    ],
)
def test_labels_are_matched_by_each_identifier(archive, tmp_path, key, value, labelled):
    labels = sheet(tmp_path / "labels.csv", [[key, "label"], [value, "fractured"]])
    rows = read_studies(archive, labels)
    assert {row.path.name for row in rows if row.label == 1} == labelled
    assert {row.label_kind for row in rows if row.label == 1} == {"fracture"}


def test_most_specific_identifier_takes_precedence(archive, tmp_path):
    labels = sheet(
        tmp_path / "labels.csv",
        [["PatientID", "SOPInstanceUID", "label"], ["NOBODY-0002", "2.25.9000", "1"]],
    )
    rows = read_studies(archive, labels)
    assert {row.path.name for row in rows if row.label == 1} == {"IM000000"}


def test_dicom_columns_are_assigned_by_option(archive, tmp_path):
    labels = sheet(tmp_path / "labels.csv", [["mrn", "dx"], ["NOBODY-0002", "positive"]])
    with pytest.raises(UsageError, match="no known column identifies files, found mrn, dx"):
        read_studies(archive, labels)
    with pytest.raises(UsageError, match="no known column holds labels"):
        read_studies(archive, labels, {"PatientID": "mrn"})
    rows = read_studies(archive, labels, {"PatientID": "mrn", "label": "dx"}, "abnormality")
    assert {row.label_kind for row in rows if row.label} == {"abnormality"}


def test_missing_listed_file_is_a_fault(archive, tmp_path):
    labels = sheet(tmp_path / "labels.csv", [["path", "label"], ["ST000000/IM000099", "1"]])
    with pytest.raises(IndexFaultsError, match="line 2: picture ST000000/IM000099 not found"):
        read_studies(archive, labels)
    with pytest.raises(InputMissingError):
        read_studies(archive, tmp_path / "absent.csv")


def test_objects_other_than_radiographs_are_excluded(archive, tmp_path):
    ct = factories.dicom(factories.ramp(8, 8, 0, 99), Modality="CT", PatientID="NOBODY-0003")
    (archive / "CT1").write_bytes(factories.dicom_file(ct))
    cut(archive / "ST000000" / "IM000000")
    (archive / "DICOMDIR").write_bytes(b"x")
    sheet(archive / "labels.csv", [["file", "label"], ["CT1", "1"]])
    rows = {row.path.name: row for row in read_studies(archive, archive / "labels.csv")}
    assert set(rows) == {"CT1", *(f"IM00000{n}" for n in range(6))}
    assert (rows["CT1"].flags, rows["CT1"].split) == ("not_a_radiograph", "excluded")
    assert (rows["IM000000"].flags, rows["IM000000"].split) == ("truncated", "excluded")


def test_body_part_that_is_not_a_code_string_is_not_logged(tmp_path, caplog):
    root = layouts.studies(tmp_path, [{"BodyPartExamined": "ODD PART"}])
    file = root / "ST000000" / "IM000000"
    file.write_bytes(file.read_bytes().replace(b"ODD PART", b"Invented"))
    (row,) = read_studies(root)
    assert row.regions == "unknown"
    assert "'(unknown word)' 1 times" in caplog.text
    assert "Invented" not in caplog.text


def test_file_names_with_the_patient_identifier_cause_a_warning(archive, caplog):
    (archive / "ST000000").rename(archive / factories.PATIENT_ID)
    read_studies(archive)
    assert "2 file names contain the patient's identifier" in caplog.text
