"""What the DICOM objects of a picture say, refer to, and keep to themselves."""

from __future__ import annotations

import logging
from datetime import datetime

import numpy as np
import pytest
from factories import (
    IDENTIFIERS,
    PATIENT_ID,
    PATIENT_NAME,
    bone,
    dicom,
    dicom_file,
    lut,
    ramp,
    raster,
)
from highdicom import sr
from judged import DIGESTS, judged
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from pipeline.config import RunConfig
from pipeline.domain import Flag, ImageRef, OperatingPoint, Outcome, Status
from pipeline.heatmap import contours, overlay
from pipeline.io.grey import display_values
from pipeline.report.dicom import codes
from pipeline.report.dicom.writer import DicomWriter
from pipeline.report.record import caption

KINDS = ("hand-overlay", "marks", "report")
PIXELS = np.rint(bone(96, 80) * 4095).astype(np.uint16)


def original(folder, pixels=PIXELS, syntax=None, name="x.dcm", **attributes):
    """The path of a DICOM file of 12 bits."""
    path = folder / name
    bits = attributes.pop("bits", 12 if pixels.dtype == np.uint16 else None)
    path.write_bytes(dicom_file(dicom(pixels, bits=bits, **attributes), syntax))
    return path


def objects(folder, outcomes, **settings) -> dict[str, Dataset]:
    """Everything that a writer makes of outcomes, by the end of the file name."""
    writer = DicomWriter(folder / "objects", RunConfig(**settings), DIGESTS)
    for outcome in outcomes:
        writer.write(outcome)
    found = sorted((folder / "objects").iterdir())
    assert all(path.suffix == ".dcm" for path in found)
    return {path.stem.partition("-")[2]: dcmread(path) for path in found}


def groups(report: Dataset) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    return sr.ComprehensiveSR.from_dataset(report).content.get_image_measurement_groups()


def texts(report: Dataset) -> list[str]:
    """Every free text below a report."""
    found = []
    stack = [report]
    while stack:
        item = stack.pop()
        stack += item.get("ContentSequence", [])
        found += [item.TextValue] if "TextValue" in item else []
    return found


# ---------------------------------------------------------------------------------- report


def test_a_report_says_what_was_found_where_by_whom_and_that_nobody_verified_it(tmp_path):
    path = original(tmp_path, ImageLaterality="L")
    report = objects(tmp_path, judged(path))["report"]
    assert (report.CompletionFlag, report.PreliminaryFlag) == ("COMPLETE", "PRELIMINARY")
    assert report.VerificationFlag == "UNVERIFIED"
    assert (report.Modality, report.Manufacturer) == ("SR", "fxpipe")
    (group,) = groups(report)
    (site,) = group.finding_sites
    assert (site.topographical_modifier, site.value) == (None, codes.SITES["hand"])
    assert site.laterality == codes.SIDES["L"]
    measured = {m.name.meaning: (float(m.value), m.unit.value) for m in group.get_measurements()}
    assert measured == {
        "Probability": (0.9, "1"),
        "Probability from which positive": (0.5, "1"),
        "Probability from which uncertain": (0.3, "1"),
    }
    said = {e.name.value: e.value.value for e in group.get_qualitative_evaluations()}
    assert said == {"125605004": "52101004", "VERDICT": "POSITIVE"}
    assert group.finding_type is None
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == "2.25.1001"
    assert image.referenced_frame_numbers is None
    (observer,) = sr.ComprehensiveSR.from_dataset(report).content.get_observer_contexts()
    assert observer.observer_type.meaning == "Device"
    words = texts(report)
    assert f"bundle fracture-hand sha256 {DIGESTS['fracture-hand']}" in words
    assert "balanced: positive from 0.500, uncertain from 0.300" in words
    assert any("not a medical device" in text for text in words)
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == codes.PRIVATE


@pytest.mark.parametrize(
    ("probability", "presence", "verdict"),
    [
        (0.5, "Present", "positive"),
        (0.49, "Undetermined", "uncertain"),
        (0.1, "Absent", "negative"),
    ],
)
@pytest.mark.parametrize("target", ["fracture", "abnormality"])
def test_each_verdict_is_told_as_presence(tmp_path, probability, presence, verdict, target):
    outcomes = judged(original(tmp_path), {"hand": probability}, target=target)
    made = objects(tmp_path, outcomes)
    said = [
        (e.name.meaning, e.value.meaning)
        for e in groups(made["report"])[0].get_qualitative_evaluations()
    ]
    finding = {"fracture": "Fracture of bone", "abnormality": "Abnormality"}[target]
    assert said == [(finding, presence), ("Verdict of fxpipe", verdict)]


