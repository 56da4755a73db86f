"""Model cards: Markdown files for each bundle, from its contract and its evaluation.

All figures in a card are generated. Data, recipe and thresholds come from the contract in the
bundle; performance comes from the ``evaluation.json`` of ``fxpipe evaluate``, if its digests match
the files. The required parts are stored next to the manifest, so that cards can be written again
without it. Sections follow model cards (Mitchell et al. 2019, arXiv 1810.03993).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.bundle import (
    BundleSpec,
    EnsembleSpec,
    Estimate,
    FractureSpec,
    Kind,
    read_contract,
    write_json,
)
from pipeline.domain import ANY_REGION
from pipeline.errors import ConfigError
from pipeline.weights.manifest import (
    ManifestEntry,
    read_manifest,
    read_staged,
    read_verified,
    refresh_manifest,
)

from ..evaluation.evaluate import SCHEMA
from ..evaluation.headlines import figure_name, words
from ..evaluation.under_shift import WIDE_PANEL, panels, shift_note

log = logging.getLogger(__name__)

CARD, TRIED, MEASURED, NOTICE = "README.md", "tried.json", "evaluation.json", "NOTICE.md"
SINGLE_LOOK = "evaluation-single-look.json"
NOT_KEPT = ("cross_region", "subgroups", "risk_coverage", "studies")
"""Sections of an evaluation that are not used in cards."""
UNMEASURED = "Not measured yet"
"""Replacement for missing figures."""
SHOWN = ("auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity",
         "ppv", "npv", "kappa", "brier", "ece")  # fmt: skip
GRAVE = 20
"""Number of fractured pictures below which a card warns about its figures."""


def write_cards(
    weights: Path,
    evaluation: Path | None,
    tried: Sequence[Mapping[str, Any]] | None,
    single_look: Path | None = None,
) -> list[Path]:
    """Write a card to the folder of each bundle, and a summary ``README.md``.

    Args:
        weights: Folder with a manifest. Its ``NOTICE.md``, if any, is appended to every card:
            licences and other manual notes.
        evaluation: An ``evaluation.json`` of these weights; None uses the stored one. Without
            either, the cards state that nothing was measured.
        tried: Rows of :func:`stages.experiments.crossval_table.side_by_side`, stored as
            ``tried.json`` next to the manifest; None uses the stored ones.
        single_look: An ``evaluation.json`` of the same pictures with a single look, stored and used
            in the same way.

    Returns:
        The files written.

    Raises:
        BundleError: The weights folder is damaged, or contains a fused graph.
        ConfigError: An evaluation belongs to other files or is unreadable; or it is missing and
            existing cards would lose their figures; or ``single_look`` has several looks or other
            pictures.
    """
    contracts = dict(_contracts(weights))
    if tried is None and (weights / TRIED).is_file():
        tried = json.loads((weights / TRIED).read_text(encoding="utf-8"))
    measured = _read(evaluation, weights) if evaluation else _stored(weights, contracts)
    once = _once(weights, single_look, measured)
    # Written only after all checks: a run refuses listed files that changed.
    for name, content in ((TRIED, tried), (MEASURED, measured), (SINGLE_LOOK, once)):
        if content is not None:
            write_json(weights / name, content)
    environment = Environment(  # noqa: S701  (Markdown, not HTML)
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "named": figure_name}
    # Several looks under many shifts are slow: the figures of a single look are used instead.
    shifted = next((e for e in (measured, once) if e and e.get("shifts")), None)
    under_shift = shifted and shifted["shifts"]
    notice = weights / NOTICE
    acquisitions = [row for row in tried or () if row.get("left_out")]
    shared = {
        "acquisitions": acquisitions,
        "shown": SHOWN, "grave": GRAVE, "evaluation": measured, "once": once, "kinds": Kind,
        "any_region": ANY_REGION, "unmeasured": UNMEASURED,
        "shift_panels": list(panels(under_shift, WIDE_PANEL)) if under_shift else [],
        "shift_note": _shift_note(shifted, measured) if shifted else "",
        "notice": notice.read_text(encoding="utf-8").rstrip() if notice.is_file() else "",
    }  # fmt: skip
    ensembles = {
        member: name
        for name, (spec, _) in contracts.items()
        if isinstance(spec, EnsembleSpec)
        for member in spec.members
    }
    written = []
    for name, (spec, entries) in contracts.items():
        text = environment.get_template("card.md.j2").render(
            spec=spec,
            entries=entries,
            ensemble=ensembles.get(name),
            calibrated=_calibrated_as(spec, contracts.values()),
            recipe=_recipe(spec),
            **shared,
        )
        written.append(weights / name / CARD)
        written[-1].write_text(text, encoding="utf-8")
    text = environment.get_template("weights.md.j2").render(
        bundles=contracts, tried=tried or [], **shared
    )
    written.append(weights / CARD)
    written[-1].write_text(text, encoding="utf-8")
    refresh_manifest(weights)
    return written


def _contracts(weights: Path) -> Iterator[tuple[str, tuple[BundleSpec, list[ManifestEntry]]]]:
    """Yield name, contract and files of each bundle, the trunk and the router first."""
    entries: dict[str, list[ManifestEntry]] = {}
    for entry in read_staged(weights).bundles:
        entries.setdefault(entry.name, []).append(entry)
    order = list(Kind)
    for name, files in sorted(entries.items(), key=lambda x: (order.index(x[1][0].kind), x[0])):
        graph = onnx.load_from_string(read_verified(weights, files[0]))
        metadata = {prop.key: prop.value for prop in graph.metadata_props}
        yield name, (read_contract(metadata, files[0].file), files)


def _calibrated_as(
    spec: BundleSpec, contracts: Iterable[tuple[BundleSpec, list[ManifestEntry]]]
) -> list[str]:
    """The regions whose specialists have the same temperature and bias, including this one.

    The values are fitted, so equal values mean a joint fit.
    """
    if not isinstance(spec, FractureSpec | EnsembleSpec):
        return []
    pair = spec.temperature, spec.bias
    if pair == ((1.0,), (0.0,)):
        return []
    return [
        other.region
        for other, _ in contracts
        if isinstance(other, FractureSpec | EnsembleSpec)
        and (other.temperature, other.bias) == pair
    ]


def _recipe(spec: BundleSpec) -> dict[str, Any]:
    """The settings of the run; inherited settings come from the bundle."""
    recipe = dict(spec.provenance.recipe)
    if "preprocess" in recipe:
        recipe["preprocess"] = spec.preprocess.model_dump(mode="json")
    if "train" in recipe:
        recipe["train"] = {**recipe["train"], "arch": spec.provenance.architecture}
    return recipe


def _stored(
    weights: Path, contracts: Mapping[str, tuple[BundleSpec, list[ManifestEntry]]]
) -> dict[str, Any] | None:
    """Read the stored evaluation of earlier cards; None without one.

    Raises:
        ConfigError: It is missing or belongs to other files, and existing cards contain figures.
    """
    reason = f"{weights}: contains no {MEASURED} with the figures of the cards"
    if (weights / MEASURED).is_file():
        try:
            return _read(weights / MEASURED, weights)
        except ConfigError as error:
            reason = str(error)
    for name, (_, entries) in contracts.items():
        card = weights / name / CARD
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        of_these = any(entry.sha256[:16] in text for entry in entries)
        if of_these and "\n## Figures\n" in text and UNMEASURED not in text:
            raise ConfigError(
                f"{reason}; the card of {name} would lose its figures",
                "name it: --evaluation evaluation/evaluation.json (from `fxpipe evaluate`)",
            )
    if (weights / MEASURED).is_file():
        log.warning("%s; the cards contain no figures", reason)
    return None


def _once(
    weights: Path, single_look: Path | None, measured: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Read the evaluation with a single look per picture; None without one.

    Raises:
        ConfigError: It was given explicitly and has several looks, or other pictures or settings
            than the evaluation of all looks.
    """
    source = single_look or weights / SINGLE_LOOK
    if single_look is None and not source.is_file():
        return None
    try:
        return _checked_once(source, weights, measured)
    except ConfigError as error:
        if single_look is not None:
            raise
        log.warning("%s; the cards contain no figures of a single look", error)
        return None


