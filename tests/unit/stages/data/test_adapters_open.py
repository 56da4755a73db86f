"""Layouts that anybody may write: class folders, tables, DICOM files with labels."""

from __future__ import annotations

import logging
from dataclasses import replace

import factories
import layouts
import pytest
from layouts import cut, draw, sheet
from tables import sample

from pipeline.domain import REGIONS
from pipeline.errors import IndexFaultsError, InputMissingError, UsageError
from stages.data.adapters import table as table_layout
from stages.data.adapters.columns import parse_columns
from stages.data.adapters.dicom import read_studies
from stages.data.adapters.folders import is_folders, read_folders
from stages.data.adapters.label_words import kind_of, label_of, regions_of
from stages.data.adapters.table import read_listed
from stages.data.index import read_index, write_index


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    """Records reach ``caplog`` though a command of another test has configured logging."""
    monkeypatch.setattr(logging.getLogger("stages"), "propagate", True)


def tree(home, *places):
    """A folder of small pictures, each another one."""
    for seed, place in enumerate(places):
        draw(home / "set" / place, seed)
    return home / "set"


def by_place(rows, root):
    return {row.path.relative_to(root).as_posix(): row for row in rows}


# ---------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("words", "value", "kind"),
    [
        (("fractured", "Fracture", "FRACTURES"), 1, "fracture"),
        (("not fractured", "Not_Fractured", "non-fractured", "Non_fractured"), 0, "fracture"),
        (("unfractured", "no_fracture", "notfractured", "Non Fracture"), 0, "fracture"),
        (("abnormal", "Abnormality"), 1, "abnormality"),
        (("normal", " Normal "), 0, "abnormality"),
        (("positive", "1", "1.0", "True", "YES"), 1, "unknown"),
        (("negative", "0", "0.0", "false", "no", "healthy"), 0, "unknown"),
    ],
)
def test_label_words(words, value, kind):
    assert {(label_of(word).value, label_of(word).kind) for word in words} == {(value, kind)}


def test_a_word_that_says_its_kind_keeps_it():
    fractured, abnormal, normal = map(label_of, ("fractured", "abnormal", "normal"))
    assert kind_of(fractured, [[abnormal]], stated="abnormality") == "fracture"
    assert kind_of(fractured, [[abnormal]]) == "fracture"
    assert kind_of(normal, [[fractured]]) == "fracture"
    assert kind_of(normal, [[fractured, abnormal], [fractured]]) == "fracture"
    assert kind_of(normal, [[fractured]], stated="abnormality") == "abnormality"


@pytest.mark.parametrize("word", ["", "-1", "2", "maybe", "fracture type", "10"])
def test_other_words_are_no_labels(word):
    assert label_of(word) is None


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("ELBOW", "elbow"),
        ("XR_ELBOW", "elbow"),
        ("Left wrist", "hand"),
        ("finger", "hand"),
        ("LOWER LEG", "none"),
        ("knee", "none"),
        ("elbow + hand", "elbow;hand"),
        ("hand/knee", "hand"),
        ("elbow;hand?;shoulder", "elbow;hand?;shoulder"),
        ("none", "none"),
        ("", "unknown"),
        ("unknown", "unknown"),
        ("forearm", "elbow?;hand?"),
        ("HUMERUS", "elbow?;shoulder?"),
        ("CLAVICLE", "shoulder?"),
        ("forearm, wrist", "elbow?;hand"),
        ("hand; elbow", "elbow;hand"),
        ("elbow?;hand?;shoulder?", "unknown"),
        ("hand, gizmo", None),
        ("left", None),
    ],
)
def test_region_words(text, regions):
    assert regions_of(text) == regions


# ---------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("folders", "regions"),
    [("arm/elbow", "elbow"), ("arm", "elbow?;shoulder?"), ("elbow/hand", "unknown")],
)
def test_a_folder_that_leaves_nothing_open_counts_first(tmp_path, folders, regions):
    root = tree(tmp_path, f"{folders}/fractured/1.png", f"{folders}/not fractured/2.png")
    assert {row.regions for row in read_folders(root)} == {regions}


