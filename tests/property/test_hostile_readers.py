"""Whatever a file holds, it is a picture or refused in words.

In CI for some seconds. For long: ``pytest --hypothesis-profile=long --hypothesis-seed=N`` with this
file; a decoder that crashes takes pytest with it, and the last line it has written says which
seed it was busy with.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from damaged_files import mutants, seeds
from factories import IDENTIFIERS
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ImageError
from pipeline.flags import quality
from pipeline.io import decode, dicom, raster
from pipeline.preprocess import PreprocessSpec, preprocess
from pipeline.render import render

SPEC = PreprocessSpec(height_px=32, width_px=32)
MOST_S = 20.0
"""For one file of a few kB, on any machine that tests run on."""

AT_ONCE = 50
"""Files for each example of hypothesis, which takes longer to make one than a file to be read."""

TOLD = os.environ.get("FXPIPE_FUZZ_LOG")


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    """Headers that promise millions of pixels are others' tests, and take their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "MAX_PIXELS", 10**6)
        patch.setattr(dicom, "MAX_PIXELS", 10**6)
        yield


def read(content: bytes) -> int:
    """All that a run does with a file; how many pictures came out."""
    pictures, refusal = 0, "x.dcm: found a picture, expected one"
    try:
        with closing(decode(content, Path("x.dcm"), "")) as images:
            for image in islice(images, 5):
                pictures += 1
                array, _ = preprocess(image.pixels, SPEC)
                assert np.isfinite(array).all()
                quality(image.pixels)
                render(image.pixels)
    except ImageError as error:
        refusal = str(error)
    assert refusal.startswith("x.dcm: ")
    assert "expected " in refusal
    assert not [word for word in IDENTIFIERS if word in refusal]
    return pictures


@pytest.mark.parametrize("kind", seeds())
def test_the_seeds_are_pictures(kind):
    assert read(seeds()[kind]) == {"tiff pages": 2, "dicom frames": 2}.get(kind, 1)


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(seeds())), seed=st.integers(0, 2**64 - 1))
def test_damaged_files_are_pictures_or_refused_in_words(kind, seed):
    if TOLD:
        Path(TOLD).write_text(f"{kind} {seed}\n")
    for content in mutants(kind, seed, AT_ONCE):
        started = time.perf_counter()
        read(content)
        assert time.perf_counter() - started < MOST_S, content
