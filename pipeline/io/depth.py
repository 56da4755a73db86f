"""How many bits the numbers of a picture use, which is often less than their container has."""

from __future__ import annotations

from typing import SupportsInt


def bits_used(highest: SupportsInt, most: int = 16) -> int:
    """The fewest bits that hold a number, at least 8.

    Detectors with 10 to 14 bits write into 16, and their files rarely say so. Divided by 65535,
    such a picture is black to the eye; viewers show it by the range of its values.

    Args:
        highest: The greatest number of a picture or a table, not negative.
        most: The bits of the container.
    """
    return min(most, max(8, int(highest).bit_length()))


def white(highest: SupportsInt, most: int = 16) -> int:
    """The number that is shown white: the greatest one in the bits that are used."""
    return int(2 ** bits_used(highest, most) - 1)