def test_the_multi_region_set(tmp_path):
    root = layouts.multi_region(tmp_path)
    rows = by_place(read_folders(root), root)
    turned = rows["train/not fractured/3-rotated1-rotated2.jpg"]
    plain = rows["train/not fractured/3.jpg"]
    assert (plain.label, plain.label_kind, plain.regions) == (0, "fracture", "unknown")
    assert turned.group == plain.group
    assert turned.group != rows["train/fractured/3.jpg"].group
    assert rows["test/fractured/0.jpg"].split == "test"
    assert rows["val/fractured/1.jpg"].split == "val"
    assert (
        rows["val/fractured/1.jpg"].group == rows["train/fractured/1-rotated1-rotated2.jpg"].group
    )
    assert {row.origin for row in rows.values()} == {root.name}
    assert len(rows) == 2 * (8 * 2 + 1)  # every file but Thumbs.db


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("Fracture", "No_Fracture"), "fracture"),
        (("fractured", "normal"), "fracture"),
        (("fractured", "healthy"), "fracture"),
        (("abnormal", "normal"), "abnormality"),
        (("positive", "negative"), "unknown"),
        (("1", "0"), "unknown"),
    ],
)
def test_the_meaning_of_class_folders(tmp_path, words, kind):
    root = tree(tmp_path, f"a/{words[0]}/1.png", f"a/{words[1]}/2.png")
    assert is_folders(root)
    rows = sorted(read_folders(root), key=lambda row: row.path.name)
    assert [(row.label, row.label_kind) for row in rows] == [(1, kind), (0, kind)]


def test_a_word_takes_its_kind_from_the_nearest_sibling(tmp_path):
    root = tree(
        tmp_path,
        *("a/fractured/1.png", "a/normal/2.png", "b/abnormal/3.png", "b/normal/4.png"),
        "c/normal/5.png",
    )
    rows = by_place(read_folders(root), root)
    assert rows["a/normal/2.png"].label_kind == "fracture"
    assert rows["b/normal/4.png"].label_kind == "abnormality"
    assert rows["c/normal/5.png"].label_kind == "abnormality"  # normal, as opposed to abnormal


def test_the_user_says_what_words_mean_that_do_not(tmp_path):
    root = tree(tmp_path, "positive/1.png", "negative/2.png")
    assert {row.label_kind for row in read_folders(root, "fracture")} == {"fracture"}
    draw(root / "fractured/3.png", 3)
    with pytest.raises(IndexFaultsError, match="words mean fracture, but --label-kind is abnormal"):
        read_folders(root, "abnormality")


def test_folders_between_give_region_patient_and_origin(tmp_path):
    root = tree(
        tmp_path,
        *("Training/wrist/clinic/not fractured/1.png", "Testing/shoulder/fractured/2.png"),
        *("valid/XR_ELBOW/fractured/patient7/3.png", "valid/XR_HAND/fractured/Patient 8/3.png"),
        *("validation/knee/fractured/4.png", "validation/set 2/fractured/5.png"),
    )
    rows = {row.path.name + row.regions: row for row in read_folders(root)}
    assert set(rows) == {
        *("1.pnghand", "2.pngshoulder", "3.pngelbow", "3.pnghand", "4.pngnone", "5.pngunknown")
    }
    first = rows["1.pnghand"]
    assert (first.split, first.label, first.origin) == ("train", 0, "set/wrist/clinic")
    assert rows["2.pngshoulder"].split == "test"
    assert rows["3.pngelbow"].group == "set/patient7"
    assert rows["3.pngelbow"].origin == "set/XR_ELBOW"
    assert rows["5.pngunknown"].split == "val"


