"""``fxpipe run --dicom-out``: files, privacy, refusals, and what independent validators say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import paint, write_bundles, write_png
from click.testing import CliRunner, Result
from dicom_results import DIGESTS, judged
from external_readers import need
from factories import IDENTIFIERS, bone, dicom, dicom_file
from PIL import Image
from pydicom import dcmread
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.domain import Flag
from pipeline.report.dicom.objects import DicomWriter

ROOT = Path(__file__).parents[2]
FORMATS = {".csv", ".jsonl", ".png", ".dcm"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights, and pictures of a hand: positive, negative, and a knee."""
    write_bundles(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    folder = tmp_path / "in"
    write_png(folder / "d.png", {"hand": 0.9}, {"hand": 0.9})
    pictures = [paint({"hand": 0.9}, {"hand": 0.9}), paint({"hand": 0.9}), paint({})]
    for number, (name, pixels) in enumerate(zip("abc", pictures, strict=True)):
        ds = dicom(pixels, SOPInstanceUID=f"2.25.{number + 1}")
        (folder / f"{name}.dcm").write_bytes(dicom_file(ds))
    return tmp_path


def fxpipe(*arguments: object, source: str = "in") -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, ["run", "--input", source, *words], catch_exceptions=False)


def test_every_judged_dicom_picture_gets_its_objects_and_the_rest_is_told(place):
    before = {path: path.read_bytes() for path in (place / "in").iterdir()}
    result = fxpipe("--dicom-out", "out/dicom", "--device", "cpu")
    assert result.exit_code == 0, result.output
    names = sorted(path.name.partition("-")[2] for path in (place / "out/dicom").iterdir())
    assert names == ["hand-overlay.dcm", "marks.dcm", "report.dcm", "report.dcm"]
    assert (
        "DICOM objects: report 2, overlay 1, marks 1; pictures without: no verdict 1, "
        "not a DICOM picture 1" in result.stdout
    )
    assert result.stderr.count("needs --identifiers keep") == 1
    assert {path: path.read_bytes() for path in (place / "in").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--heatmaps", "none"], ["report.dcm"] * 2),
        (["--set", "heatmaps=none"], ["report.dcm"] * 2),
        (["--heatmaps", "all"], ["hand-overlay.dcm"] * 2 + ["marks.dcm"] * 2 + ["report.dcm"] * 2),
    ],
)
def test_whoever_asks_for_other_heatmaps_gets_them(place, options, kinds):
    assert fxpipe("--dicom-out", "dicom", *options, "--quiet").exit_code == 0
    assert sorted(path.name.partition("-")[2] for path in (place / "dicom").iterdir()) == kinds


@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_no_output_names_the_patient_unless_asked_to(place, identifiers):
    result = fxpipe("--dicom-out", "dicom", "--identifiers", identifiers)
    assert result.exit_code == 0
    files = [p for folder in ("results", "dicom") for p in (place / folder).rglob("*.*")]
    assert {path.suffix for path in files} == FORMATS
    named = {
        path.suffix
        for path in files
        for word in IDENTIFIERS
        if word.encode() in path.read_bytes() or word in path.name
    }
    assert named == (set() if identifiers == "omit" else {".csv", ".jsonl", ".dcm"})
    assert not any(word in result.output for word in IDENTIFIERS)
    assert ("needs --identifiers keep" in result.stderr) == (identifiers == "omit")


@pytest.mark.parametrize("folder", ["in", "in/dicom", "in/../in/deep/er"])
def test_originals_and_objects_do_not_mix(place, folder):
    result = fxpipe("--dicom-out", folder)
    assert result.exit_code == 2
    assert "is in the input folder" in result.output
    assert len(list((place / "in").rglob("*"))) == 4


def test_nor_through_a_link_nor_beside_a_single_file(place):
    (place / "link").symlink_to(place / "in")
    assert fxpipe("--dicom-out", "link").exit_code == 2
    assert fxpipe("--dicom-out", "in", source="in/a.dcm").exit_code == 2
    assert len(list((place / "in").iterdir())) == 4
    assert fxpipe("--dicom-out", "dicom", source="in/a.dcm").exit_code == 0


def test_a_folder_that_cannot_be_made_is_told(place):
    (place / "file").write_text("")
    result = fxpipe("--dicom-out", "file/dicom")
    assert result.exit_code == 2
    assert "--dicom-out file/dicom: cannot be written" in result.output
    assert not (place / "results").exists()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_extra_it_says_what_to_install(place):
    result = python(
        "import sys; sys.modules['highdicom'] = None\n"
        "from pipeline.cli import main\n"
        "main(['run', '--input', 'in', '--dicom-out', 'dicom'])"
    )
    assert result.returncode == 3
    assert "highdicom" in result.stderr
    assert 'pip install "fxpipe[dicom]"' in result.stderr
    assert not (place / "results").exists()


def test_nobody_else_loads_it(place):
    result = python(
        "import sys; from pipeline.cli import main\n"
        "try: main(['run', '--input', 'in', '--quiet', '--heatmaps', 'all'])\n"
        "except SystemExit: pass\n"
        "print('highdicom' in sys.modules)"
    )
    assert result.stdout.strip() == "False", result.stderr


# ---------------------------------------------------------------------------------- validators

