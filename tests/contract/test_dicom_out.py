"""``fxpipe run --dicom-out``: files, privacy, refusals, and checks by independent validators."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bundles import paint, write_png
from click.testing import Result
from command_line import fxpipe, run_python
from dicom_results import DIGESTS, judged
from factories import IDENTIFIERS, bone, dicom, dicom_file
from PIL import Image
from pydicom import dcmread
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage
from tools import need

from pipeline.config import RunConfig
from pipeline.domain import Flag
from pipeline.report.dicom.objects import DicomWriter

ROOT = Path(__file__).parents[2]
FORMATS = {".csv", ".jsonl", ".png", ".dcm"}


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights, a positive hand twice, a negative hand, and a knee."""
    folder = place / "in"
    write_png(folder / "d.png", {"hand": 0.9}, {"hand": 0.9})
    pictures = [paint({"hand": 0.9}, {"hand": 0.9}), paint({"hand": 0.9}), paint({})]
    for number, (name, pixels) in enumerate(zip("abc", pictures, strict=True)):
        ds = dicom(pixels, SOPInstanceUID=f"2.25.{number + 1}")
        (folder / f"{name}.dcm").write_bytes(dicom_file(ds))
    return place


def run(*arguments: object, source: str = "in") -> Result:
    return fxpipe("run", "--input", source, *arguments)


def test_every_judged_dicom_picture_gets_objects_and_the_others_are_counted(place):
    before = {path: path.read_bytes() for path in (place / "in").iterdir()}
    result = run("--dicom-out", "out/dicom", "--device", "cpu")
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
def test_objects_follow_the_heatmap_option(place, options, kinds):
    assert run("--dicom-out", "dicom", *options, "--quiet").exit_code == 0
    assert sorted(path.name.partition("-")[2] for path in (place / "dicom").iterdir()) == kinds


@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_outputs_name_the_patient_only_on_request(place, identifiers):
    result = run("--dicom-out", "dicom", "--identifiers", identifiers)
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
def test_objects_are_not_written_into_the_input_folder(place, folder):
    result = run("--dicom-out", folder)
    assert result.exit_code == 2
    assert "is in the input folder" in result.output
    assert len(list((place / "in").rglob("*"))) == 4


def test_objects_are_not_written_through_a_link_or_next_to_a_single_input(place):
    (place / "link").symlink_to(place / "in")
    assert run("--dicom-out", "link").exit_code == 2
    assert run("--dicom-out", "in", source="in/a.dcm").exit_code == 2
    assert len(list((place / "in").iterdir())) == 4
    assert run("--dicom-out", "dicom", source="in/a.dcm").exit_code == 0


def test_folder_that_cannot_be_created_is_reported(place):
    (place / "file").write_text("")
    result = run("--dicom-out", "file/dicom")
    assert result.exit_code == 2
    assert "--dicom-out file/dicom: cannot be written" in result.output
    assert not (place / "results").exists()


def test_missing_extra_is_reported(place):
    result = run_python(
        "import sys; sys.modules['highdicom'] = None\n"
        "from pipeline.cli import main\n"
        "main(['run', '--input', 'in', '--dicom-out', 'dicom'])"
    )
    assert result.returncode == 3
    assert "highdicom" in result.stderr
    assert 'pip install "fxpipe[dicom]"' in result.stderr
    assert not (place / "results").exists()


