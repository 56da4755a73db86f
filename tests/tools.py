"""Programs of other packages that tests need, such as dcmtk and Chromium."""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "dcm2pnm": "dcmtk",
    "dcmj2pnm": "dcmtk",
    "dcml2pnm": "dcmtk",
    "storescu": "dcmtk",
    "dsrdump": "dcmtk",
    "dcmpschk": "dcmtk",
    "dciodvfy": "dicom3tools",
    "identify": "imagemagick",
    "Orthanc": "orthanc",
    "chromium": "chromium",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
}
"""Debian package of each program."""
_OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome", "google-chrome-stable")}
_DAEMONS = "/usr/sbin:/usr/local/sbin"
"""Folders that the path of a user may not include."""


def find_tool(program: str) -> str | None:
    """The path of a program; None if it is not installed."""
    for name in (program, *_OTHER_NAMES.get(program, ())):
        if path := shutil.which(name) or shutil.which(name, path=_DAEMONS):
            return path
    return None


def need(program: str) -> str:
    """The path of a program; without it, the test is skipped, and fails in CI."""
    path = find_tool(program)
    if path is None:
        reason = f"{program} is not installed (Debian: {PACKAGES.get(program, program)})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
