"""Damaged files: every file is decoded, or refused with a message.

In CI this takes some seconds. For a long test, run ``pytest --hypothesis-profile=long
--hypothesis-seed=N`` on this file and set FXPIPE_FUZZ_LOG to the path of a log file. A decoder that
crashes ends pytest too; the log then contains the kind and the seed of the damaged file.
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
MAX_SECONDS = 20.0
"""Longest time for one file of a few kB, in seconds."""

FILES_PER_EXAMPLE = 50
"""Files per example of hypothesis: one example takes longer to create than a file to read."""

LOG = os.environ.get("FXPIPE_FUZZ_LOG")


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    """Lower pixel limits; other tests cover headers that declare millions of pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "MAX_PIXELS", 10**6)
        patch.setattr(dicom, "MAX_PIXELS", 10**6)
        yield


def read(content: bytes) -> int:
    """Decode and prepare a file as a run does; the number of pictures."""
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
def test_undamaged_files_are_decoded(kind):
    assert read(seeds()[kind]) == {"tiff pages": 2, "dicom frames": 2}.get(kind, 1)


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(seeds())), seed=st.integers(0, 2**64 - 1))
def test_damaged_files_are_decoded_or_refused(kind, seed):
    if LOG:
        Path(LOG).write_text(f"{kind} {seed}\n")
    for content in mutants(kind, seed, FILES_PER_EXAMPLE):
        started = time.perf_counter()
        read(content)
        assert time.perf_counter() - started < MAX_SECONDS, content
