"""Outcomes from the database, as a run on the same file would give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..domain import Outcome
from ..outcome_json import from_json
from ..source import NamedBytes


def restored(values: Mapping[str, Any], judged_as: str, name: str, *, identity: bool) -> Outcome:
    """The outcome of a picture under the name of an arrival, without heatmaps.

    Args:
        values: By :func:`pipeline.outcome_json.to_json`.
        judged_as: Name of the job: messages begin with it.
        name: Of the arrival.
        identity: Whether to keep identifiers.
    """
    outcome = from_json(values, NamedBytes(name, b""))
    error = None if outcome.error is None else renamed(outcome.error, judged_as, name)
    return replace(outcome, error=error, identity=outcome.identity if identity else None)


def at(outcome: Outcome, path: Path) -> Outcome:
    """The outcome with a file that can be read again."""
    return replace(outcome, image=replace(outcome.image, path=path))


def renamed(message: str, before: str, after: str) -> str:
    """A message about a file under another name, if it begins with the name."""
    return after + message[len(before) :] if message.startswith(f"{before}:") else message