def test_an_abnormality_is_never_called_a_fracture(tmp_path):
    digests = {"region": "1" * 64, "abnormality-hand": "2" * 64}
    objects(tmp_path, judged(original(tmp_path), target="abnormality", digests=digests))
    files = list((tmp_path / "objects").iterdir())
    assert len(files) == 3
    for file in files:
        assert b"racture" not in file.read_bytes().replace(b"bundle fracture-hand", b"")


def test_several_specialists_make_several_groups_and_overlays_and_one_state(tmp_path):
    outcomes = judged(original(tmp_path), {"hand": 0.9, "elbow": 0.2})
    made = objects(tmp_path, outcomes)
    assert set(made) == {"report", "hand-overlay", "elbow-overlay", "marks"}
    sites = [group.finding_sites[0].value.meaning for group in groups(made["report"])]
    assert sites == ["Hand", "Elbow joint"]
    assert len(made["marks"].GraphicAnnotationSequence) == 2
    overlays = [made[f"{region}-overlay"] for region in ("hand", "elbow")]
    assert len({ds.SOPInstanceUID for ds in overlays}) == 2
    assert len({ds.SeriesInstanceUID for ds in overlays}) == 1
    assert [ds.InstanceNumber for ds in overlays] == [1, 2]


def test_a_specialist_of_all_regions_has_the_sites_that_the_router_saw_or_none(tmp_path):
    path = original(tmp_path)
    (group,) = groups(objects(tmp_path, judged(path, {"all": 0.9}))["report"])
    assert group.finding_sites == []
    outcomes = judged(path, {"all": 0.9}, fired={"elbow": 0.7, "hand": 0.9, "shoulder": 0.1})
    (group,) = groups(objects(tmp_path, outcomes)["report"])
    assert [site.value.meaning for site in group.finding_sites] == ["Hand", "Elbow joint"]


def test_doubts_and_regions_without_a_specialist_are_comments(tmp_path):
    outcomes = judged(
        original(tmp_path),
        flags=[Flag("body-part-differs", "the header says KNEE – the picture looks like a hand")],
        fired={"hand": 0.9, "elbow": 0.8},
    )
    words = texts(objects(tmp_path, outcomes)["report"])
    assert "body-part-differs: the header says KNEE ? the picture looks like a hand" in words
    assert "elbow: seen, but there is no specialist" in words


@pytest.mark.parametrize(
    ("header", "side"),
    [({}, None), ({"Laterality": "R"}, "Right"), ({"ImageLaterality": "U"}, None)],
)
def test_the_side_is_the_headers_word(tmp_path, header, side):
    made = objects(tmp_path, judged(original(tmp_path, **header)))
    found = groups(made["report"])[0].finding_sites[0].laterality
    assert (found.meaning if found else None) == side
    assert made["hand-overlay"].get("ImageLaterality") == (side[0] if side else None)


# ---------------------------------------------------------------------------------- overlay


def test_an_overlay_is_the_picture_with_heatmap_and_caption(tmp_path):
    (outcome,) = judged(original(tmp_path))
    capture = objects(tmp_path, [outcome], contour=0.4, opacity=0.5)["hand-overlay"]
    finding = outcome.findings[0]
    wanted = overlay(outcome.rendered, finding.heatmap, 0.4, 0.5, caption(finding))
    assert np.array_equal(capture.pixel_array, np.asarray(wanted))
    assert capture.PhotometricInterpretation == "RGB"
    assert capture.ImageType[0] == "DERIVED"
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.1001"
    assert capture.DerivationDescription == caption(finding)


@pytest.mark.parametrize("burned_in", ["NO", None, "MAYBE"])
def test_what_is_burned_in_is_what_was_burned_in(tmp_path, burned_in):
    capture = objects(tmp_path, judged(original(tmp_path, BurnedInAnnotation=burned_in)))
    found = capture["hand-overlay"].get("BurnedInAnnotation")
    assert found == ("NO" if burned_in == "NO" else None)


def test_a_name_in_the_pixels_gets_no_overlay_unless_identifiers_are_kept(tmp_path, caplog):
    outcomes = judged(original(tmp_path, BurnedInAnnotation="YES"))
    assert set(objects(tmp_path, outcomes)) == {"report", "marks"}
    assert "x.dcm: no overlay of it" in caplog.text
    kept = objects(tmp_path, outcomes, identifiers="keep")
    assert kept["hand-overlay"].BurnedInAnnotation == "YES"