def test_a_picture_in_no_class_folder_has_no_label(tmp_path, caplog):
    root = tree(tmp_path, "train/fractured/1.png", "train/normal/2.png", "train/3.png", "4.png")
    rows = by_place(read_folders(root), root)
    assert [rows[name].label for name in ("train/3.png", "4.png")] == [None, None]
    assert rows["4.png"].label_kind == ""
    assert "2 pictures are outside the class folders: 4.png, 3.png" in caplog.text
    assert (
        "1 pictures are outside the split folders and are used for training: 4.png" in caplog.text
    )
    assert rows["4.png"].split == "train"


def test_digits_are_classes_only_by_themselves(tmp_path):
    root = tree(tmp_path, *(f"grade/{n}/x.png" for n in range(3)), "two/0/y.png", "two/1/z.png")
    rows = by_place(read_folders(root), root)
    assert [rows[f"grade/{n}/x.png"].label for n in range(3)] == [None] * 3
    assert [rows["two/0/y.png"].label, rows["two/1/z.png"].label] == [0, 1]
    root = tree(tmp_path / "b", "normal/1/x.png", "fractured/0/x.png")  # 0 and 1 are no classes
    rows = by_place(read_folders(root), root)
    assert [rows["normal/1/x.png"].label, rows["fractured/0/x.png"].label] == [0, 1]


def test_class_folders_that_contradict_are_a_fault(tmp_path):
    root = tree(tmp_path, "positive/not fractured/1.png", "fractured/2.png")
    with pytest.raises(IndexFaultsError) as caught:
        read_folders(root)
    assert len(caught.value.faults) == 1
    assert "'positive' and 'not fractured' contradict" in caught.value.faults[0]


@pytest.mark.parametrize(
    "name",
    [
        *("7-rotated1-rotated2-rotated3", "7_flip", "7-hflip", "7_rot90", "7_mirrored", "7_aug_3"),
        *(
            "7 - Copy",
            "7 - Copy (2)",
            "7_copy",
            "7.rf.0a1b2c3d",
            "7_flip-rotated1",
            "7 (2)",
            "7(1)",
            "7-rotated2 (1)",
            "7-rotated1-rotated3(2)",
        ),
    ],
)
def test_names_of_augmented_copies_lead_to_one_group(tmp_path, name):
    root = tree(tmp_path, f"train/fractured/{name}.png", "test/fractured/7.png")
    assert len({row.group for row in read_folders(root)}) == 1


@pytest.mark.parametrize("name", ["71", "7_2", "a7", "7-rotated1b", "copy", "flip"])
def test_other_names_do_not(tmp_path, name):
    root = tree(tmp_path, f"train/fractured/{name}.png", "test/fractured/7.png")
    assert len({row.group for row in read_folders(root)}) == 2


def test_a_set_numbered_in_brackets_is_not_one_group(tmp_path):
    root = tree(tmp_path, *(f"fractured/image ({n}).png" for n in range(4)))
    assert len({row.group for row in read_folders(root)}) == 4


def test_broken_files_keep_their_row_and_read_mes_get_none(tmp_path):
    root = tree(tmp_path, "fractured/1.png", "normal/2.png")
    cut(root / "fractured/1.png")
    (root / "normal/3.jpg").write_bytes(b"")
    (root / "README.txt").write_text("x")
    rows = by_place(read_folders(root), root)
    assert {name: (row.flags, row.split) for name, row in rows.items()} == {
        "fractured/1.png": ("truncated", "excluded"),
        "normal/2.png": ("", "train"),
        "normal/3.jpg": ("unreadable", "excluded"),
    }


# ---------------------------------------------------------------------------------- tables


def table(home, head, *rows):
    """A table in ``home``, and pictures a.png to d.png beside it."""
    for seed, name in enumerate("abcd"):
        draw(home / f"{name}.png", seed)
    return sheet(home / "my.csv", [head, *rows])


