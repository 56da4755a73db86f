"""The options of ``fxpipe export --fused``, and the export that they start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..bundle import Precision
from ..errors import UsageError
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption, only_one

if TYPE_CHECKING:
    from stages.export.fused import Order

_FOLDER = PathOption(file_okay=False)
_OPTIONS = (
    click.option(
        "--fused", is_flag=True,
        help="Write all stages of --weights into one graph. Runs are exported first only if "
        "--run is given.",
    ),
    click.option(
        "--output", type=_FOLDER, help="With --fused: new weights folder.  [default: fused]"
    ),
    click.option(
        "--input", "source", type=_FOLDER, multiple=True, callback=only_one,
        help="With --fused: pictures on which the graph is compared with the stages.  "
        "[default: samples/ next to the weights folder]",
    ),
    click.option(
        "--triton", type=_FOLDER,
        help="With --fused: model repository of Triton Inference Server to add the model fxpipe "
        "to; fp16 unless another precision is given.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FusedOptions:
    """The values of the options."""

    fused: bool
    output: Path | None
    source: Path | None
    triton: Path | None

    def __post_init__(self) -> None:
        values = {"--output": self.output, "--input": self.source, "--triton": self.triton}
        unused = [name for name, value in values.items() if value is not None]
        if unused and not self.fused:
            raise UsageError(f"{' and '.join(unused)}: no effect without --fused", "add --fused")


def options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which passes their values to :class:`FusedOptions`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def make_order(given: FusedOptions, weights: Path, precisions: tuple[str, ...]) -> Order:
    """The requested export, checked as far as possible before anything is computed.

    Args:
        given: Options.
        weights: Folder with the stages; it may not exist yet.
        precisions: Precisions to write; empty for all that are complete.

    Raises:
        UsageError: A target folder is not empty, or no pictures exist for the comparison.
    """
    with needs("evaluate"):
        from stages.export.fused import Order, refuse_targets
    source = given.source or weights.resolve().parent / "samples"
    if given.source is None and not source.is_dir():
        raise UsageError(
            f"there is no samples/ next to {weights}; the comparison of the graph needs pictures",
            "name a folder of radiographs with --input",
        )
    output = given.output or Path("fused")
    order = Order(tuple(map(Precision, precisions)), source, output, given.triton)
    refuse_targets(order)
    return order


def fuse(order: Order, weights: Path) -> None:
    """Write the fused folder and, if requested, the model repository; print the comparison."""
    from stages.export.fused import fuse_weights

    with on_stderr(None, False, "precisions compared") as progress:
        rows = fuse_weights(weights, order, progress)
    for row in rows:
        click.echo(str(row))
    click.echo(f"{order.target}: written; use it with `fxpipe run --weights {order.target}`")
    if order.triton is not None:
        click.echo(f"{order.triton}: written; `tritonserver --model-repository {order.triton}`")
