"""Recognises the URLs of remote inputs."""

from __future__ import annotations

import re

_URL = re.compile(r"[a-z][a-z0-9+.-]+://.+", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether an input is a URL such as ``s3://bucket/export/``."""
    return _URL.fullmatch(text) is not None