def test_without_a_heatmap_there_is_the_report_alone(tmp_path):
    assert set(objects(tmp_path, judged(original(tmp_path), heatmaps=False))) == {"report"}


# ---------------------------------------------------------------------------------- marks


@pytest.mark.parametrize("pixels", [PIXELS, ramp(40, 3200, 0, 4095)])
def test_marks_lie_on_the_contours_of_the_source_whatever_was_reduced(tmp_path, pixels):
    (outcome,) = judged(original(tmp_path, pixels))
    state = objects(tmp_path, [outcome], contour=0.6)["marks"]
    assert state.SOPClassUID.name == "Grayscale Softcopy Presentation State Storage"
    (annotation,) = state.GraphicAnnotationSequence
    wanted = contours(outcome.findings[0].heatmap, 0.6)
    assert len(annotation.GraphicObjectSequence) == len(wanted) > 0
    for graphic, line in zip(annotation.GraphicObjectSequence, wanted, strict=True):
        assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
        points = np.reshape(graphic.GraphicData, (-1, 2))
        assert np.allclose(points, line[:, ::-1], atol=1e-3)
        assert np.array_equal(points[0], points[-1])
        assert (points <= [pixels.shape[1], pixels.shape[0]]).all()
    (text,) = annotation.TextObjectSequence
    assert text.UnformattedTextValue == caption(outcome.findings[0])
    (area,) = state.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaBottomRightHandCorner == [pixels.shape[1], pixels.shape[0]]


