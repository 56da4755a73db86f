"""The engines of a process: the active engine, and candidates that judge in parallel.

A thread opens and closes engines according to the table of engines. All processes thus follow a
promotion, and an interrupted promotion is completed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from .. import version
from ..config import RunConfig
from ..engine import Engine
from ..errors import FxpipeError, UsageError
from ..studies import pseudonym
from . import engine_state, engine_table
from .blobs import Blobs
from .database import Database
from .engine_card import card_of
from .engine_table import NewEngine
from .judging import Judging
from .settings import ServiceConfig, engine_config
from .view_cache import ViewCache

log = logging.getLogger(__name__)

_POLL_S = 2.0
_NOT_JUDGING = {
    "batch_size", "cores", "workers", "megapixels", "isolate", "timeout_per_file_s",
    "intra_op_threads", "heatmaps", "report", "fhir", "parquet", "dicom_out", "opacity",
    "csv_bom", "contour", "identifiers", "studies", "device", "precision",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loaded:
    """An open engine.

    Attributes:
        number: Number in the table of engines.
        engine: The networks.
        judging: Processes the jobs of the engine.
    """

    number: int
    engine: Engine
    judging: Judging

    def close(self) -> None:
        """Finish the jobs in flight, and release the networks."""
        self.judging.stop()
        self.engine.close()


class Engines:
    """Runs the engines from :meth:`start` until :meth:`close`.

    Args:
        database: Jobs, results and the table of engines.
        blobs: Stored files.
        views: Cache for rendered pictures.
        config: Settings.
        owner: See :class:`.judging.Judging`.
        count: See :class:`.judging.Judging`.

    Attributes:
        owner: As given.
    """

    def __init__(
        self, database: Database, blobs: Blobs, views: ViewCache, config: ServiceConfig,
        owner: str, count: Callable[[float], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.owner, self._count = owner, count
        self._database, self._blobs, self._views, self._config = database, blobs, views, config
        self._changing = threading.Lock()
        self._loaded: dict[int, Loaded] = {}
        self._refused: set[int] = set()
        self._active: int | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="fxpipe-engines", daemon=True)

    @property
    def active(self) -> Loaded | None:
        """The engine whose results are shown; None if it is not open in this process."""
        return None if self._active is None else self._loaded.get(self._active)

    @property
    def loaded(self) -> frozenset[int]:
        """Numbers of the open engines."""
        return frozenset(self._loaded)

    def start(self, weights: Path) -> None:
        """Open the active engine, or the given weights as the first one.

        Args:
            weights: Weights folder. Unknown weights become a candidate.

        Raises:
            UsageError: The weights of the active engine have changed.
            StartError: They cannot be opened.
        """
        engine = self._open(weights)
        with ExitStack() as stack:
            stack.callback(engine.close)
            new = self._described(engine, weights)
            row, active = self._database.write(lambda c: _registered(c, new))
            if row.id != active.id:
                self._add(int(active.id), self._open_known(active))
            if row.state == "candidate":
                log.warning(
                    "the weights differ from those of the active engine; they are a candidate, "
                    "and verdicts come from %s", active.weights,
                )  # fmt: skip
            if row.state != "retired":
                self._add(int(row.id), engine)
                stack.pop_all()
            self._active = int(active.id)
        self._thread.start()

    def add_candidate(self, weights: Path, actor: str) -> int:
        """Open weights as a candidate, which judges new and recent pictures in the background.

        Returns:
            Number of the engine.

        Raises:
            EngineStateError: See :func:`.engine_table.add_candidate`.
            FxpipeError: The weights cannot be opened.
        """
        with self._changing:
            engine = self._open(weights)
            try:
                new = self._described(engine, weights)
                number = self._database.write(lambda c: engine_table.add_candidate(c, new, actor))
            except BaseException:
                engine.close()
                raise
            self._refused.discard(number)
            self._add(number, engine)
        return number

    def promote(self, number: int, actor: str) -> None:
        """Make an engine the active one; see :func:`.engine_table.promote`.

        Raises:
            LookupError: There is no such engine.
            FxpipeError: Its weights cannot be opened, or have changed.
        """
        with self._changing:
            if number not in self._loaded:
                row = self._row(number)
                self._add(number, self._open_known(row))
            self._database.write(lambda c: engine_table.promote(c, number, actor))
            self._active = number
        self._wake.set()
        self.wake()

    def retire(self, number: int, actor: str) -> None:
        """Stop a candidate; see :func:`.engine_table.retire`."""
        self._database.write(lambda c: engine_table.retire(c, number, actor))
        self._wake.set()

    def wake(self) -> None:
        """Check for jobs immediately."""
        for one in list(self._loaded.values()):
            one.judging.wake()

    def close(self) -> None:
        """Finish the jobs in flight, and close all engines."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._changing:
            while self._loaded:
                self._loaded.popitem()[1].close()

    def _follow(self) -> None:
        while not self._stopping:
            try:
                while not self._stopping and self._database.write(engine_table.refresh_some):
                    pass
                self._synchronise()
            except Exception as error:  # noqa: BLE001  (database error; retried)
                log.warning("cannot follow the table of engines (%s)", type(error).__name__)
            self._wake.wait(_POLL_S)
            self._wake.clear()

    def _synchronise(self) -> None:
        """Open and close engines according to the table."""
        with self._changing:
            with self._database.read() as connection:
                rows = {int(row.id): row for row in engine_state.judging_engines(connection)}
            for number, row in rows.items():
                if number not in self._loaded and number not in self._refused:
                    self._try(row)
            active = next((n for n, row in rows.items() if row.state == "active"), None)
            if active in self._loaded:
                self._active = active
            for number in self._loaded.keys() - rows.keys() - {self._active}:
                self._loaded.pop(number).close()

    def _try(self, row: Row[Any]) -> None:
        try:
            self._add(int(row.id), self._open_known(row))
        except FxpipeError as error:
            self._refused.add(int(row.id))
            log.error("cannot open engine %d: %s", row.id, error)

    def _row(self, number: int) -> Row[Any]:
        with self._database.read() as connection:
            row = engine_table.by_number(connection, number)
        if row is None:
            raise LookupError(number)
        return row

    def _open(self, weights: Path) -> Engine:
        return Engine.open(
            weights, engine_config(self._config.run), rendered=True,
            study_of=lambda _, uid: pseudonym(uid) if uid else None,
        )  # fmt: skip

    def _open_known(self, row: Row[Any]) -> Engine:
        """Open an engine of the table, and check that its weights and settings are unchanged.

        Raises:
            UsageError: Its weights have changed.
        """
        engine = self._open(Path(row.weights))
        if engine_digest(engine.digests, self._config.run) != row.digest:
            engine.close()
            raise UsageError(
                f"{row.weights}: the weights or settings of engine {row.id} have changed, expected "
                "those that its verdicts came from", "restore them, or promote another engine",
            )  # fmt: skip
        return engine

    def _add(self, number: int, engine: Engine) -> None:
        self._loaded[number] = Loaded(
            number, engine,
            Judging(
                self._database, self._blobs, self._views, engine, number, self.owner,
                self._config.run.contour, self._count, lambda: self._yields(number),
            ),
        )  # fmt: skip

    def _yields(self, number: int) -> bool:
        """Whether an engine must wait for the active engine."""
        active = self.active
        return active is not None and active.number != number and active.judging.is_busy

    def _described(self, engine: Engine, weights: Path) -> NewEngine:
        run = self._config.run
        return NewEngine(
            engine_digest(engine.digests, run), str(weights.resolve()), engine.digests,
            judging_settings(run), version(),
            card_of(engine.weights, weights, engine.digests, run.operating_point),
        )  # fmt: skip


def engine_digest(digests: dict[str, str], config: RunConfig) -> str:
    """Digest of the weights and of all settings that can change a verdict."""
    content = {"bundles": digests, "settings": judging_settings(config)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def judging_settings(config: RunConfig) -> dict[str, Any]:
    """All settings that can change a verdict, as JSON values."""
    return config.model_dump(mode="json", exclude=_NOT_JUDGING)


def _registered(connection: Any, new: NewEngine) -> tuple[Row[Any], Row[Any]]:
    """The rows of an engine and of the active one."""
    row = engine_table.register(connection, new)
    active = engine_state.active_engine(connection)
    assert active is not None  # noqa: S101  (the first engine is active)
    return row, active