def test_columns_are_taken_as_told(tmp_path, caplog):
    source = table(
        tmp_path,
        ["Image", "Finding", "PatientID", "Exam", "BodyPart", "Set", "notes", "Marks"],
        ["a.png", "yes", "p1", "e1", "wrist", "Training", "hardware; cast", "0 0 0.5 1"],
        ["b.png", "no", "p1", "e2", "KNEE", "validation", "", ""],
        ["c.png", "", "p2", "e3", "", "test", "", ""],
    )
    columns = parse_columns(
        ("path=Image,label=Finding, group=PatientID", "study=Exam,regions=BodyPart,split=Set",
         "flags=notes,boxes=Marks")
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "stages"):
        rows = read_listed(source, columns, "fracture")
    first, second, third = rows
    assert (first.label, first.label_kind, first.regions) == (1, "fracture", "hand")
    assert (first.group, first.study, first.split) == ("p1", "e1", "train")
    assert (first.flags, first.boxes) == ("hardware; cast", ((0.0, 0.0, 0.5, 1.0),))
    assert (second.label, second.regions, second.split) == (0, "none", "val")
    assert (third.label, third.label_kind, third.regions) == (None, "", "unknown")
    assert "label=Finding" in caplog.text
    assert "no group" not in caplog.text


def test_plain_names_are_known_and_told(tmp_path, caplog):
    source = table(tmp_path, ["FileName", "Fractured", "Patient ID"], ["a.png", "1", "p"])
    with caplog.at_level(logging.INFO, "stages"):
        (row,) = read_listed(source)
    assert (row.label, row.group) == (1, "p")
    assert row.label_kind == "fracture"  # the column says so
    assert "path=FileName (by name), label=Fractured (by name)" in caplog.text
    assert "group=Patient ID (by name)" in caplog.text


@pytest.mark.parametrize(
    ("head", "words", "stated", "kinds"),
    [
        ("label", ("1", "0"), "", {"unknown"}),
        ("label", ("1", "0"), "abnormality", {"abnormality"}),
        ("label", ("fractured", "normal"), "", {"fracture"}),
        ("class", ("abnormal", "normal"), "", {"abnormality"}),
        ("fracture", ("TRUE", "False"), "", {"fracture"}),
        ("abnormality", ("yes", "no"), "", {"abnormality"}),
        ("fracture", ("yes", "no"), "abnormality", {"abnormality"}),
    ],
)
def test_what_the_labels_of_a_table_mean(tmp_path, head, words, stated, kinds):
    source = table(tmp_path, ["path", head], ["a.png", words[0]], ["b.png", words[1]])
    rows = read_listed(source, label_kind=stated)
    assert [row.label for row in rows] == [1, 0]
    assert {row.label_kind for row in rows} == kinds


def test_every_fault_of_a_table_is_listed_with_its_line(tmp_path):
    source = table(
        tmp_path,
        ["path", "label", "split", "boxes"],
        ["a.png", "maybe", "train", ""],
        ["lost.png", "1", "train", ""],
        ["b.png", "-1", "later", ""],
        ["c.png", "1", "", "0 0 2 2"],
        ["", "1", "", ""],
    )
    with pytest.raises(IndexFaultsError) as caught:
        read_listed(source)
    wanted = (
        "line 2: label is 'maybe', expected", f"line 3: picture {tmp_path / 'lost.png'} not found",
        "line 4: label is '-1'", "line 4: split is 'later'", "line 5: boxes are '0 0 2 2'",
        "line 6: path is empty",
    )  # fmt: skip
    for words in wanted:
        assert any(words in fault for fault in caught.value.faults), words


def test_words_that_name_no_region_are_counted(tmp_path, caplog):
    rows = [["a.png", "1", "gizmo"], ["b.png", "1", "gizmo"], ["c.png", "1", "thing"]]
    source = table(tmp_path, ["path", "label", "region"], *rows)
    assert {row.regions for row in read_listed(source)} == {"unknown"}
    assert "'gizmo' 2 times, 'thing' 1 times" in caplog.text