PIXELS = np.rint(bone(96, 80) * 4095).astype(np.uint16)
STUDY = {
    "StudyDate": "20200102",
    "StudyTime": "030405",
    "StudyID": "7",
    "AccessionNumber": "55",
    "ReferringPhysicianName": "",
    "PatientSex": "F",
}
ORIGINALS = {
    "plain": {},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1", "ImageLaterality": "L"},
    "window": {"WindowCenter": "2000", "WindowWidth": "4000", "BurnedInAnnotation": "NO"},
    "latin1": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jérôme"},
    "utf8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Ωμέγα^Ξένος"},
    "frames": {
        "NumberOfFrames": 2,
        "SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        "Modality": "OT",
    },
}


@pytest.fixture(scope="module", params=[*ORIGINALS, "sample", "pydicom-mr-as-cr"])
def everything(request, tmp_path_factory) -> list[Path]:
    """All kinds of object of an original, with identifiers and without."""
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "original.dcm"
    if request.param == "sample":
        shutil.copy(ROOT / "samples/IM000001.dcm", path)
    elif request.param in ORIGINALS:
        header = STUDY | ORIGINALS[request.param]
        frames = header.pop("NumberOfFrames", 1)
        pixels = PIXELS if frames == 1 else np.stack([PIXELS] * frames)
        path.write_bytes(dicom_file(dicom(pixels, bits=12, **header)))
    else:  # a file that pydicom distributes, from a real machine
        from pydicom.data import get_testdata_file

        ds = get_testdata_file("MR_small.dcm", read=True)
        ds.Modality = "CR"
        ds.save_as(path)
    for identifiers in ("omit", "keep"):
        writer = DicomWriter(folder / identifiers, RunConfig(identifiers=identifiers), DIGESTS)
        flags = [Flag("body-part-differs", "the header says KNEE, the picture shows hand")]
        for outcome in judged(path, {"hand": 0.9, "elbow": 0.1}, flags=flags):
            writer.write(outcome)
    found = sorted(folder.glob("*/*.dcm"))
    assert len(found) == (16 if request.param == "frames" else 8)
    return found


def tool(name: str, *arguments: object) -> str:
    """Output of a tool of another toolkit; see :mod:`external_readers`."""
    program = need(name, "dcmtk, dicom3tools")
    found = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, check=False, timeout=60
    )
    return (found.stdout + found.stderr).decode("utf-8", "replace")


def test_dciodvfy_finds_no_error(everything):
    for path in everything:
        told = tool("dciodvfy", path)
        assert [line for line in told.splitlines() if line.startswith("Error")] == [], path


def test_dsrdump_reads_the_reports(everything):
    reports = [path for path in everything if path.stem.endswith("report")]
    for path in reports:
        told = tool("dsrdump", path)
        assert "Preliminary Flag    : PRELIMINARY" in told
        assert "Verification Flag   : UNVERIFIED" in told
        assert '"Fracture of bone")=(52101004,SCT,"Present")' in told
        assert '"Fracture of bone")=(272519000,SCT,"Absent")' in told
        assert ('"Finding Site")=(16953009,SCT,"Elbow joint")') in told


def test_dcmpschk_reads_the_marks(everything):
    if "utf8" in str(everything[0]):
        pytest.skip("dcmpschk takes UTF-8 for a malformed name")
    for path in everything:
        # dcmtk wants a patient's name, which DICOM does not.
        if path.stem.endswith("marks") and path.parent.name == "keep":
            assert "Test passed" in tool("dcmpschk", path)


def test_dcentvfy_finds_one_patient_and_one_study(everything):
    """What it compares is, for each entity, the attributes of all files of that entity."""
    original = everything[0].parent.parent / "original.dcm"
    kept = [path for path in everything if path.parent.name == "keep"]
    told = tool("dcentvfy", original, *kept)
    faults = [line for line in told.splitlines() if line.startswith(("Error", "Warning"))]
    # It counts the accession number to another entity for reports than for pictures.
    assert [line for line in faults if "AccessionNumber" not in line] == []


def test_dcmtk_shows_the_marked_picture_as_fxpipe_does(tmp_path):
    path = tmp_path / "original.dcm"
    header = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1500, "WindowWidth": 900}
    path.write_bytes(dicom_file(dicom(PIXELS, bits=12, **header)))
    (outcome,) = judged(path)
    # dcmtk wants a patient's name, which DICOM does not.
    config = RunConfig(identifiers="keep")
    DicomWriter(tmp_path / "objects", config, DIGESTS).write(outcome)
    (state,) = (tmp_path / "objects").glob("*-marks.dcm")
    told = tool("dcmp2pgm", "-p", state, path, tmp_path / "shown.pgm")
    assert (tmp_path / "shown.pgm").exists(), told
    shown = np.asarray(Image.open(tmp_path / "shown.pgm"), np.int32)
    assert np.abs(shown - outcome.rendered.pixels).max() <= 2


def test_kept_objects_do_name_the_patient(everything):
    """The privacy tests would pass on files that never named anybody."""
    original = dcmread(everything[0].parent.parent / "original.dcm")
    for path in everything:
        name = str(dcmread(path).get("PatientName") or "")
        assert name == (str(original.PatientName) if path.parent.name == "keep" else "")
