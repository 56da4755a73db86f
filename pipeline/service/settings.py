"""Settings of the service."""

from __future__ import annotations

from pydantic import Field

from ..config import RunConfig, Settings

ROLES = ("sender", "reader", "auditor", "admin")
"""Senders deliver pictures; readers also read and review; auditors see logs and statistics; admins
may do everything."""


class ServiceConfig(Settings):
    """Settings of ``fxpipe serve``.

    Attributes:
        run: Settings of the engine.
        most_waiting: Maximum number of waiting pictures; more are refused with 429 or 0xA700.
        most_bodies: Maximum number of concurrent uploads.
        most_bytes: Largest upload in bytes.
        reserve_bytes: Free disk space in bytes below which no picture is accepted.
        stable_s: Seconds without a new picture after which a study is complete.
        accept_any: Whether every DICOM node may send pictures, not only the peers.
        associations: Maximum number of concurrent DICOM associations.
        first_retry_s: Seconds of pause after the first failure to send; doubled after each failure.
        most_retry_s: Seconds of the longest pause.
        retry_h: Hours after which an object that cannot be sent needs attention.
        idle_s: Seconds without a request after which a login ends.
        session_s: Maximum duration of a login in seconds.
    """

    run: RunConfig = RunConfig()
    most_waiting: int = Field(default=20_000, ge=1)
    most_bodies: int = Field(default=64, ge=1, le=1024)
    most_bytes: int = Field(default=2**29, ge=2**10)
    reserve_bytes: int = Field(default=2**29, ge=0)
    stable_s: float = Field(default=60.0, ge=0.0)
    accept_any: bool = False
    associations: int = Field(default=32, ge=1, le=512)
    first_retry_s: float = Field(default=10.0, gt=0.0)
    most_retry_s: float = Field(default=3600.0, gt=0.0)
    retry_h: float = Field(default=72.0, ge=0.0)
    idle_s: float = Field(default=1800.0, gt=0.0)
    session_s: float = Field(default=43_200.0, gt=0.0)


def engine_config(config: RunConfig) -> RunConfig:
    """The settings of a run, extended by the outputs that page and DICOM objects need."""
    return config.model_copy(update={"identifiers": "keep", "heatmaps": "all"})