def test_a_table_without_groups_warns_and_each_picture_is_its_own(tmp_path, caplog):
    source = table(tmp_path, ["path", "label"], ["a.png", "1"], ["b.png", "0"])
    assert [row.group for row in read_listed(source)] == ["a.png", "b.png"]
    assert "2 pictures have no group" in caplog.text
    assert "may not be disjoint by patient" in caplog.text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"patth": "path"}, "'patth' is not a field"),
        ({"label": "Lable"}, "no column 'Lable' for label, found path, label"),
    ],
)
def test_a_column_that_is_not_there_is_refused(tmp_path, columns, words):
    source = table(tmp_path, ["path", "label"], ["a.png", "1"])
    with pytest.raises(UsageError, match=words) as caught:
        read_listed(source, columns)
    assert "did you mean" in caught.value.hint


def test_a_table_without_paths_is_refused(tmp_path):
    source = table(tmp_path, ["scan", "label"], ["a.png", "1"])
    with pytest.raises(UsageError, match="no known column holds paths, found scan, label"):
        read_listed(source)
    assert [row.path.name for row in read_listed(source, {"path": "scan"})] == ["a.png"]


@pytest.mark.parametrize("words", ["path", "path=", "=x", "path=a,path=b"])
def test_columns_are_of_one_form(words):
    with pytest.raises(UsageError, match="--columns"):
        parse_columns((words,))


def test_a_listed_file_keeps_its_row_whatever_it_is(tmp_path):
    source = table(tmp_path, ["path", "label"], ["a.png", "1"], ["notes.txt", "0"])
    (tmp_path / "notes.txt").write_text("x")
    cut(tmp_path / "a.png")
    found = [(row.flags, row.split) for row in read_listed(source)]
    assert found == [("truncated", "excluded"), ("unreadable", "excluded")]


def test_our_own_index_is_read_with_all_its_columns(tmp_path):
    rows = []
    for seed, (regions, label) in enumerate([("elbow;hand?", 1), ("none", None), ("unknown", 0)]):
        path = draw(tmp_path / "pictures" / f"{seed}.png", seed)
        rows.append(
            sample(
                f"g{seed}", path=path, regions=regions, label=label,
                label_kind="" if label is None else "abnormality", study=f"s{seed}",
                split=("train", "excluded", "test")[seed], origin=f"o{seed}", flags="hardware;x",
                boxes=((0.1, 0.2, 0.3, 0.4),), sha256="",
            )
        )  # fmt: skip
    write_index(rows, tmp_path / "index.csv")
    again = read_listed(tmp_path / "index.csv")
    assert [replace(row, sha256="") for row in again] == rows
    write_index(again, tmp_path / "index.csv")
    assert list(read_index(tmp_path / "index.csv").samples) == again
    draw(tmp_path / "pictures" / "1.png", 99)
    with pytest.raises(IndexFaultsError, match=r"line 3: .*1\.png has changed"):
        read_listed(tmp_path / "index.csv")


def test_an_index_that_calls_a_kind_wrongly_is_refused(tmp_path):
    source = table(tmp_path, ["path", "label", "label_kind"], ["a.png", "1", "broken"])
    with pytest.raises(IndexFaultsError, match="line 2: label_kind is 'broken'"):
        read_listed(source)


