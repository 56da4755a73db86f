"""Studies: assignment of pictures, verdicts, and the studies table."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from pathlib import Path

import pytest
from bundles import contract, spec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bundle import BundleSpec, Kind
from pipeline.decision import Seen, decide_study, strongest
from pipeline.domain import ImageRef
from pipeline.errors import ConfigError
from pipeline.outcome import (
    FractureCall,
    OperatingPoint,
    Outcome,
    RegionCall,
    Status,
    Verdict,
    most_severe,
)
from pipeline.report.studies_table import STUDY_COLUMNS, StudiesWriter
from pipeline.studies import pseudonym, studies_by

ROOT = Path("in")
UID = "1.2.840.99.7"
MURA = Path("train/XR_HAND/patient00011/study2_positive/image1.png")
PICTURE, STUDY = OperatingPoint("balanced", 0.4, 0.2), OperatingPoint("balanced", 0.7, 0.3)


# ------------------------------------------------------------------------------ assignment


@pytest.mark.parametrize(
    ("how", "path", "uid", "key"),
    [
        ("auto", "a.dcm", UID, pseudonym(UID)),
        ("auto", MURA, UID, pseudonym(UID)),
        ("auto", MURA, None, MURA.parent.as_posix()),
        ("auto", "a.png", None, None),
        ("auto", "sub/a.png", None, None),
        ("dicom", MURA, None, None),
        ("dicom", "a.png", UID, pseudonym(UID)),
        ("mura", MURA, UID, MURA.parent.as_posix()),
        ("mura", "a.dcm", UID, None),
        ("folder", "a.dcm", UID, "."),
        ("folder", "x/y/a.dcm", UID, "x/y"),
        ("none", MURA, UID, None),
    ],
)
def test_study_from_header_path_or_folder(how, path, uid, key):
    assert studies_by(how, ROOT).key(ROOT / path, uid) == key


@pytest.mark.parametrize(
    ("how", "uid", "key"),
    [
        *(("auto", UID, pseudonym(UID)), ("dicom", UID, pseudonym(UID))),
        *(("auto", None, None), ("mura", UID, None), ("folder", UID, None), ("none", UID, None)),
    ],
)
def test_study_of_content_in_memory_is_from_the_header(how, uid, key):
    studies = studies_by(how, ROOT)
    assert studies.key(None, uid) == key
    studies.warn()


@pytest.mark.parametrize(
    "path",
    [
        "patient1/study1_positive/sub/image1.png",
        "patientX/study1_positive/image1.png",
        "patient1/study1_positive/._image1.png",
        "patient1/study1_positive/image1.png\n",
        "patient1/study1/image1.png",
        "xpatient1/study1_positive/image1.png",
    ],
)
def test_path_similar_to_mura_has_no_study(path):
    assert studies_by("mura", ROOT).key(ROOT / path, None) is None


def test_mura_is_recognised_below_its_root():
    root = ROOT / "patient00011/study2_positive"
    assert studies_by("auto", root.parent).key(root / "image1.png", None) == "study2_positive"
    assert studies_by("auto", root).key(root / "image1.png", None) == "."


def test_pseudonym_is_short_stable_and_hides_the_uid():
    key = pseudonym(UID)
    assert re.fullmatch(r"dicom/[0-9a-f]{16}", key)
    assert key == "dicom/" + hashlib.sha256(UID.encode()).hexdigest()[:16]
    assert pseudonym("Invented^Person\n") != pseudonym("Invented^Person")
    assert re.fullmatch(r"dicom/[0-9a-f]{16}", pseudonym("Invented^Person\n\u202e"))


def test_keys_of_unusual_folders_are_printable_and_distinct():
    studies = studies_by("folder", ROOT)
    raw = os.fsdecode(b"\xff")
    names = ["a\nb", "a\\nb", raw, "\\xff", "\u202ex", "=1+1"]
    keys = [studies.key(ROOT / name / "p.png", None) for name in names]
    assert len(set(keys)) == len(names)
    assert all(key.isprintable() and key.encode() for key in keys)


# ------------------------------------------------------------------------- table of studies


def from_table(folder: Path, text: str | bytes):
    file = folder / "studies.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return studies_by(str(file), ROOT)


def test_study_from_a_table_and_warning_for_unused_rows(tmp_path, caplog):
    text = "\ufeffpath,site,study\na.png,1,one\nsub/b.png,1, two \r\n'=c.png,1,one\nd.png,1,\n\n"
    studies = from_table(tmp_path, text + "missing.png,1,one\na.png,1,one\n")
    keys = {name: studies.key(ROOT / name, UID) for name in ("a.png", "sub/b.png", "=c.png")}
    assert keys == {"a.png": "one", "sub/b.png": "two", "=c.png": "one"}
    assert studies.key(ROOT / "d.png", UID) is None  # an empty cell: no study
    assert studies.key(ROOT / "new.png", UID) is None
    studies.warn()
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'studies.csv'}: 1 of 5 rows name no file of the input")


def test_study_of_a_table_is_escaped_to_one_line(tmp_path):
    studies = from_table(tmp_path, 'path,study\na.png,"x\ny\u202e"\n')
    assert studies.key(ROOT / "a.png", None) == "x\\ny\\u202e"


def test_no_warning_if_every_row_is_used(tmp_path, caplog):
    studies = from_table(tmp_path, "path,study\na.png,one\n")
    studies.key(ROOT / "a.png", None)
    studies.warn()
    studies_by("auto", ROOT).warn()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found columns none, expected path and study, once each"),
        ("path|study\na|b\n", "found columns path|study, expected path and study"),
        ("path,study,study\na,b,c\n", "found columns path, study, study"),
        ("path,study\na.png\n", "row 2: found 1 cells, expected 2"),
        ("path,study\n,one\n", "row 2: found no path"),
        ("path,study\na,one\na,two\n", "row 3: found a path with another study above"),
        (b"path,study\na\xff,one\n", "not CSV in UTF-8"),
        ('path,study\n"a,one\n', "not CSV in UTF-8"),
        ("path,study\n" + "a\n" * 14, "and 4 more"),
    ],
)
def test_error_names_a_malformed_table(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        from_table(tmp_path, text)
    assert message in str(caught.value)
    assert all(str(tmp_path / "studies.csv") in line or "more" in line
               for line in str(caught.value).splitlines())  # fmt: skip


def test_missing_table_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv: cannot be read"):
        studies_by(str(tmp_path / "none.csv"), ROOT)


# ---------------------------------------------------------------------------------- verdict

probabilities = st.floats(0, 1)
pictures_of_a_study = st.lists(
    st.tuples(st.sampled_from(["elbow", "hand", "all"]), probabilities, st.integers(0, 3)),
    min_size=1, max_size=8,
)  # fmt: skip


def calls(pictures):
    return [
        (ImageRef(Path(f"{name}.png"), frame=k), FractureCall(region, "fracture", p, PICTURE))
        for k, (region, p, name) in enumerate(pictures)
    ]


@given(pictures_of_a_study, st.randoms())
def test_result_does_not_depend_on_the_order_of_the_pictures(pictures, random):
    one = calls(pictures)
    other = random.sample(one, len(one))
    at_once = strongest(one)
    assert set(strongest(other)) == set(at_once)
    step_by_step: tuple[Seen, ...] = ()
    for pair in other:
        step_by_step = strongest([*step_by_step, pair])
    assert set(step_by_step) == set(at_once)
    points = {"hand": STUDY}
    assert set(decide_study(step_by_step, points)) == set(decide_study(at_once, points))


@given(probabilities, st.sampled_from(["elbow", "hand"]))
def test_study_of_one_picture_without_study_point_has_its_verdict(p, region):
    (pair,) = calls([(region, p, 0)])
    (study,) = decide_study(strongest([pair]), {})
    assert (study.call, study.image) == (pair[1], pair[0])
    assert (study.verdict, study.threshold_of) == (pair[1].verdict, "picture")


@given(
    pictures_of_a_study,
    st.tuples(st.sampled_from(["elbow", "hand", "all"]), probabilities, st.just(9)),
)
def test_another_picture_does_not_lower_the_verdict(pictures, more):
    before = {c.call.region: c for c in decide_study(strongest(calls(pictures)), {"hand": STUDY})}
    after = {
        c.call.region: c for c in decide_study(strongest(calls([*pictures, more])), {"hand": STUDY})
    }
    gravity = list(Verdict)
    for region, call in before.items():
        assert after[region].probability >= call.probability
        assert gravity.index(after[region].verdict) <= gravity.index(call.verdict)
    overall = [
        gravity.index(most_severe(calls_by_region.values()).verdict)
        for calls_by_region in (before, after)
    ]
    assert overall[1] <= overall[0]


def test_study_point_is_used_if_there_is_one():
    best = strongest(calls([("hand", 0.5, 0), ("hand", 0.6, 1), ("elbow", 0.5, 2)]))
    hand, elbow = decide_study(best, {"hand": STUDY})
    assert (hand.verdict, hand.threshold_of, hand.probability) == ("uncertain", "study", 0.6)
    assert hand.image.path == Path("1.png")
    assert (elbow.verdict, elbow.threshold_of) == ("positive", "picture")
    assert most_severe([hand, elbow]) == elbow


def test_far_picture_does_not_hide_a_positive_one():
    near, far = OperatingPoint("balanced", 0.4, 0.2), OperatingPoint("balanced", 0.7, 0.2)
    pictures = [
        (ImageRef(Path("near.png")), FractureCall("hand", "fracture", 0.5, near)),
        (ImageRef(Path("far.png")), FractureCall("hand", "fracture", 0.6, far, far=True)),
    ]
    for points in ({}, {"hand": OperatingPoint("balanced", 0.45, 0.2)}):
        (study,) = decide_study(strongest(pictures), points)
        assert (study.verdict, study.image.path) == ("positive", Path("near.png"))
    (alone,) = decide_study(strongest(pictures[1:]), {})
    assert alone.verdict == "uncertain"


# ------------------------------------------------------------------------------------ results


def outcome(name, study, *probabilities, status=Status.OK):
    fired = {region: 0.9 for region, _ in probabilities}
    region = RegionCall(
        dict.fromkeys(("elbow", "hand", "shoulder"), 0.1) | fired,
        dict.fromkeys(("elbow", "hand", "shoulder"), 0.5),
    )
    return Outcome(
        image=ImageRef(ROOT / name),
        status=status,
        region=region if status is Status.OK else None,
        findings=tuple(FractureCall(r, "fracture", p, PICTURE) for r, p in probabilities),
        error=None if probabilities else "broken",
        study=study,
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_study_in_order_of_appearance(tmp_path):
    with StudiesWriter(tmp_path / "studies.csv", ROOT, {"hand": STUDY}) as writer:
        for one in (
            outcome("b.png", "=b", ("hand", 0.6)),
            outcome("a.png", "a", ("hand", 0.1), ("elbow", 0.3)),
            outcome("x.png", None, ("hand", 0.99)),
            outcome("c.png", "=b", ("hand", 0.8)),
            outcome("d.png", "=b", status=Status.FAILED),
            outcome("e.png", "lost", status=Status.UNSUPPORTED),
            outcome("f.png", "lost", status=Status.FAILED),
            outcome("g.png", "knee", status=Status.UNSUPPORTED),
        ):
            writer.write(one)
        assert not (tmp_path / "studies.csv").exists()
    actual = rows(tmp_path / "studies.csv")
    assert tuple(actual[0]) == STUDY_COLUMNS
    assert [row["study"] for row in actual] == ["'=b", "a", "lost", "knee"]
    first, second, lost, knee = actual
    expected = {
        "status": "ok", "pictures": "3", "ok": "2", "unsupported": "0", "failed": "1",
        "regions": "hand", "region": "hand", "target": "fracture", "verdict": "positive",
        "probability": "0.8", "threshold": "0.7", "operating_point": "balanced",
        "threshold_of": "study", "aggregation": "max", "verdict_hand": "positive",
        "probability_hand": "0.8", "verdict_elbow": "", "picture": "c.png", "frame": "",
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected
    assert (second["regions"], second["region"], second["verdict"]) == (
        "elbow;hand", "elbow", "uncertain",
    )  # fmt: skip
    assert (second["threshold_of"], second["verdict_hand"]) == ("picture", "negative")
    assert (lost["status"], lost["verdict"], lost["failed"], lost["pictures"]) == (
        "failed", "", "1", "2",
    )  # fmt: skip
    assert (knee["status"], knee["aggregation"], knee["picture"]) == ("unsupported", "max", "")
    assert writer.summary == "4 studies: 1 positive, 1 uncertain, 1 failed, 1 unsupported"


def test_no_table_without_studies_and_an_old_one_is_removed(tmp_path):
    (tmp_path / "studies.csv").write_text("an earlier run")
    with StudiesWriter(tmp_path / "studies.csv", ROOT, {}) as writer:
        writer.write(outcome("a.png", None, ("hand", 0.6)))
    assert list(tmp_path.iterdir()) == []
    assert writer.summary == ""


def test_aborted_run_writes_no_studies_table(tmp_path):
    def broken():
        with StudiesWriter(tmp_path / "studies.csv", ROOT, {}) as writer:
            writer.write(outcome("a.png", "a", ("hand", 0.6)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------- bundle


def test_old_contract_has_no_study_points(hand):
    old = hand.model_dump(mode="json")
    del old["study_points"]
    spec = contract(old)
    assert (spec.study_points, spec.study_point(None)) == ({}, None)


def test_study_points_belong_to_operating_points(hand):
    stored = hand.operating_points["balanced"].model_dump()
    point = {**stored, "threshold": 0.8, "aggregation": "max"}
    spec = contract({**hand.model_dump(), "study_points": {"balanced": point}})
    assert spec.study_point(None) == OperatingPoint("balanced", 0.8, stored["doubt_below"])
    assert spec.study_point("specific") is None
    with pytest.raises(ValueError, match="not operating points"):
        contract({**hand.model_dump(), "study_points": {"own": point}})
    wrong = {"balanced": {**point, "aggregation": "unknown"}}
    with pytest.raises(ValueError, match="aggregation"):
        contract({**hand.model_dump(), "study_points": wrong})


@pytest.fixture
def hand() -> BundleSpec:
    return spec("fracture-hand", Kind.FRACTURE)
