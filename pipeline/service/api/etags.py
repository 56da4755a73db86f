"""ETags of resources that change, and conditional requests (RFC 9110)."""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from .problems import ProblemError

IfMatch = Annotated[str | None, Header(max_length=1024)]


def etag(resource: BaseModel) -> str:
    """A strong ETag of the current state of a resource."""
    text = json.dumps(resource.model_dump(mode="json"), sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'


def check_match(if_match: str | None, resource: BaseModel) -> None:
    """Refuse to change a resource that has changed since the client read it; requires If-Match.

    Raises:
        ProblemError: 412.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag(resource) not in [tag.strip() for tag in if_match.split(",")]:
        raise ProblemError(
            HTTPStatus.PRECONDITION_FAILED, "the resource has changed since you read it"
        )
