"""Answers of the API with which the page shows figures, nodes and states that are hard to cause."""

from __future__ import annotations

import json
import re
from typing import Any

DAY_MS = 86_400_000
NOW_MS = 1_790_000_000_000
ATTACK = "<img src=x onerror=alert(1)>"


def rate(value: float, spread: float) -> dict[str, float]:
    """An estimate with a symmetric interval."""
    return {"value": value, "low": value - spread, "high": min(1.0, value + spread)}


QUALITY = {
    "agreement": {"n": 412, "kappa": 0.81, "low": 0.75, "high": 0.87},
    "by_region": [
        {
            "region": region, "n": n, "positives": n // 5,
            "sensitivity": rate(sensitivity, 0.06), "specificity": rate(0.93, 0.03),
            "card": {"sensitivity": rate(0.9, 0.04), "specificity": rate(0.92, 0.02)},
        }
        for region, n, sensitivity in (("elbow", 120, 0.91), ("hand", 201, 0.88))
    ],
    "weeks": [
        {
            "start": NOW_MS - 7 * DAY_MS * (12 - week), "pictures": 80 + 3 * week,
            "positive": 15 + week % 4, "unsupported": 3 + week % 3 + (9 if week > 9 else 0),
        }
        for week in range(13)
    ],
    "drift": {
        "positive": {"now": 0.19, "card": 0.17, "low": 0.14, "high": 0.21, "warn": False},
        "unsupported": {"now": 0.14, "card": 0.03, "low": 0.02, "high": 0.05, "warn": True},
    },
    "reasons": [
        {"verdict": "none", "count": 21}, {"verdict": "fracture", "count": 9},
        {"verdict": "unsure", "count": 7}, {"verdict": "wrong_region", "count": 3},
    ],
}  # fmt: skip
_NO_SHARE = {"now": None, "card": 0.03, "low": 0.02, "high": 0.05, "warn": False}
NO_QUALITY = {
    "agreement": {"n": 0, "kappa": None, "low": None, "high": None}, "by_region": [], "weeks": [],
    "drift": {"positive": _NO_SHARE, "unsupported": _NO_SHARE}, "reasons": [],
}  # fmt: skip


def picture(number: int, state: str, **values: Any) -> dict[str, Any]:
    """A row of the worklist."""
    row: dict[str, Any] = {
        "id": number, "name": f"picture-{number}.dcm", "source": "dicom", "received": NOW_MS,
        "sha256": f"{number:064x}", "state": state, "answer": None, "region": None,
        "probability": None, "study": None, "review": None, "hidden": False,
    }  # fmt: skip
    return row | values


def answered(number: int, answer: str, probability: float, **values: Any) -> dict[str, Any]:
    """A row of the worklist with an answer."""
    found = {"answer": answer, "region": "hand", "probability": probability}
    return picture(number, "answered", **found | values)


WORKLIST = [
    answered(11, "positive", 0.953, study=1, review="fracture"),
    answered(10, "positive", 0.812, study=1, review="disputed"),
    answered(9, "uncertain", 0.301, study=2, name=ATTACK),
    answered(8, "negative", 0.041, source="watch", study=3, review="none"),
    picture(7, "answered", hidden=True, source="http"),
    picture(6, "unsupported", answer="unsupported"),
    picture(5, "failed", answer="failed"),
    picture(4, "reading", source="http"),
    picture(3, "waiting", source="http"),
]
OUTBOX = [
    {
        "id": number, "uid": f"1.2.826.0.1.{number}", "kind": kind, "study": study,
        "peer": 1, "receiver": "PACS", "state": state, "tries": tries, "error": error,
        "next": NOW_MS if state == "waiting" else None,
    }
    for number, (kind, study, state, tries, error) in enumerate(
        [
            ("report", 1, "sent", 1, None), ("overlay", 1, "sent", 1, None),
            ("report", 2, "attention", 14, "association rejected: called AE title not recognized"),
            ("report", 3, "waiting", 2, "connection refused"),
        ]
    )
]  # fmt: skip
STUDY = {
    "id": 1, "key": "k", "states": {"answered": 2}, "answer": "positive", "rank": 0,
    "last_seen": NOW_MS, "stable": True, "hidden": False, "pictures": WORKLIST[:2],
    "identity": {"PatientID": ATTACK, "PatientName": "Doe^Jane", "StudyInstanceUID": "1.2.3"},
}  # fmt: skip
REVIEW = {
    "id": 3, "result": 5, "reader": "admin", "blind": True, "verdict": "fracture", "region": None,
    "marks": [], "comment": ATTACK, "supersedes": 2, "created": NOW_MS, "picture": 11,
    "answer": "positive", "found_region": "hand",
}  # fmt: skip
ENGINE = {
    "id": 1, "digest": "d", "weights": "/srv/fxpipe/weights", "version": "0.1.0",
    "state": "active", "created": NOW_MS, "judged": 5120, "waiting": 0, "loaded": True,
}  # fmt: skip
USER = {"id": 1, "name": "admin", "role": "admin", "active": True, "blind": False}
PEER = {"id": 1, "host": "10.0.0.5", "port": 104, "receive": True, "send": True, "tls": False}
PEER |= {"commitment": False, "created": NOW_MS}

ANSWERS: dict[str, Any] = {
    "/quality": QUALITY,
    "/pictures": {"pictures": WORKLIST, "next": None},
    "/outbox": {"objects": OUTBOX, "next": None},
    "/studies/1": STUDY,
    "/reviews": {
        "reviews": [REVIEW, REVIEW | {"id": 2, "verdict": "unsure", "supersedes": None}],
        "next": None,
    },
    "/engines": [ENGINE, ENGINE | {"id": 2, "state": "candidate", "judged": 200, "waiting": 12}],
    "/engines/2/comparison": {
        "pictures": 200, "agree": 188,
        "changed": [{"picture": 10, "before": "positive", "after": "uncertain"}],
    },
    "/users": [USER, USER | {"id": 2, "name": ATTACK, "role": "reader", "blind": True}],
    "/peers": [PEER | {"title": "PACS"}, PEER | {"id": 2, "title": ATTACK, "send": False}],
    "/peers/1/echo": {"ok": True, "detail": ""},
    "/peers/2/echo": {"ok": False, "detail": "connection refused"},
    "/callers": [{"title": "MODALITY1", "host": "10.0.0.77", "last": NOW_MS, "count": 4}],
    "/rules": [{"id": 1, "days": 365, "state": None}],
    "/rules/preview": {"pictures": 17},
    "/audit": {
        "entries": [
            {
                "id": 1, "at": NOW_MS, "actor": ATTACK, "action": "log in", "subject": "user/1",
                "detail": {"a": ATTACK},
            }
        ],
        "next": None,
    },
}  # fmt: skip


def answer_with(page: Any, *paths: str, **changed: Any) -> list[tuple[str, str, Any]]:
    """Answer requests of a page with the values above; return a list of requests that grows.

    Args:
        page: A page of Playwright.
        paths: Keys of the values that are used.
        changed: Values in their place, by path without slashes.
    """
    asked: list[tuple[str, str, Any]] = []

    def answering(path: str) -> Any:
        value = changed.get(path.strip("/").replace("/", "_"), ANSWERS[path])

        def answer(route: Any) -> None:
            body = route.request.post_data
            asked.append((route.request.method, path, json.loads(body) if body else None))
            route.fulfill(json=value)

        return answer

    for path in paths:
        page.route(re.compile(rf"/api/v1{re.escape(path)}(\?.*)?$"), answering(path))
    return asked
