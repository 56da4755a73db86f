"""Model cards: Markdown beside each bundle, made from its contract and from an evaluation of it.

No figure in a card is typed. What a card says of data, recipe and thresholds comes from the
contract inside the bundle; what it says of performance comes from the ``evaluation.json`` of
``fxpipe evaluate``, and only if that evaluation was of these very files. What cards need of it is
kept beside the manifest, so that they can be written again without it. Sections as in model cards
(Mitchell et al. 2019, arXiv 1810.03993).
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

from .evaluation.evaluate import SCHEMA
from .evaluation.headlines import figure_name, words
from .evaluation.under_shift import WIDE_PANEL, panels, shift_note

log = logging.getLogger(__name__)

CARD, TRIED, MEASURED, NOTICE = "README.md", "tried.json", "evaluation.json", "NOTICE.md"
SINGLE_LOOK = "evaluation-single-look.json"
NOT_KEPT = ("cross_region", "subgroups", "risk_coverage", "studies")
"""Chapters of an evaluation that no card shows."""
UNMEASURED = "Not measured yet"
"""In place of figures."""
SHOWN = ("auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity",
         "ppv", "npv", "kappa", "brier", "ece")  # fmt: skip
GRAVE = 20
"""Fractured pictures below which a card warns that its figures say little."""


def write_cards(
    weights: Path,
    evaluation: Path | None,
    tried: Sequence[Mapping[str, Any]] | None,
    single_look: Path | None = None,
) -> list[Path]:
    """Write a card into each bundle's folder, and ``README.md``, which gathers them.

    Args:
        weights: Folder with a manifest. Its ``NOTICE.md``, if any, ends every card: licences and
            whatever else only people know.
        evaluation: An ``evaluation.json`` of these weights; without it the one that is kept beside
            the manifest is used. Where there is none either, the cards say that nothing was
            measured.
        tried: Rows of :func:`stages.tried.side_by_side`, kept in ``tried.json`` beside the
            manifest; without them the ones kept there are used.
        single_look: An ``evaluation.json`` of the same pictures with one look each, kept and
            used likewise.

    Returns:
        The files written.

    Raises:
        BundleError: The weights folder is damaged, or holds a fused graph.
        ConfigError: An evaluation is of other files, or unreadable; or there is none, and the
            cards would lose the figures that they hold; or ``single_look`` is of several looks, or
            of other pictures.
    """
    found = dict(_contracts(weights))
    if tried is None and (weights / TRIED).is_file():
        tried = json.loads((weights / TRIED).read_text(encoding="utf-8"))
    measured = _read(evaluation, weights) if evaluation else _kept(weights, found)
    once = _once(weights, single_look, measured)
    # Written when everything was found in order: a listed file that changed is refused by a run.
    for name, content in ((TRIED, tried), (MEASURED, measured), (SINGLE_LOOK, once)):
        if content is not None:
            write_json(weights / name, content)
    environment = Environment(  # noqa: S701  (Markdown, not HTML)
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "named": figure_name}
    # Many passes a picture are long under many shifts: those of a single look stand in.
    shifted = next((each for each in (measured, once) if each and each.get("shifts")), None)
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
        for name, (spec, _) in found.items()
        if isinstance(spec, EnsembleSpec)
        for member in spec.members
    }
    written = []
    for name, (spec, entries) in found.items():
        text = environment.get_template("card.md.j2").render(
            spec=spec,
            entries=entries,
            ensemble=ensembles.get(name),
            calibrated=_calibrated_as(spec, found.values()),
            recipe=_recipe(spec),
            **shared,
        )
        written.append(weights / name / CARD)
        written[-1].write_text(text, encoding="utf-8")
    text = environment.get_template("weights.md.j2").render(
        bundles=found, tried=tried or [], **shared
    )
    written.append(weights / CARD)
    written[-1].write_text(text, encoding="utf-8")
    refresh_manifest(weights)
    return written


def _contracts(weights: Path) -> Iterator[tuple[str, tuple[BundleSpec, list[ManifestEntry]]]]:
    """Name, contract and files of each bundle, the trunk and the router first."""
    entries: dict[str, list[ManifestEntry]] = {}
    for entry in read_staged(weights).bundles:
        entries.setdefault(entry.name, []).append(entry)
    order = list(Kind)
    for name, files in sorted(entries.items(), key=lambda x: (order.index(x[1][0].kind), x[0])):
        graph = onnx.load_from_string(read_verified(weights, files[0]))
        metadata = {prop.key: prop.value for prop in graph.metadata_props}
        yield name, (read_contract(metadata, files[0].file), files)


def _calibrated_as(
    spec: BundleSpec, found: Iterable[tuple[BundleSpec, list[ManifestEntry]]]
) -> list[str]:
    """The regions whose specialists hold the very temperature and bias of this one, it included.

    They are fitted numbers: none are equal but those that were fitted together.
    """
    if not isinstance(spec, FractureSpec | EnsembleSpec):
        return []
    pair = spec.temperature, spec.bias
    if pair == ((1.0,), (0.0,)):
        return []
    return [
        other.region
        for other, _ in found
        if isinstance(other, FractureSpec | EnsembleSpec)
        and (other.temperature, other.bias) == pair
    ]


def _recipe(spec: BundleSpec) -> dict[str, Any]:
    """The settings of the run; what it took over from another one as the bundle has it."""
    recipe = dict(spec.provenance.recipe)
    if "preprocess" in recipe:
        recipe["preprocess"] = spec.preprocess.model_dump(mode="json")
    if "train" in recipe:
        recipe["train"] = {**recipe["train"], "arch": spec.provenance.architecture}
    return recipe


def _kept(
    weights: Path, found: Mapping[str, tuple[BundleSpec, list[ManifestEntry]]]
) -> dict[str, Any] | None:
    """The evaluation that earlier cards were made of; None when nothing was measured.

    Raises:
        ConfigError: It is of other files or lost, and the cards of these files hold figures.
    """
    reason = f"{weights}: there is no {MEASURED}, from which their figures could be written again"
    if (weights / MEASURED).is_file():
        try:
            return _read(weights / MEASURED, weights)
        except ConfigError as error:
            reason = str(error)
    for name, (_, entries) in found.items():
        card = weights / name / CARD
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        of_these = any(entry.sha256[:16] in text for entry in entries)
        if of_these and "\n## Figures\n" in text and UNMEASURED not in text:
            raise ConfigError(
                f"{reason}; the card of {name} would lose the figures that it holds",
                "name the evaluation: --evaluation evaluation/evaluation.json (`fxpipe evaluate` "
                "makes one)",
            )
    if (weights / MEASURED).is_file():
        log.warning("%s; the cards hold no figures", reason)
    return None


def _once(
    weights: Path, single_look: Path | None, measured: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The evaluation with a single look at each picture; None when there is none.

    Raises:
        ConfigError: It was named, and is not an evaluation of a single look, or not of the pictures
            and settings of the figures of all looks.
    """
    source = single_look or weights / SINGLE_LOOK
    if single_look is None and not source.is_file():
        return None
    try:
        return _checked_once(source, weights, measured)
    except ConfigError as error:
        if single_look is not None:
            raise
        log.warning("%s; the cards hold no figures of a single look", error)
        return None


def _checked_once(
    source: Path, weights: Path, measured: Mapping[str, Any] | None
) -> dict[str, Any]:
    once = _read(source, weights)
    facts = once["facts"]
    if any(count != 1 for count in facts.get("looks", {"": 0}).values()):
        raise ConfigError(
            f"{source}: an evaluation of several looks, wanted one of a single look",
            "make it with `fxpipe evaluate --set looks=1`",
        )
    other = {} if measured is None else measured["facts"]
    differ = [key for key in ("table_digest", "split", "precision") if facts[key] != other.get(key)]
    points = [
        {region: point["name"] for region, point in each.get("operating_points", {}).items()}
        for each in (facts, other)
    ]
    if points[0] != points[1]:
        differ.append("operating_points")
    if differ:
        raise ConfigError(
            f"{source}: {', '.join(differ)} differ from those of the figures of all looks",
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
            f"{evaluation}: schema_version is {version}, wanted {SCHEMA}",
            "evaluate again: `fxpipe evaluate`",
        )
    strange = measured - {entry.sha256 for entry in read_manifest(weights).bundles}
    if strange:
        raise ConfigError(
            f"{evaluation}: measures files that are not in {weights} "
            f"({', '.join(sorted(digest[:12] for digest in strange))})",
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