def _checked_once(
    source: Path, weights: Path, measured: Mapping[str, Any] | None
) -> dict[str, Any]:
    once = _read(source, weights)
    facts = once["facts"]
    if any(count != 1 for count in facts.get("looks", {"": 0}).values()):
        raise ConfigError(
            f"{source}: an evaluation of several looks, expected a single look",
            "make it with `fxpipe evaluate --set looks=1`",
        )
    other = {} if measured is None else measured["facts"]
    differences = [
        key for key in ("table_digest", "split", "precision") if facts[key] != other.get(key)
    ]
    points = [
        {region: point["name"] for region, point in facts.get("operating_points", {}).items()}
        for facts in (once["facts"], other)
    ]
    if points[0] != points[1]:
        differences.append("operating_points")
    if differences:
        raise ConfigError(
            f"{source}: {', '.join(differences)} differ from the evaluation of all looks",
            "evaluate the same table and split twice, with and without `--set looks=1`",
        )
    return once


def _read(evaluation: Path, weights: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(evaluation.read_text(encoding="utf-8"))
        version = content["schema_version"]
        measured = {bundle["sha256"] for bundle in content["facts"]["bundles"].values()}
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{evaluation}: not an evaluation: {error}", "make it with `fxpipe evaluate`"
        ) from error
    if version != SCHEMA:
        raise ConfigError(
            f"{evaluation}: schema_version is {version}, expected {SCHEMA}",
            "evaluate again: `fxpipe evaluate`",
        )
    unknown = measured - {entry.sha256 for entry in read_manifest(weights).bundles}
    if unknown:
        raise ConfigError(
            f"{evaluation}: contains figures for files that are not in {weights} "
            f"({', '.join(sorted(digest[:12] for digest in unknown))})",
            "evaluate these weights: `fxpipe evaluate --weights`",
        )
    return {name: chapter for name, chapter in content.items() if name not in NOT_KEPT}


def _shift_note(shifted: Mapping[str, Any], measured: Mapping[str, Any] | None) -> str:
    note = shift_note(shifted["shifts"], shifted["facts"]["pictures"])
    return note if shifted is measured else f"With a single look at each picture. {note}"


def _figure(estimate: Mapping[str, Any] | Estimate) -> str:
    if isinstance(estimate, Estimate):
        return words(estimate)
    return words(Estimate.model_validate(dict(estimate)))
