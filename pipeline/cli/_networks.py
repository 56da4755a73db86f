"""Opens the networks of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..config import RunConfig
from ..runtime.session import Weights, load_bundles
from ._weights_folder import weights_line


def open_networks(folder: Path, config: RunConfig, quiet: bool) -> Weights:
    """Open all networks, and print where they come from."""
    networks = load_bundles(folder, config)
    if not quiet:
        click.echo(weights_line(folder, networks))
    if networks.gate_warning:
        logging.getLogger(__name__).warning("%s", networks.gate_warning)
    return networks
