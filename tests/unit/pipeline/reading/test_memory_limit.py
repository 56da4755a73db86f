"""The memory limit of a worker, measured in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
MB = 10**6

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits data memory")


def in_process(code: str) -> dict[str, int | bool]:
    """Run code after ``allowance = Allowance()``; ``output``, as it leaves it."""
    script = (
        "import json, resource\n"
        "from pipeline.reading.memory_limit import Allowance, data_bytes\n"
        "def limit(): return resource.getrlimit(resource.RLIMIT_DATA)[0]\n"
        "def fits(size):\n"
        "    try: return bool(bytearray(size))\n"
        "    except MemoryError: return False\n"
        "before, allowance, output = data_bytes(), Allowance(), {}\n"
        f"{code}\n"
        "print(json.dumps(output))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    output: dict[str, int | bool] = json.loads(done.stdout)
    return output


def test_limit_is_what_the_process_uses_plus_the_allowance():
    output = in_process(
        "allowance.allow(10**6, 10**6)\n"
        "output |= {'limit': limit(), 'before': before, 'extra': allowance.extra}"
    )
    assert output["limit"] - output["before"] - output["extra"] in range(-MB, MB)
    assert output["extra"] > 160 * MB


def test_allocation_above_the_limit_fails_and_a_larger_limit_permits_it():
    output = in_process(
        "allowance.allow(0)\n"
        "output['small'], output['large'] = fits(10**8), fits(4 * 10**8)\n"
        "allowance.allow(10**8)\n"
        "output['after_raising'] = fits(4 * 10**8)\n"
        "allowance.allow(0)\n"
        "output['after_lowering'] = fits(4 * 10**8)"
    )
    assert output == {
        "small": True,
        "large": False,
        "after_raising": True,
        "after_lowering": False,
    }


@pytest.mark.parametrize("argument", ["10**7", "0, 10**7"], ids=["file", "pixels"])
def test_allowance_grows_with_file_and_pixels(argument):
    output = in_process(
        "allowance.allow(0); output['none'] = allowance.extra\n"
        f"allowance.allow({argument}); output['some'] = allowance.extra"
    )
    # At least the content or the float32 pixels, 4 bytes each.
    assert output["some"] - output["none"] >= 4 * 10**7


def test_hard_limit_is_not_exceeded():
    output = in_process(
        "hard = data_bytes() + 10**8\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))\n"
        "allowance.allow(10**9)\n"
        "output |= {'limit': limit(), 'hard': hard}"
    )
    assert output["limit"] == output["hard"]


def test_process_that_retains_memory_has_grown():
    output = in_process(
        "output['at_start'] = allowance.grown\n"
        "retained = bytearray(2 * 10**8); output['retaining'] = allowance.grown\n"
        "del retained; output['released'] = allowance.grown"
    )
    assert output == {"at_start": False, "retaining": True, "released": False}


def test_data_bytes_counts_allocations():
    output = in_process(
        "before = data_bytes(); content = bytearray(2 * 10**8)\n"
        "output['allocated'] = data_bytes() - before"
    )
    assert output["allocated"] > 1.9 * 10**8