def test_an_index_without_known_regions_knew_the_first_three_and_any_other_table_all(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(table_layout, "REGIONS", (*REGIONS, "knee"))
    plain = table(tmp_path, ["path", "label", "regions"], ["a.png", "1", "hand"])
    (row,) = read_listed(plain)
    assert row.known_regions == "elbow;hand;shoulder;knee"
    write_index([replace(row, known_regions="elbow;hand;shoulder")], tmp_path / "index.csv")
    (row,) = read_listed(tmp_path / "index.csv")
    assert row.known_regions == "elbow;hand;shoulder"
    write_index([replace(row, known_regions="elbow;hand;shoulder;foot")], tmp_path / "index.csv")
    (row,) = read_listed(tmp_path / "index.csv")
    assert row.known_regions == "elbow;hand;shoulder;foot"


# ---------------------------------------------------------------------------------- DICOM

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


def test_no_identifier_reaches_the_table_or_the_log(archive, tmp_path, caplog):
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


def test_faults_of_dicom_labels_name_no_identifier(archive, tmp_path):
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
def test_labels_find_their_files_by_each_identifier(archive, tmp_path, key, value, labelled):
    labels = sheet(tmp_path / "labels.csv", [[key, "label"], [value, "fractured"]])
    rows = read_studies(archive, labels)
    assert {row.path.name for row in rows if row.label == 1} == labelled
    assert {row.label_kind for row in rows if row.label == 1} == {"fracture"}


def test_the_most_particular_identifier_counts(archive, tmp_path):
    labels = sheet(
        tmp_path / "labels.csv",
        [["PatientID", "SOPInstanceUID", "label"], ["NOBODY-0002", "2.25.9000", "1"]],
    )
    rows = read_studies(archive, labels)
    assert {row.path.name for row in rows if row.label == 1} == {"IM000000"}


def test_dicom_columns_may_be_told(archive, tmp_path):
    labels = sheet(tmp_path / "labels.csv", [["mrn", "dx"], ["NOBODY-0002", "positive"]])
    with pytest.raises(UsageError, match="no known column identifies files, found mrn, dx"):
        read_studies(archive, labels)
    with pytest.raises(UsageError, match="no known column holds labels"):
        read_studies(archive, labels, {"PatientID": "mrn"})
    rows = read_studies(archive, labels, {"PatientID": "mrn", "label": "dx"}, "abnormality")
    assert {row.label_kind for row in rows if row.label} == {"abnormality"}


def test_a_listed_dicom_file_that_is_missing_is_a_fault(archive, tmp_path):
    labels = sheet(tmp_path / "labels.csv", [["path", "label"], ["ST000000/IM000099", "1"]])
    with pytest.raises(IndexFaultsError, match="line 2: picture ST000000/IM000099 not found"):
        read_studies(archive, labels)
    with pytest.raises(InputMissingError):
        read_studies(archive, tmp_path / "absent.csv")


def test_objects_that_are_no_radiographs_are_kept_out(archive, tmp_path):
    ct = factories.dicom(factories.ramp(8, 8, 0, 99), Modality="CT", PatientID="NOBODY-0003")
    (archive / "CT1").write_bytes(factories.dicom_file(ct))
    cut(archive / "ST000000" / "IM000000")
    (archive / "DICOMDIR").write_bytes(b"x")
    sheet(archive / "labels.csv", [["file", "label"], ["CT1", "1"]])
    rows = {row.path.name: row for row in read_studies(archive, archive / "labels.csv")}
    assert set(rows) == {"CT1", *(f"IM00000{n}" for n in range(6))}
    assert (rows["CT1"].flags, rows["CT1"].split) == ("not_a_radiograph", "excluded")
    assert (rows["IM000000"].flags, rows["IM000000"].split) == ("truncated", "excluded")


def test_a_body_part_that_is_no_code_is_not_repeated(tmp_path, caplog):
    root = layouts.studies(tmp_path, [{"BodyPartExamined": "ODD PART"}])
    file = root / "ST000000" / "IM000000"
    file.write_bytes(file.read_bytes().replace(b"ODD PART", b"Invented"))
    (row,) = read_studies(root)
    assert row.regions == "unknown"
    assert "'(unknown word)' 1 times" in caplog.text
    assert "Invented" not in caplog.text


def test_a_file_name_that_holds_the_patient_is_warned_of(archive, caplog):
    (archive / "ST000000").rename(archive / factories.PATIENT_ID)
    read_studies(archive)
    assert "2 file names contain the patient's identifier" in caplog.text
