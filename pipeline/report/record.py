"""Conversion of an outcome to a flat record: one value for each column."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..domain import ANY_REGION, ImageRef
from ..io.own_output import OVERLAYS
from ..outcome import FractureCall, Outcome, Verdict
from .columns import COLUMNS, IDENTITY

Record = dict[str, Any]

_DECIMALS = 6
_DIRECTION_MARKS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def to_record(outcome: Outcome, root: Path) -> Record:
    """One value for each of :data:`~.columns.COLUMNS`; None for an empty cell.

    Args:
        outcome: The outcome of one input.
        root: The input folder (or the folder of the input file); paths are relative to it.

    Returns:
        Texts without control characters, numbers rounded to six decimals, and
        ``bundle_digests`` as a dict.
    """
    call, leading = outcome.region, outcome.leading
    record: Record = dict.fromkeys(COLUMNS)
    record |= {
        "path": image_text(outcome.image, root),
        "frame": outcome.image.frame,
        "sha256": outcome.image.sha256,
        "study": outcome.study,
        "status": outcome.status.value,
        "regions": ";".join(call.fired) or None if call else None,
        "header_effect": call.header_effect.value if call else None,
        "unexamined": ";".join(outcome.unexamined) or None,
        "flags": ";".join(flag.name for flag in outcome.flags) or None,
        "heatmap": ";".join(heatmap_files(outcome).values()) or None,
        "error": None if outcome.error is None else plain(outcome.error),
        "elapsed_ms": round(outcome.elapsed_ms, 3),
        "bundle_digests": dict(outcome.bundle_digests),
    }
    if outcome.identity:
        record |= {name: plain(outcome.identity.get(word) or "") or None for name, word in IDENTITY}
    if call:
        for region, probability in call.probabilities.items():
            record[f"p_{region}"] = round(probability, _DECIMALS)
        for name in ("density", "density_threshold"):
            value = getattr(call, name)
            record[name] = None if value is None else round(value, _DECIMALS)
    for finding in outcome.findings:
        if finding.region != ANY_REGION:
            record[f"verdict_{finding.region}"] = finding.verdict.value
            record[f"probability_{finding.region}"] = round(finding.probability, _DECIMALS)
    if leading:
        values = finding_record(leading)
        record |= {key: value for key, value in values.items() if key in record}
    return record


def heatmap_files(outcome: Outcome) -> dict[str, str]:
    """The overlay file of each finding with a heatmap, by region, relative to the output folder.

    The names are made from digests, so they contain no file name and no patient name.
    """
    frame = "" if outcome.image.frame is None else f"-{outcome.image.frame}"
    return {
        finding.region: f"{OVERLAYS}/{str(outcome.image.sha256)[:16]}{frame}-{finding.region}.png"
        for finding in outcome.findings
        if finding.heatmap is not None and outcome.rendered is not None
    }


def subject(finding: FractureCall) -> str:
    """Target and region of a finding: ``fracture, in a picture of the hand``.

    A label refers to any bone in the picture, so the hand itself may be intact.
    """
    place = "any region" if finding.region == ANY_REGION else f"the {finding.region}"
    return f"{finding.target}, in a picture of {place}"


def compared(finding: FractureCall) -> str:
    """The probability compared with its threshold: ``0.142 >= 0.131``."""
    sign = ">=" if finding.verdict is Verdict.POSITIVE else "<"
    return f"{finding.probability:.3f} {sign} {finding.operating_point.threshold:.3f}"


def caption(finding: FractureCall) -> str:
    """A finding in one line, with types of fracture if there are any.

    ``fracture, in a picture of the hand: positive, 0.953 (balanced: from 0.410)``
    """
    point = finding.operating_point
    return (
        f"{subject(finding)}: {finding.verdict.value}, {finding.probability:.3f} "
        f"({point.name}: from {point.threshold:.3f})"
        + "".join(f", {name} {probability:.3f}" for name, probability in finding.types.items())
    )


def finding_record(finding: FractureCall) -> Record:
    """All values of one finding, as JSON values; ``types`` only if it has any."""
    point = finding.operating_point
    return {
        "region": finding.region,
        "target": finding.target,
        "verdict": finding.verdict.value,
        "probability": round(finding.probability, _DECIMALS),
        "threshold": round(point.threshold, _DECIMALS),
        "doubt_below": round(point.doubt_below, _DECIMALS),
        "operating_point": point.name,
        **({"types": _rounded(finding.types)} if finding.types else {}),
    }


def types_text(types: Mapping[str, float]) -> str | None:
    """Types of fracture for one cell, the most probable first: ``transverse=0.812;oblique=0.104``.

    Args:
        types: Probability by type, of the most severe finding.

    Returns:
        The text; None without types.
    """
    ranked = sorted(_rounded(types).items(), key=lambda pair: -pair[1])
    return ";".join(f"{name}={probability:g}" for name, probability in ranked) or None


def _rounded(types: Mapping[str, float]) -> dict[str, float]:
    return {name: round(probability, _DECIMALS) for name, probability in types.items()}


def digests_text(digests: dict[str, str]) -> str:
    """Bundle digests for one cell: a JSON object with sorted keys."""
    return json.dumps(digests, sort_keys=True)


def image_text(image: ImageRef, root: Path) -> str:
    """The name of an image in rows: its path below ``root``, or the name of content in memory.

    Args:
        image: The image; its frame is not part of the name.
        root: See :func:`to_record`.
    """
    if image.path is not None:
        return path_text(image.path, root)
    return plain(image.name.replace("\\", "\\\\"))


def path_text(path: Path, root: Path) -> str:
    r"""A path below ``root`` with forward slashes, as printable UTF-8 text for any bytes.

    A byte that is not UTF-8 becomes ``\xNN``, a control character becomes its escape, and a
    backslash in a POSIX name is doubled, so that each text corresponds to exactly one name.
    """
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    text = relative.as_posix()
    if os.sep == "/":
        text = text.replace("\\", "\\\\")
    return plain(text)


def plain(text: str) -> str:
    """The text on one line; characters that cannot be printed or encoded become escapes."""
    return "".join(_escape(char) if is_harmful(char) else char for char in text)


def is_harmful(char: str) -> bool:
    """Whether it is a control, surrogate, line separator, or mark that changes text direction."""
    return (
        unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(char) in _DIRECTION_MARKS
    )


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python represents an undecodable byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
