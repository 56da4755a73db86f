"""``fxpipe run --studies``: one verdict for the pictures of a study."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from bundles import paint, spec, standard_specs, write_png
from click.testing import Result
from command_line import fxpipe
from factories import IDENTIFIERS, dicom, dicom_file
from tiny_networks import write_bundles

from pipeline.bundle import Estimate, Kind, StoredStudyPoint
from pipeline.studies import pseudonym

UIDS = ("1.2.826.0.1.3680043.77.1", "1.2.826.0.1.3680043.77.2")
SECRETS = (*IDENTIFIERS, *UIDS, "2.25.1001", "2.25.1003")


def run(*arguments: object) -> Result:
    return fxpipe("run", "--device", "cpu", *arguments)


def rows(name: str = "studies", output: Path = Path("results")) -> list[dict[str, str]]:
    with (output / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_dicom(path: Path, uid: str | None, hand: float, cut: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = dicom(paint({"hand": 0.9}, {"hand": hand}), StudyInstanceUID=uid)
    if cut:
        picture.PixelData = picture.PixelData[:100]
    path.write_bytes(dicom_file(picture))


def archive(folder: Path) -> None:
    """Write two studies, the second with a damaged picture, and a file without a study."""
    write_dicom(folder / "1.dcm", UIDS[0], 0.2)
    write_dicom(folder / "2.dcm", UIDS[1], 0.3)
    write_dicom(folder / "3.dcm", UIDS[0], 0.8)
    write_dicom(folder / "4.dcm", UIDS[1], 0.9, cut=True)
    write_dicom(folder / "5.dcm", None, 0.9)


def test_studies_by_dicom_header(place):
    archive(place / "in")
    result = run("--input", "in")
    assert result.exit_code == 1  # the damaged picture
    assert "2 studies: 1 positive, 1 negative" in result.stdout
    first, second = rows()
    assert [first["study"], second["study"]] == [pseudonym(uid) for uid in UIDS]
    assert [r["study"] for r in rows("results")] == [
        first["study"], second["study"], first["study"], second["study"], "",
    ]  # fmt: skip
    assert (first["verdict"], first["picture"], first["pictures"]) == ("positive", "3.dcm", "2")
    assert (first["threshold_of"], first["aggregation"]) == ("picture", "max")
    assert (second["status"], second["verdict"], second["ok"], second["failed"]) == (
        "ok", "negative", "1", "1",
    )  # fmt: skip
    by_path = {row["path"]: row for row in rows("results")}
    assert by_path["3.dcm"]["probability"] == first["probability"]
    lines = (place / "results/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[3])["study"] == second["study"]


def test_outputs_contain_no_identifier_and_are_reproducible(place):
    archive(place / "in")
    results = [run("--input", "in", "--output", name) for name in ("one", "two")]
    texts = [path.read_text(encoding="utf-8") for path in sorted(place.glob("one/*"))]
    assert len(texts) == 3
    for text in (*texts, results[0].stdout, results[0].stderr):
        assert not [secret for secret in SECRETS if secret in text]
    assert rows(output=Path("one")) == rows(output=Path("two"))
    run("--input", "in", "--output", "kept", "--identifiers", "keep")
    assert [r["study"] for r in rows(output=Path("kept"))] == [pseudonym(uid) for uid in UIDS]
    assert rows("results", Path("kept"))[0]["study_instance_uid"] == UIDS[0]


def mura(folder: Path) -> None:
    """Write two studies of two pictures in the layout of MURA, and one picture outside of it."""
    for n, (place, hand) in enumerate(
        (("patient00001/study1_positive", 0.1), ("patient00001/study2_negative", 0.48))
    ):
        for k in (1, 2):
            path = folder / f"valid/XR_HAND/{place}/image{k}.png"
            write_png(path, {"hand": 0.9}, {"hand": hand + 0.03 * k * (1 - n)})
    write_png(folder / "stray.png", {"hand": 0.9}, {"hand": 0.9})


def test_studies_by_the_folders_of_mura(place):
    mura(place / "in")
    assert run("--input", "in").exit_code == 0
    stems = [
        f"valid/XR_HAND/patient00001/{name}" for name in ("study1_positive", "study2_negative")
    ]
    assert [(r["study"], r["verdict"], r["pictures"]) for r in rows()] == [
        (stems[0], "negative", "2"), (stems[1], "uncertain", "2"),
    ]  # fmt: skip
    assert rows()[0]["picture"] == f"{stems[0]}/image2.png"
    assert rows("results")[0]["study"] == ""


def test_every_folder_is_one_study(place):
    write_png(place / "in/=a/1.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/=a/2.png", {"elbow": 0.9}, {"elbow": 0.1})
    (place / "in/b").mkdir()
    (place / "in/b/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (place / "in/c").mkdir()
    (place / "in/c/letter.txt").write_text("Dear colleague")
    assert run("--input", "in", "--studies", "folder").exit_code == 1
    assert [(r["study"], r["status"], r["regions"], r["verdict"]) for r in rows()] == [
        ("'=a", "ok", "elbow;hand", "positive"), ("b", "failed", "", ""),
    ]  # fmt: skip
    # A text file is not a picture of a study.
    assert [r["study"] for r in rows("results")] == ["'=a", "'=a", "b", ""]


def test_folder_with_more_than_one_study_is_reported(place):
    for n in range(30):
        write_png(place / f"flat/{n}.png", {"hand": 0.9})
    crowded = run("--input", "flat", "--studies", "folder")
    assert "warning: folder .: its 30 pictures are one study; expected a folder" in crowded.stderr
    archive(place / "in")
    mixed = run("--input", "in", "--studies", "folder", "--restart")
    assert "folder .: its 5 pictures are one study, of 2 by their headers" in mixed.stderr
    for n in range(6):
        write_png(place / f"apart/{n // 3}/{n}.png", {"hand": 0.9})
    assert "are one study" not in run("--input", "apart", "--studies", "folder").stderr


def test_table_saved_by_a_spreadsheet(place):
    archive(place / "in")
    table = "path;study\r\n1.dcm;a\r\n2.dcm;a\r\n"
    (place / "known.csv").write_bytes(table.encode("utf-16"))
    run("--input", "in", "--studies", "known.csv")
    assert [row["study"] for row in rows()] == ["a"]


def test_studies_by_a_table(place):
    for name, hand in (("a", 0.9), ("b", 0.1), ("c", 0.1)):
        write_png(place / f"in/{name}.png", {"hand": 0.9}, {"hand": hand})
    Path("known.csv").write_text("study,path\nx,a.png\nx,b.png\ny,gone.png\n")
    result = run("--input", "in", "--studies", "known.csv")
    assert result.exit_code == 0
    assert "known.csv: 1 of 3 rows name no file of the input" in result.stderr
    assert [r["study"] for r in rows("results")] == ["x", "x", ""]
    assert [(r["study"], r["pictures"]) for r in rows()] == [("x", "2")]


def test_run_without_studies_removes_an_older_table(place):
    mura(place / "in")
    run("--input", "in")
    assert Path("results/studies.csv").exists()
    result = run("--input", "in", "--studies", "none")
    assert not Path("results/studies.csv").exists()
    assert " studies:" not in result.stdout
    assert {r["study"] for r in rows("results")} == {""}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("patient", "studies: Value error, expected auto, dicom, mura, folder, none, or a table"),
        ("gone.csv", "gone.csv: cannot be read"),
        ("bad.csv", "bad.csv: found columns file, expected path and study"),
    ],
)
def test_unknown_source_of_studies_is_wrong_usage(place, how, message):
    write_png(place / "in/a.png", {"hand": 0.9})
    Path("bad.csv").write_text("file\na.png\n")
    result = run("--input", "in", "--studies", how)
    assert (result.exit_code, Path("results").exists()) == (2, False)
    assert message in result.stderr


def test_study_point_applies_to_studies_and_not_to_pictures(place):
    point = StoredStudyPoint(
        threshold=0.97, doubt_below=0.5, rule="test", aggregation="max",
        sensitivity=Estimate(value=None), specificity=Estimate(value=None),
    )  # fmt: skip
    hand = spec("fracture-hand", Kind.FRACTURE, study_points={"balanced": point})
    others = [one for one in standard_specs() if one.name != hand.name]
    write_bundles(place / "own", [*others, hand])
    mura(place / "in")
    write_png(place / "in/patient7/study1_x/image1.png", {"hand": 0.9}, {"hand": 0.56})
    run("--input", "in", "--weights", "own")
    row = rows()[0]
    assert (row["study"], row["verdict"]) == ("patient7/study1_x", "uncertain")
    assert (row["threshold"], row["threshold_of"]) == ("0.97", "study")
    assert rows("results")[0]["verdict"] == "positive"
    run("--input", "in", "--weights", "own", "--operating-point", "specific")
    assert rows()[0]["threshold_of"] == "picture"
