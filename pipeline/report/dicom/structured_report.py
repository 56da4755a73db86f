"""Findings as a structured report, TID 1500 *Measurement Report* of DICOM PS3.16."""

from __future__ import annotations

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes as dicom_codes
from pydicom.sr.coding import Code

from ...domain import ANY_REGION
from ...io.own_output import MAKER
from ...outcome import FractureCall, Outcome
from ..record import subject
from ..summary import INTENDED_USE, MEANING
from . import codes
from .object_provenance import Kind, Run, complete, identification, plain_text, tracking_uid, uid
from .origin import Origin


def structured_report(
    outcome: Outcome, origin: Origin, run: Run, number: int
) -> sr.ComprehensiveSR:
    """The report on one picture: a measurement group for each specialist, then comments.

    The presence of a fracture is a qualitative evaluation (present, undetermined, absent), never a
    *Finding*: software that only reads the findings of a report would take an absent fracture for a
    present one. The report is marked as complete, preliminary and unverified.

    Args:
        outcome: Outcome of the picture, with findings.
        origin: Original of the picture.
        run: The run.
        number: Number of the report in its series.
    """
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(run)),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=[
            _group(finding, outcome, origin, run) for finding in outcome.findings
        ],
        title=codes.TITLE,
    )
    report[0].ContentSequence.append(_comments(outcome))
    made = sr.ComprehensiveSR(
        evidence=[origin.reference],
        content=report,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=codes.PRIVATE,
                name=codes.PRIVATE_NAME,
                version=run.version,
                responsible_organization=MAKER,
            )
        ],
        **identification(Kind.REPORT, origin, outcome, run, number),
    )
    complete(made, origin, run)
    return made


def _observer(run: Run) -> sr.ObserverContext:
    """The observing device: fxpipe with these weights."""
    return sr.ObserverContext(
        observer_type=dicom_codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid("device", run.version, dict(run.digests)),
            name=MAKER,
            manufacturer_name=MAKER,
            model_name=f"{MAKER} {run.version}",
            serial_number=f"weights {run.weights}",
        ),
    )


def _group(
    finding: FractureCall, outcome: Outcome, origin: Origin, run: Run
) -> sr.MeasurementsAndQualitativeEvaluations:
    """The measurement group of one specialist."""
    point = finding.operating_point
    frame = outcome.image.frame
    measured = [(codes.PROBABILITY, finding.probability), (codes.POSITIVE_FROM, point.threshold)]
    if point.doubt_below < point.threshold:
        measured.append((codes.UNCERTAIN_FROM, point.doubt_below))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=tracking_uid(finding, outcome), identifier=subject(finding)
        ),
        algorithm_id=sr.AlgorithmIdentification(
            name=f"{MAKER} {finding.target}-{finding.region}",
            version=run.version,
            parameters=[
                f"bundle {name} sha256 {digest}"
                for name, digest in sorted(outcome.bundle_digests.items())
            ],
        ),
        finding_sites=_sites(finding, outcome),
        measurements=[
            sr.Measurement(name=name, value=round(value, 6), unit=codes.NO_UNITS)
            for name, value in measured
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                codes.TARGETS[finding.target], codes.PRESENCE[finding.verdict]
            ),
            sr.QualitativeEvaluation(codes.VERDICT, codes.VERDICTS[finding.verdict]),
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                origin.reference.SOPClassUID,
                origin.reference.SOPInstanceUID,
                None if frame is None else [frame + 1],
            )
        ],
    )
    rule = f"{point.name}: positive from {point.threshold:.3f}"
    if point.doubt_below < point.threshold:
        rule += f", uncertain from {point.doubt_below:.3f}"
    group[0].ContentSequence.append(_text(codes.OPERATING_POINT, rule))
    return group


def _sites(finding: FractureCall, outcome: Outcome) -> list[sr.FindingSite]:
    """Region of the specialist, or all recognised regions; the side only if in the header."""
    regions: tuple[str, ...] = (finding.region,)
    if finding.region == ANY_REGION:
        regions = outcome.region.fired if outcome.region else ()
    side = laterality(outcome)
    return [sr.FindingSite(codes.SITES[r], codes.SIDES[side] if side else None) for r in regions]


def laterality(outcome: Outcome) -> str | None:
    """L, R or B according to the header; None without one of these values."""
    header = outcome.header or {}
    side = header.get("ImageLaterality") or header.get("Laterality")
    return side if side in codes.SIDES else None


def _comments(outcome: Outcome) -> sr.ContainerContentItem:
    """Comments: quality warnings, regions without a specialist, meaning and intended use."""
    comments = [flag.reason for flag in outcome.flags]
    comments += [
        f"{region}: recognised, but there is no specialist" for region in outcome.unexamined
    ]
    container = sr.ContainerContentItem(
        name=codes.EVALUATIONS, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = sr.ContentSequence(
        [_text(codes.COMMENT, comment) for comment in (*comments, MEANING, INTENDED_USE)]
    )
    return container


def _text(name: Code, text: str) -> sr.TextContentItem:
    return sr.TextContentItem(
        name=name,
        value=plain_text(text),
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
