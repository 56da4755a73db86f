"""The results as one HTML page that opens from disk and needs no network.

The page is written during the run: first the visible part with its script, then for each outcome
a block of JSON, which browsers neither run nor draw, and a block with the picture. So memory use
stays constant in fxpipe and in the browser, and the page of a killed run opens with the rows
written so far.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..config import RunConfig
from ..domain import REGIONS
from ..heatmap import coloured
from ..outcome import Outcome
from ..runtime.session import Weights
from .page_row import URGENCY, to_row, view
from .provenance import about_run, time_text
from .stream import BEGINNING, Mark
from .summary import INTENDED_USE, MEANING
from .writer import Job, StreamWriter

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = "page"
_TEMPLATE = "report.html"
_SCRIPTS = (
    "dom.js",
    "rows.js",
    "bars.js",
    "worklist.js",
    "layers.js",
    "panel.js",
    "viewer.js",
    "start.js",
)

_MODULE = re.compile(r"^(?:export |import\b(?![(.])[^;]*;.*\n)", re.MULTILINE)
"""Words of ES modules: the page of the service imports some of the scripts, this one has all.

An import ends with a semicolon, and may have several lines.
"""


class HtmlWriter(StreamWriter):
    """Writes the page; every row is flushed before the next picture.

    Args:
        path: The file; an existing one is replaced.
        root: See :func:`pipeline.report.record.to_record`.
        weights: Every network of the run.
        config: Settings of the run.
        after: Position where the page of an unfinished run continues.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        weights: Weights,
        config: RunConfig,
        after: Mark = BEGINNING,
    ) -> None:
        self._root = root
        self._level = config.contour
        self._count = after.rows
        head = "" if after.size else _head(weights, config) + "\n"
        super().__init__(path, after)
        self.stream.write(head)
        self.stream.flush()

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path, job.root, job.weights, job.config, job.after(path))

    def write(self, outcome: Outcome) -> None:
        """Append one row."""
        self._block('type="application/json" class="row"', to_row(outcome, self._root, self._level))
        if outcome.rendered is not None:
            self.stream.write(
                f'<script type="text/plain" class="view">{view(outcome.rendered)}</script>\n'
            )
        self._count += 1
        self.stream.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:  # without this block the page states that its run did not finish
            finished = time_text(datetime.now().astimezone())
            end = {"finished": finished, "count": self._count}
            self._block('type="application/json" id="end"', end)
            self.stream.write("</body>\n</html>\n")
        super().__exit__(kind, error, trace)

    def _block(self, attributes: str, value: Any) -> None:
        self.stream.write(f"<script {attributes}>{script_text(value)}</script>\n")


def script_text(value: Any) -> str:
    """JSON that can neither end its script element nor open a comment in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def without_modules(source: str) -> str:
    """A script without its imports and the word ``export``, to be joined with what it imports."""
    return _MODULE.sub("", source)


def _head(weights: Weights, config: RunConfig) -> str:
    """The page up to its first row."""
    style = _source("report.css")
    script = "".join(without_modules(_source(name)) for name in _SCRIPTS)
    about = about_run(weights, config, datetime.now().astimezone())
    ramp = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None]
    facts = {
        "urgency": URGENCY,
        "regions": REGIONS,
        "opacity": config.opacity,
        "contour": config.contour,
        "heatmaps": config.shown_heatmaps,
        "colours": base64.b64encode(coloured(ramp, 1.0)[..., :3].tobytes()).decode("ascii"),
    }
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            about=about,
            answers=URGENCY,
            intended_use=INTENDED_USE,
            meaning=MEANING,
            facts=_safe(script_text(facts)),
            style=_safe(style),
            script=_safe(script),
            # Digests, so that nothing else on the page can be used as style or script.
            style_source=_source_digest(style),
            script_source=_source_digest(script),
        )
    )


def _environment() -> Environment:
    # Imported here, because only a report needs templates.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__, _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    """A file next to the template, with line ends as the browser normalises them."""
    return files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")


def _safe(text: str) -> Any:
    """Text from fxpipe itself that is inserted into the page without escaping."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - no part of it comes from an input


def _source_digest(text: str) -> str:
    """The digest of an inline text, as a source of a content security policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
