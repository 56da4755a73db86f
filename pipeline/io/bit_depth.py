"""Number of bits that the values of a picture use, often fewer than their container has."""

from __future__ import annotations

from typing import SupportsInt


def bits_used(highest: SupportsInt, most: int = 16) -> int:
    """Smallest number of bits that can hold a value, at least 8.

    Detectors with 10 to 14 bits write 16-bit values, and their files rarely give the bit depth.
    Divided by 65535, such a picture would look black; viewers scale it to the range of its values.

    Args:
        highest: Largest value of a picture or a table, not negative.
        most: Bits of the container.
    """
    return min(most, max(8, int(highest).bit_length()))


def white(highest: SupportsInt, most: int = 16) -> int:
    """The value displayed as white: the largest one in the used bits."""
    return int(2 ** bits_used(highest, most) - 1)