def test_highdicom_is_imported_only_if_needed(place):
    result = run_python(
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
def objects(request, tmp_path_factory) -> list[Path]:
    """Objects of all kinds for one original, with and without identifiers."""
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "original.dcm"
    if request.param == "sample":
        shutil.copy(ROOT / "samples/IM000001.dcm", path)
    elif request.param in ORIGINALS:
        header = STUDY | ORIGINALS[request.param]
        frames = header.pop("NumberOfFrames", 1)
        pixels = PIXELS if frames == 1 else np.stack([PIXELS] * frames)
        path.write_bytes(dicom_file(dicom(pixels, bits=12, **header)))
    else:  # a file of pydicom, from a real machine
        from pydicom.data import get_testdata_file

        ds = get_testdata_file("MR_small.dcm", read=True)
        ds.Modality = "CR"
        ds.save_as(path)
    for identifiers in ("omit", "keep"):
        writer = DicomWriter(folder / identifiers, RunConfig(identifiers=identifiers), DIGESTS)
        flags = [Flag("body-part-differs", "the header says KNEE, the picture shows hand")]
        for outcome in judged(path, {"hand": 0.9, "elbow": 0.1}, flags=flags):
            writer.write(outcome)
    paths = sorted(folder.glob("*/*.dcm"))
    assert len(paths) == (16 if request.param == "frames" else 8)
    return paths


def tool(name: str, *arguments: object) -> str:
    """Output of an external validator; see :func:`external_readers.need`."""
    program = need(name)
    result = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, check=False, timeout=60
    )
    return (result.stdout + result.stderr).decode("utf-8", "replace")


def test_dciodvfy_finds_no_error(objects):
    for path in objects:
        output = tool("dciodvfy", path)
        assert [line for line in output.splitlines() if line.startswith("Error")] == [], path


def test_dsrdump_reads_the_reports(objects):
    reports = [path for path in objects if path.stem.endswith("report")]
    for path in reports:
        output = tool("dsrdump", path)
        assert "Preliminary Flag    : PRELIMINARY" in output
        assert "Verification Flag   : UNVERIFIED" in output
        assert '"Fracture of bone")=(52101004,SCT,"Present")' in output
        assert '"Fracture of bone")=(272519000,SCT,"Absent")' in output
        assert ('"Finding Site")=(16953009,SCT,"Elbow joint")') in output


def test_dcmpschk_reads_the_marks(objects):
    if "utf8" in str(objects[0]):
        pytest.skip("dcmpschk reports UTF-8 as a malformed name")
    for path in objects:
        # dcmtk requires a patient name, although DICOM does not.
        if path.stem.endswith("marks") and path.parent.name == "keep":
            assert "Test passed" in tool("dcmpschk", path)


def test_dcentvfy_finds_one_patient_and_one_study(objects):
    """dcentvfy compares the attributes of all files of a patient, study or series."""
    original = objects[0].parent.parent / "original.dcm"
    kept = [path for path in objects if path.parent.name == "keep"]
    output = tool("dcentvfy", original, *kept)
    faults = [line for line in output.splitlines() if line.startswith(("Error", "Warning"))]
    # It assigns the accession number of reports to a different entity than that of pictures.
    assert [line for line in faults if "AccessionNumber" not in line] == []


def test_dcmtk_renders_the_marked_picture_like_fxpipe(tmp_path):
    path = tmp_path / "original.dcm"
    header = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1500, "WindowWidth": 900}
    path.write_bytes(dicom_file(dicom(PIXELS, bits=12, **header)))
    (outcome,) = judged(path)
    # dcmtk requires a patient name, although DICOM does not.
    config = RunConfig(identifiers="keep")
    DicomWriter(tmp_path / "objects", config, DIGESTS).write(outcome)
    (state,) = (tmp_path / "objects").glob("*-marks.dcm")
    output = tool("dcmp2pgm", "-p", state, path, tmp_path / "shown.pgm")
    assert (tmp_path / "shown.pgm").exists(), output
    pixels = np.asarray(Image.open(tmp_path / "shown.pgm"), np.int32)
    assert np.abs(pixels - outcome.rendered.pixels).max() <= 2


def test_objects_with_identifiers_name_the_patient(objects):
    """Otherwise the privacy tests would pass without objects that name a patient."""
    original = dcmread(objects[0].parent.parent / "original.dcm")
    for path in objects:
        name = str(dcmread(path).get("PatientName") or "")
        assert name == (str(original.PatientName) if path.parent.name == "keep" else "")
