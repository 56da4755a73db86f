"""Content and references of the DICOM objects of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dicom_results import DIGESTS, KINDS, PIXELS, judged, objects, original
from factories import compressed, dicom, lut, ramp
from highdicom import sr
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEGLosslessSV1,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
from unusual_files import changed, item, with_value
from unusual_files import groups as functional_groups

from pipeline.domain import Flag
from pipeline.heatmap import contours, overlay
from pipeline.io.grey import display_values
from pipeline.report.dicom import codes
from pipeline.report.record import caption


def content(report: Dataset) -> sr.MeasurementReport:
    parsed = sr.ComprehensiveSR.from_dataset(report).content
    assert isinstance(parsed, sr.MeasurementReport)
    return parsed


def groups(report: Dataset) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    return content(report).get_image_measurement_groups()


def texts(report: Dataset) -> list[str]:
    """Every free text in a report."""
    values = []
    stack = [report]
    while stack:
        item = stack.pop()
        stack += item.get("ContentSequence", [])
        values += [item.TextValue] if "TextValue" in item else []
    return values


# ---------------------------------------------------------------------------------- report


def test_report_has_finding_site_observer_and_is_unverified(tmp_path):
    path = original(tmp_path, ImageLaterality="L")
    report = objects(tmp_path, judged(path))["report"]
    assert (report.CompletionFlag, report.PreliminaryFlag) == ("COMPLETE", "PRELIMINARY")
    assert report.VerificationFlag == "UNVERIFIED"
    assert (report.Modality, report.Manufacturer) == ("SR", "fxpipe")
    (group,) = groups(report)
    (site,) = group.finding_sites
    assert site.topographical_modifier is None
    assert site.value == codes.SITES["hand"]
    assert site.laterality == codes.SIDES["L"]
    measured = {m.name.meaning: (float(m.value), m.unit.value) for m in group.get_measurements()}
    assert measured == {
        "Probability": (0.9, "1"),
        "Probability from which positive": (0.5, "1"),
        "Probability from which uncertain": (0.3, "1"),
    }
    evaluations = {e.name.value: e.value.value for e in group.get_qualitative_evaluations()}
    assert evaluations == {"125605004": "52101004", "VERDICT": "POSITIVE"}
    assert group.finding_type is None
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == "2.25.1001"
    assert image.referenced_frame_numbers is None
    (observer,) = content(report).get_observer_contexts()
    assert observer.observer_type.meaning == "Device"
    comments = texts(report)
    assert f"bundle fracture-hand sha256 {DIGESTS['fracture-hand']}" in comments
    assert "balanced: positive from 0.500, uncertain from 0.300" in comments
    assert any("not a medical device" in text for text in comments)
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
def test_verdict_is_encoded_as_presence(tmp_path, probability, presence, verdict, target):
    outcomes = judged(original(tmp_path), {"hand": probability}, target=target)
    made = objects(tmp_path, outcomes)
    evaluations = [
        (e.name.meaning, e.value.meaning)
        for e in groups(made["report"])[0].get_qualitative_evaluations()
    ]
    finding = {"fracture": "Fracture of bone", "abnormality": "Abnormality"}[target]
    assert evaluations == [(finding, presence), ("Verdict of fxpipe", verdict)]


def test_abnormality_is_not_called_a_fracture(tmp_path):
    digests = {"region": "1" * 64, "abnormality-hand": "2" * 64}
    objects(tmp_path, judged(original(tmp_path), target="abnormality", digests=digests))
    files = list((tmp_path / "objects").iterdir())
    assert len(files) == 3
    for file in files:
        assert b"racture" not in file.read_bytes().replace(b"bundle fracture-hand", b"")


def test_specialists_have_separate_groups_and_overlays_and_one_state(tmp_path):
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


def test_sites_of_the_specialist_for_all_regions_are_from_the_router(tmp_path):
    path = original(tmp_path)
    (group,) = groups(objects(tmp_path, judged(path, {"all": 0.9}))["report"])
    assert group.finding_sites == []
    outcomes = judged(path, {"all": 0.9}, fired={"elbow": 0.7, "hand": 0.9, "shoulder": 0.1})
    (group,) = groups(objects(tmp_path, outcomes)["report"])
    assert [site.value.meaning for site in group.finding_sites] == ["Hand", "Elbow joint"]


def test_flags_and_regions_without_specialist_are_comments(tmp_path):
    outcomes = judged(
        original(tmp_path),
        flags=[Flag("body-part-differs", "the header says KNEE – the picture looks like a hand")],
        fired={"hand": 0.9, "elbow": 0.8},
    )
    words = texts(objects(tmp_path, outcomes)["report"])
    assert "the header says KNEE ? the picture looks like a hand" in words
    assert "elbow: recognised, but there is no specialist" in words


@pytest.mark.parametrize(
    ("header", "side"),
    [({}, None), ({"Laterality": "R"}, "Right"), ({"ImageLaterality": "U"}, None)],
)
def test_side_is_from_the_header(tmp_path, header, side):
    made = objects(tmp_path, judged(original(tmp_path, **header)))
    laterality = groups(made["report"])[0].finding_sites[0].laterality
    assert (laterality.meaning if laterality else None) == side
    assert made["hand-overlay"].get("ImageLaterality") == (side[0] if side else None)


# ---------------------------------------------------------------------------------- overlay


def test_overlay_shows_picture_heatmap_and_caption(tmp_path):
    (outcome,) = judged(original(tmp_path))
    capture = objects(tmp_path, [outcome], contour=0.4, opacity=0.5)["hand-overlay"]
    finding = outcome.findings[0]
    assert outcome.rendered is not None
    assert finding.heatmap is not None
    expected = overlay(outcome.rendered, finding.heatmap, 0.4, 0.5, caption(finding))
    assert np.array_equal(capture.pixel_array, np.asarray(expected))
    assert capture.PhotometricInterpretation == "RGB"
    assert capture.ImageType[0] == "DERIVED"
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.1001"
    assert capture.DerivationDescription == caption(finding)


@pytest.mark.parametrize("burned_in", ["NO", None, "MAYBE"])
def test_burned_in_annotation_is_copied_only_if_no(tmp_path, burned_in):
    capture = objects(tmp_path, judged(original(tmp_path, BurnedInAnnotation=burned_in)))
    value = capture["hand-overlay"].get("BurnedInAnnotation")
    assert value == ("NO" if burned_in == "NO" else None)


def test_burned_in_name_prevents_the_overlay_unless_identifiers_are_kept(tmp_path, caplog):
    outcomes = judged(original(tmp_path, BurnedInAnnotation="YES"))
    assert set(objects(tmp_path, outcomes)) == {"report", "marks"}
    assert "x.dcm: no overlay was written" in caplog.text
    kept = objects(tmp_path, outcomes, identifiers="keep")
    assert kept["hand-overlay"].BurnedInAnnotation == "YES"


def test_only_the_report_without_a_heatmap(tmp_path):
    assert set(objects(tmp_path, judged(original(tmp_path), heatmaps=False))) == {"report"}


# ---------------------------------------------------------------------------------- marks


@pytest.mark.parametrize("pixels", [PIXELS, ramp(40, 3200, 0, 4095)])
def test_marks_are_the_contours_in_source_pixels(tmp_path, pixels):
    (outcome,) = judged(original(tmp_path, pixels))
    state = objects(tmp_path, [outcome], contour=0.6)["marks"]
    assert state.SOPClassUID.name == "Grayscale Softcopy Presentation State Storage"
    (annotation,) = state.GraphicAnnotationSequence
    heatmap = outcome.findings[0].heatmap
    assert heatmap is not None
    expected = contours(heatmap, 0.6)
    assert len(annotation.GraphicObjectSequence) == len(expected) > 0
    for graphic, line in zip(annotation.GraphicObjectSequence, expected, strict=True):
        assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
        points = np.reshape(graphic.GraphicData, (-1, 2))
        assert np.allclose(points, line[:, ::-1], atol=1e-3)
        assert np.array_equal(points[0], points[-1])
        assert (points <= [pixels.shape[1], pixels.shape[0]]).all()
    (text,) = annotation.TextObjectSequence
    assert text.UnformattedTextValue == caption(outcome.findings[0])
    (area,) = state.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaBottomRightHandCorner == [pixels.shape[1], pixels.shape[0]]


@pytest.mark.parametrize(
    ("pixels", "header", "square", "aspect"),
    [
        (PIXELS[::2], {"PixelAspectRatio": [2, 1]}, (96, 80), [2, 1]),
        (PIXELS[:, ::2], {"ImagerPixelSpacing": [0.1, 0.2]}, (96, 80), [1, 2]),
        (PIXELS, {"PixelSpacing": [0.15, 0.1]}, (144, 80), [3, 2]),
        (PIXELS, {}, (96, 80), [1, 1]),
    ],
)
def test_marks_are_in_original_pixels_even_if_not_square(tmp_path, pixels, header, square, aspect):
    (outcome,) = judged(original(tmp_path, pixels, **header))
    made = objects(tmp_path, [outcome], contour=0.6)
    state, heatmap = made["marks"], outcome.findings[0].heatmap
    assert heatmap is not None
    assert heatmap.placement.source_shape == square
    (area,) = state.DisplayedAreaSelectionSequence
    assert area.PresentationPixelAspectRatio == aspect
    assert area.DisplayedAreaBottomRightHandCorner == [pixels.shape[1], pixels.shape[0]]
    factor = np.divide(pixels.shape, square)
    lines = contours(heatmap, 0.6)
    graphics = state.GraphicAnnotationSequence[0].GraphicObjectSequence
    for graphic, line in zip(graphics, lines, strict=True):
        points = np.reshape(graphic.GraphicData, (-1, 2))
        assert np.allclose(points, (line * factor)[:, ::-1], atol=1e-3)
    # The overlay is a separate picture with square pixels.
    capture = made["hand-overlay"]
    assert capture.Columns == square[1]
    assert capture.Rows > square[0]  # plus the caption below
    assert "PixelAspectRatio" not in capture


def test_marks_match_the_picture_if_the_header_swaps_its_sides(tmp_path):
    path = original(tmp_path, PIXELS)
    content = compressed(dcmread(path), JPEGLosslessSV1, tmp_path)
    path.write_bytes(changed(content, Rows=80, Columns=96))
    (outcome,) = judged(path)
    assert outcome.findings[0].heatmap.placement.source_shape == (96, 80)
    (area,) = objects(tmp_path, [outcome])["marks"].DisplayedAreaSelectionSequence
    assert area.DisplayedAreaBottomRightHandCorner == [80, 96]


def test_marks_have_the_window_of_their_frame(tmp_path):
    frames = np.stack([PIXELS, PIXELS])
    windows = [item(WindowCenter=1000, WindowWidth=800), item(WindowCenter=2000, WindowWidth=300)]
    per_frame = [functional_groups(FrameVOILUTSequence=window)[0] for window in windows]
    header = {"PerFrameFunctionalGroupsSequence": per_frame, "WindowCenter": 5, "WindowWidth": 9}
    made = objects(tmp_path, judged(original(tmp_path, frames, **header)))
    windows = [made[f"{frame}-marks"].SoftcopyVOILUTSequence[0] for frame in (0, 1)]
    assert [(voi.WindowCenter, voi.WindowWidth) for voi in windows] == [(1000, 800), (2000, 300)]


def test_table_is_copied_with_the_bits_that_it_uses(tmp_path):
    table = lut(list(range(4096)), first=0, bits=16)
    state = objects(tmp_path, judged(original(tmp_path, VOILUTSequence=table)))["marks"]
    (copy,) = state.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert copy.LUTDescriptor == [4096, 0, 12]


def test_invalid_value_that_is_not_needed_prevents_no_object(tmp_path):
    path = tmp_path / "x.dcm"
    ds = dicom(PIXELS, bits=12)
    path.write_bytes(with_value(ds, "ImagerPixelSpacing", "DS", b"0,143\\0,143"))
    assert set(objects(tmp_path, judged(path))) == {*KINDS}


def test_line_with_many_points_is_thinned_and_closed(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.report.dicom.presentation_state.MAX_POINTS", 10)
    state = objects(tmp_path, judged(original(tmp_path)))["marks"]
    graphic = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    points = np.reshape(graphic.GraphicData, (-1, 2))
    assert 4 <= len(points) <= 11
    assert np.array_equal(points[0], points[-1])


SHARP = lut([0, 0, 10, 200, 255, 255, 255, 255], first=500, bits=8)
SIGNED = (PIXELS.astype(np.int32) - 2000).astype(np.int16)
GREYS: list[dict[str, Any]] = [
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
def test_marks_give_the_grey_values_of_the_networks(tmp_path, header, pixels):
    path = original(tmp_path, pixels, **header)
    state = objects(tmp_path, judged(path))["marks"]
    ds = dcmread(path)
    expected = display_values(ds.pixel_array, ds, big_endian=False)
    for keyword in GREYS[-1].keys() ^ {key for grey in GREYS for key in grey}:
        if keyword in ds:
            delattr(ds, keyword)
    # As in a viewer, the presentation state replaces the grey-value steps of the original.
    ds.PhotometricInterpretation = "MONOCHROME2"
    for keyword in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"):
        if keyword in state:
            setattr(ds, keyword, state[keyword].value)
    ds.PresentationLUTShape = state.PresentationLUTShape
    for element in state.SoftcopyVOILUTSequence[0]:
        ds[element.tag] = element
    displayed = display_values(ds.pixel_array, ds, big_endian=False)
    assert np.abs(displayed - expected).max() < 1e-3


def test_tables_of_a_big_endian_file_are_byte_swapped(tmp_path):
    table = np.arange(0, 4096, 2, dtype=">u2").tobytes()
    header = {"VOILUTSequence": lut([0] * 2048, first=700, bits=12, data=table)}
    path = original(tmp_path, syntax=ExplicitVRBigEndian, **header)
    state = objects(tmp_path, judged(path))["marks"]
    data = state.SoftcopyVOILUTSequence[0].VOILUTSequence[0].LUTData
    assert np.array_equal(np.frombuffer(data, "<u2"), np.arange(0, 4096, 2))


@pytest.mark.parametrize(
    "header", [{}, {"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage}]
)
def test_objects_of_each_frame_refer_to_it(tmp_path, header):
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
    # Each frame has a separate window, fitted to its values.
    widths = [made[f"{f}-marks"].SoftcopyVOILUTSequence[0].WindowWidth for f in range(3)]
    assert widths[0] > widths[1] > widths[2]


def test_colour_gets_no_marks_and_a_warning(tmp_path, caplog):
    colours = np.repeat((PIXELS // 16).astype(np.uint8)[..., None], 3, axis=2)
    made = objects(tmp_path, judged(original(tmp_path, colours, Modality="OT")))
    assert set(made) == {"report", "hand-overlay"}
    assert "x.dcm: no presentation state was written" in caplog.text
