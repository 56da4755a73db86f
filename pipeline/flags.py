"""Doubts about one picture, raised before its verdict is trusted: quality, and the header's word.

A flag changes no verdict. Each rule is one function with its limit beside it; README.md explains
them to users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .domain import Array, Flag

NAMES = (
    "too-small",
    "blank",
    "inverted",
    "mostly-collimation",
    "several-exposures",
    "body-part-differs",
)


def quality(pixels: Array) -> tuple[Flag, ...]:
    """What is wrong with the picture itself.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
    """
    return ()


def reconcile(header: Mapping[str, str] | None, fired: Sequence[str] | None) -> tuple[Flag, ...]:
    """Whether the header's BodyPartExamined and the router disagree.

    Args:
        header: See :class:`pipeline.domain.XrayImage`.
        fired: The regions that the router found, none for an unsupported picture; None where
            there is no router.
    """
    return ()