def test_a_line_of_very_many_points_stays_closed(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.report.dicom.presentation_state._MOST_POINTS", 10)
    state = objects(tmp_path, judged(original(tmp_path)))["marks"]
    graphic = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    points = np.reshape(graphic.GraphicData, (-1, 2))
    assert 4 <= len(points) <= 11
    assert np.array_equal(points[0], points[-1])


SHARP = lut([0, 0, 10, 200, 255, 255, 255, 255], first=500, bits=8)
SIGNED = (PIXELS.astype(np.int32) - 2000).astype(np.int16)
GREYS = [
    {},
    {"PhotometricInterpretation": "MONOCHROME1"},
    {"PresentationLUTShape": "INVERSE"},
    {"WindowCenter": "1000", "WindowWidth": "800"},
    {"WindowCenter": ["1000", "3000"], "WindowWidth": ["800", "100"]},
    {"WindowCenter": "1000", "WindowWidth": "800", "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": "1000", "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": "1000", "WindowWidth": "0"},
    {"WindowCenter": "20", "WindowWidth": "90", "RescaleSlope": "0.1", "RescaleIntercept": "-3"},
    {"RescaleSlope": "0.25", "RescaleIntercept": "7"},
    {"VOILUTSequence": lut(list(range(0, 4096, 2)), first=700, bits=12)},
    {"VOILUTSequence": SHARP, "WindowCenter": "1000", "WindowWidth": "800"},
    {"ModalityLUTSequence": lut(list(range(4095, -1, -1)), first=0, bits=12)},
    {"PixelPaddingValue": int(PIXELS.max())},
]


@pytest.mark.parametrize("pixels", [PIXELS, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize("header", GREYS, ids=lambda header: "+".join(header) or "plain")
def test_marks_show_the_greys_that_the_networks_saw(tmp_path, header, pixels):
    path = original(tmp_path, pixels, **header)
    state = objects(tmp_path, judged(path))["marks"]
    ds = dcmread(path)
    wanted = display_values(ds.pixel_array, ds, big_endian=False)
    for keyword in GREYS[-1].keys() ^ {key for grey in GREYS for key in grey}:
        if keyword in ds:
            delattr(ds, keyword)
    # The presentation state is all that is left of the chain, as for a viewer.
    ds.PhotometricInterpretation = "MONOCHROME2"
    for keyword in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"):
        if keyword in state:
            setattr(ds, keyword, state[keyword].value)
    ds.PresentationLUTShape = state.PresentationLUTShape
    for element in state.SoftcopyVOILUTSequence[0]:
        ds[element.tag] = element
    shown = display_values(ds.pixel_array, ds, big_endian=False)
    assert np.abs(shown - wanted).max() < 1e-3


def test_tables_of_a_big_endian_file_are_turned_round(tmp_path):
    table = np.arange(0, 4096, 2, dtype=">u2").tobytes()
    header = {"VOILUTSequence": lut([0] * 2048, first=700, bits=12, data=table)}
    path = original(tmp_path, syntax=ExplicitVRBigEndian, **header)
    state = objects(tmp_path, judged(path))["marks"]
    data = state.SoftcopyVOILUTSequence[0].VOILUTSequence[0].LUTData
    assert np.array_equal(np.frombuffer(data, "<u2"), np.arange(0, 4096, 2))


@pytest.mark.parametrize(
    "header", [{}, {"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage}]
)
def test_each_frame_has_objects_that_refer_to_it(tmp_path, header):
    frames = np.stack([PIXELS, PIXELS // 2, PIXELS // 3])
    outcomes = judged(original(tmp_path, frames, **header))
    made = objects(tmp_path, outcomes)
    assert set(made) == {f"{frame}-{kind}" for frame in range(3) for kind in KINDS}
    for frame in range(3):
        (image,) = groups(made[f"{frame}-report"])[0].source_images
        assert image.referenced_frame_numbers == [frame + 1]
        state = made[f"{frame}-marks"]
        (reference,) = state.ReferencedSeriesSequence[0].ReferencedImageSequence
        assert reference.ReferencedFrameNumber == frame + 1
        (annotated,) = state.GraphicAnnotationSequence[0].ReferencedImageSequence
        assert annotated.ReferencedFrameNumber == frame + 1
        source = made[f"{frame}-hand-overlay"].SourceImageSequence[0]
        assert source.ReferencedFrameNumber == frame + 1
    # The window fills each frame by itself.
    widths = [made[f"{f}-marks"].SoftcopyVOILUTSequence[0].WindowWidth for f in range(3)]
    assert widths[0] > widths[1] > widths[2]


def test_colour_gets_no_marks_and_a_word_about_it(tmp_path, caplog):
    colours = np.repeat((PIXELS // 16).astype(np.uint8)[..., None], 3, axis=2)
    made = objects(tmp_path, judged(original(tmp_path, colours, Modality="OT")))
    assert set(made) == {"report", "hand-overlay"}
    assert "x.dcm: no marks for it" in caplog.text


# ---------------------------------------------------------------------------------- identity

LONG_STUDY = {
    "StudyDate": "20200102",
    "StudyTime": "030405",
    "StudyID": "S-77",
    "AccessionNumber": "ACC-55",
    "ReferringPhysicianName": "Referrer^Rita",
    "StudyDescription": "Hand after fall, Invented",
    "PatientComments": "Person of interest",
    "PatientAge": "119Y",
    "PatientSex": "F",
    "InstitutionName": "Somewhere Clinic",
    "OperatorsName": "Operator^Otto",
    "StationName": "STATION9",
}
STUDY_WORDS = ("S-77", "ACC-55", "Referrer", "after fall", "119Y", "20200102", "030405")
NEVER = ("Somewhere", "Otto", "STATION9")
"""What belongs to the modality that made the original, and not to its patient or study."""


def test_by_default_nothing_names_the_patient(tmp_path):
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


def test_kept_identifiers_are_those_of_patient_and_study(tmp_path):
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
def test_names_keep_their_characters(tmp_path, characters, name, syntax):
    path = original(tmp_path, syntax=syntax, SpecificCharacterSet=characters, PatientName=name)
    made = objects(tmp_path, judged(path), identifiers="keep")
    assert len(made) == 3
    for ds in made.values():
        assert ds.SpecificCharacterSet == characters
        assert str(ds.PatientName) == name


def test_undeclared_characters_go_through_byte_by_byte(tmp_path):
    path = original(tmp_path, PatientName="Muller^X")
    path.write_bytes(path.read_bytes().replace(b"Muller^X", b"M\xfcller^X"))
    objects(tmp_path, judged(path), identifiers="keep")
    for file in (tmp_path / "objects").iterdir():
        assert b"M\xfcller^X" in file.read_bytes()


@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_malformed_values_are_neither_quoted_nor_a_reason_to_stop(
    tmp_path, caplog, capsys, identifiers
):
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
    told = "".join(r.getMessage() for r in caplog.records if r.name.startswith("pipeline"))
    told += "".join(capsys.readouterr())
    assert "1901" not in told
    assert "Inven" not in told


# ---------------------------------------------------------------------------------- which object


def test_all_kinds_join_the_study_in_a_series_each(tmp_path):
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


def test_the_same_run_again_gives_the_same_uids_and_any_other_gives_others(tmp_path):
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
        uids(tmp_path, judged(path, flags=[Flag("blank", "nothing there")])),
        uids(tmp_path, judged(path), identifiers="keep"),
        uids(tmp_path, judged(path), contour=0.3),
        uids(tmp_path, judged(path), operating_point="balanced"),
    ]
    instances = [found[kind][1] for found in (first, *others) for kind in KINDS]
    assert len(set(instances)) == len(instances)


def test_no_instance_is_in_two_series(tmp_path):
    """Other weights beside those that spoke are another run, and so another series."""
    path = original(tmp_path)
    first = uids(tmp_path, judged(path))
    writer = DicomWriter(tmp_path / "more", RunConfig(), DIGESTS | {"fracture-elbow": "5" * 64})
    writer.write(judged(path)[0])
    second = [dcmread(file) for file in (tmp_path / "more").iterdir()]
    assert not {series for series, _ in first.values()} & {ds.SeriesInstanceUID for ds in second}
    assert not {uid for _, uid in first.values()} & {ds.SOPInstanceUID for ds in second}


def test_the_time_is_told_in_the_zone_of_the_original(tmp_path):
    made = objects(tmp_path, judged(original(tmp_path, TimezoneOffsetFromUTC="+0930")))
    for ds in made.values():
        assert ds.TimezoneOffsetFromUTC == "+0930"
        stem = "PresentationCreation" if ds.Modality == "PR" else "Content"
        text = f"{ds[f'{stem}Date'].value}{ds[f'{stem}Time'].value}+0930"
        told = datetime.strptime(text, "%Y%m%d%H%M%S%z")
        assert abs((datetime.now().astimezone() - told).total_seconds()) < 60


@pytest.mark.parametrize("zone", ["", "nonsense", "+9900", None])
def test_a_zone_that_is_none_is_this_machines(tmp_path, zone):
    made = objects(tmp_path, judged(original(tmp_path, TimezoneOffsetFromUTC=zone)))
    assert made["report"].TimezoneOffsetFromUTC == datetime.now().astimezone().strftime("%z")


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_what_cannot_be_referred_to_gets_nothing(tmp_path, caplog, keyword, identifiers):
    path = original(tmp_path)
    ds = dcmread(path)
    delattr(ds, keyword)
    ds.save_as(path)
    assert objects(tmp_path, judged(path), identifiers=identifiers) == {}
    assert f"x.dcm: found no {keyword}: no DICOM object of it" in caplog.text
    assert not any(word in caplog.text for word in IDENTIFIERS)


def test_a_uid_that_is_none_gets_nothing_and_is_not_quoted(tmp_path, caplog):
    path = original(tmp_path, StudyInstanceUID=None)
    ds = dcmread(path)
    ds.add_new("StudyInstanceUID", "LO", PATIENT_NAME)
    ds.save_as(path)
    assert objects(tmp_path, judged(path)) == {}
    told = [r.getMessage() for r in caplog.records if r.name.startswith("pipeline")]
    assert told[-1] == "x.dcm: found a StudyInstanceUID that is none: no DICOM object of it"


def test_a_file_that_changed_or_went_gets_nothing(tmp_path, caplog):
    path = original(tmp_path)
    outcomes = judged(path)
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert objects(tmp_path, outcomes) == {}
    assert "x.dcm: found another content than was judged" in caplog.text
    path.unlink()
    assert objects(tmp_path, outcomes) == {}
    assert "x.dcm: found a file that cannot be read" in caplog.text


def test_a_header_that_breaks_the_maker_costs_its_own_picture_only(tmp_path, caplog):
    bad = original(tmp_path, SOPClassUID="2.25.99", name="bad.dcm")  # no class of the standard
    good = original(tmp_path, name="good.dcm", SOPInstanceUID="2.25.1005")
    writer = DicomWriter(tmp_path / "objects", RunConfig(identifiers="keep"), DIGESTS)
    for path in (bad, good):
        writer.write(judged(path)[0])
    assert len(list((tmp_path / "objects").iterdir())) == 3
    assert "bad.dcm: found a header of which none can be made (KeyError)" in caplog.text
    assert PATIENT_ID not in caplog.text
    assert writer.summary.endswith("; pictures without: not possible (see the warnings) 1")


def test_other_files_and_pictures_without_a_verdict_are_counted(tmp_path):
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
        "pictures without: no DICOM picture 2, no verdict 1"
    )


def test_originals_stay_as_they_are(tmp_path):
    path = original(tmp_path)
    before = path.read_bytes()
    objects(tmp_path, judged(path), identifiers="keep")
    assert path.read_bytes() == before
