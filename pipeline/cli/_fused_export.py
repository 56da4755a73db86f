"""What ``fxpipe export --fused`` adds to ``fxpipe export``: its options, and what they do."""

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
        help="Write every stage of --weights into one graph; runs are exported first only if "
        "--run is given.",
    ),
    click.option(
        "--output", type=_FOLDER, help="With --fused: new weights folder.  [default: fused]"
    ),
    click.option(
        "--input", "source", type=_FOLDER, multiple=True, callback=only_one,
        help="With --fused: pictures on which the graph is compared with the stages.  "
        "[default: samples/ beside the weights folder]",
    ),
    click.option(
        "--triton", type=_FOLDER,
        help="With --fused: model repository of Triton Inference Server that gets the model "
        "fxpipe; fp16 unless another precision is named.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were given."""

    fused: bool
    output: Path | None
    source: Path | None
    triton: Path | None

    def __post_init__(self) -> None:
        named = {"--output": self.output, "--input": self.source, "--triton": self.triton}
        idle = [name for name, value in named.items() if value is not None]
        if idle and not self.fused:
            raise UsageError(f"{' and '.join(idle)} without --fused changes nothing", "add --fused")


def options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as arguments of :class:`Given`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def make_order(given: Given, weights: Path, precisions: tuple[str, ...]) -> Order:
    """What is wanted, checked as far as it can be before anything is computed.

    Args:
        given: Options.
        weights: Folder with stages, perhaps still to be made.
        precisions: Which are wanted; none for all that are complete.

    Raises:
        UsageError: A target holds something already, or there are no pictures to compare on.
    """
    with needs("evaluate"):
        from stages.export.fused import Order, refuse_targets
    source = given.source or weights.resolve().parent / "samples"
    if given.source is None and not source.is_dir():
        raise UsageError(
            f"no samples/ beside {weights}, wanted pictures to compare the graph on",
            "name a folder of radiographs with --input",
        )
    output = given.output or Path("fused")
    order = Order(tuple(map(Precision, precisions)), source, output, given.triton)
    refuse_targets(order)
    return order


def fuse(order: Order, weights: Path) -> None:
    """Write the fused folder, and the model repository if one is wanted; say what came of it."""
    from stages.export.fused import fuse_weights

    with on_stderr(None, False, "precisions compared") as progress:
        rows = fuse_weights(weights, order, progress)
    for row in rows:
        click.echo(str(row))
    click.echo(f"{order.target}: written; use it with `fxpipe run --weights {order.target}`")
    if order.triton is not None:
        click.echo(f"{order.triton}: written; `tritonserver --model-repository {order.triton}`")
