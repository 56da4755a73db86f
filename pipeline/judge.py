"""Judges prepared pictures: routing, specialists, decisions.

An error in one picture becomes a failed outcome of that picture. An error of the device or the
weights is raised.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .config import RunConfig
from .decision import combine, decide, exclusion_reason, refusal, route, specialists_for
from .domain import Heatmap, StageOutput
from .flags import reconcile, routing
from .heatmap import to_heatmap
from .outcome import FractureCall, Outcome, RegionCall, Status, Verdict
from .reading.prepared_picture import Prepared
from .runtime.network import Batch, Router, Specialist
from .runtime.session import Weights
from .threaded_pipeline import Limits
from .timing import Clock
from .tissue import tissue


@dataclass(frozen=True, slots=True)
class Look:
    """Network outputs for N pictures.

    Attributes:
        routing: Output of the region stage; None without a region stage.
        answers: Output of each specialist, by region, for the rows that it examined.
        rows: Those rows, by region.
        pixel_calls: (N,) routing decisions from pixels only; None without a region stage, or where
            its output is not finite.
        calls: (N,) routing decisions from pixels and header.
    """

    routing: StageOutput | None
    answers: Mapping[str, StageOutput]
    rows: Mapping[str, Sequence[int]]
    pixel_calls: Sequence[RegionCall | None]
    calls: Sequence[RegionCall | None]


class Judge:
    """Judges pictures with the networks of one weights folder.

    It is thread-safe.

    Args:
        weights: Opened bundles.
        config: Batch size, numbers of threads, heatmaps and header.
        clock: Records the time for trunk and heads.
    """

    def __init__(self, weights: Weights, config: RunConfig, clock: Clock | None = None) -> None:
        self._weights, self._config = weights, config
        self._clock = clock or Clock()

    @property
    def weights(self) -> Weights:
        """The networks."""
        return self._weights

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by bundle name of all networks."""
        return self._weights.digests(self._weights.stages)

    @property
    def limits(self) -> Limits:
        """Limits for a flow that feeds this judge."""
        config = self._config
        in_lanes = 2 * config.lanes * config.batch_size
        return Limits(
            readers=config.reader_threads,
            lanes=config.lanes,
            batch=config.batch_size,
            files=in_lanes + 2 * max(config.batch_size, config.reader_threads),
            items=in_lanes,
        )

    def judge(self, pictures: Sequence[Prepared]) -> list[Outcome]:
        """Judge pictures as one batch.

        Raises:
            DeviceError: The device failed, most often because it ran out of memory.
        """
        if not pictures:
            return []
        started = time.perf_counter()
        with self._clock.measure("heads"):
            outcomes = self.conclude(pictures, self.look(pictures))
        share_ms = _since(started) / len(pictures)
        return [replace(each, elapsed_ms=each.elapsed_ms + share_ms) for each in outcomes]

    def look(self, pictures: Sequence[Prepared], *, all_specialists: bool = False) -> Look:
        """Run the networks, and route each picture to its specialists.

        Args:
            pictures: N prepared pictures.
            all_specialists: Whether every specialist examines every picture, regardless of the
                routing, and returns its evidence (for evaluations).
        """
        weights, config = self._weights, self._config
        batch = Batch([item.arrays for item in pictures], weights.trunks, self._clock)
        pixel_calls: list[RegionCall | None] = [None] * len(pictures)
        routing: StageOutput | None = None
        if weights.region is not None:
            routing = weights.region.look(batch)
            pixel_calls = _route(weights.region, routing, weights)
        calls = [
            call and combine(call, item.header, config.header, config.header_margin)
            for call, item in zip(pixel_calls, pictures, strict=True)
        ]
        looking = self._looking(pictures, calls)
        answers: dict[str, StageOutput] = {}
        rows: dict[str, Sequence[int]] = {}
        for region, specialist in weights.fracture.items():
            chosen = [i for i, names in enumerate(looking) if all_specialists or region in names]
            if chosen:
                evidence = all_specialists or config.shown_heatmaps != "none"
                answers[region] = specialist.look(batch, chosen, evidence=evidence)
                rows[region] = chosen
        return Look(routing, answers, rows, pixel_calls, calls)

    def conclude(self, pictures: Sequence[Prepared], look: Look) -> list[Outcome]:
        """Decide on each picture.

        Args:
            pictures: The pictures that were passed to :meth:`look`.
            look: The result of :meth:`look`.
        """
        faults: list[str | None] = [None] * len(pictures)
        if self._weights.region is not None:
            faults = [
                None if call else "the region stage gave no number for it" for call in look.calls
            ]
        looking = self._looking(pictures, look.calls)
        findings: list[list[FractureCall]] = [[] for _ in pictures]
        for region, output in look.answers.items():
            for row, i in enumerate(look.rows[region]):
                if region not in looking[i]:
                    continue
                call = look.calls[i]
                far = call is not None and call.far
                finding = self._finding(row, output, region, pictures[i], far)
                if finding is None:
                    faults[i] = f"the {region} specialist gave no number for it"
                else:
                    findings[i].append(finding)
        return [
            _outcome(item, call, tuple(findings), fault, self._weights)
            for item, call, findings, fault in zip(
                pictures, look.calls, findings, faults, strict=True
            )
        ]

    def _looking(
        self, pictures: Sequence[Prepared], calls: Sequence[RegionCall | None]
    ) -> list[tuple[str, ...]]:
        """The specialists that examine each picture."""
        routed = self._weights.region is not None
        return [
            ()
            if exclusion_reason(item.flags) or (routed and call is None)
            else specialists_for(call, self._weights.fracture)
            for item, call in zip(pictures, calls, strict=True)
        ]

    def _finding(
        self, row: int, output: StageOutput, region: str, item: Prepared, far: bool
    ) -> FractureCall | None:
        """A specialist's finding for one of its rows; None if its output is not finite."""
        probability = float(output.probabilities[row, 0])
        if not np.isfinite(probability):
            return None
        weights, mode = self._weights, self._config.shown_heatmaps
        spec, point = weights.fracture[region].spec, weights.point(region, far)
        heatmap: Heatmap | None = None
        has_heatmap = mode == "all" or (
            mode == "positive" and point.verdict(probability) is not Verdict.NEGATIVE
        )
        evidence = None if output.evidence is None else output.evidence[row, 0]
        if evidence is not None and has_heatmap and np.isfinite(evidence).all():
            placement = item.placements[spec.preprocess]
            limb = None if item.rendered is None else tissue(item.rendered.pixels)
            heatmap = to_heatmap(evidence, spec.preprocess, placement, limb)
        types = _types(row, output.types)
        return decide(region, spec.target, probability, point, heatmap, far, types)


def _types(row: int, output: StageOutput | None) -> dict[str, float] | None:
    """Probability of each fracture type in one row; None if missing or not finite."""
    if output is None or not np.isfinite(output.probabilities[row]).all():
        return None
    return dict(zip(output.labels, output.probabilities[row].tolist(), strict=True))


def _route(region: Router, output: StageOutput, weights: Weights) -> list[RegionCall | None]:
    """A routing decision for each row; None where the output is not finite."""
    thresholds = region.spec.route_thresholds
    gate_threshold = None if weights.gate is None else weights.gate.threshold
    densities = [None] * len(output) if output.density is None else output.density.tolist()
    calls: list[RegionCall | None] = []
    for row, density in zip(output.probabilities, densities, strict=True):
        usable = np.isfinite(row).all() and (density is None or np.isfinite(density))
        probabilities = dict(zip(output.labels, row.tolist(), strict=True))
        calls.append(
            route(probabilities, thresholds, density, gate_threshold, weights.far)
            if usable
            else None
        )
    return calls


def _outcome(
    item: Prepared,
    call: RegionCall | None,
    findings: tuple[FractureCall, ...],
    fault: str | None,
    weights: Weights,
) -> Outcome:
    """Build the outcome of one picture."""
    blank = exclusion_reason(item.flags)
    if blank is not None:  # then the routing is meaningless too
        call, fault = None, None
    error = blank or fault or refusal(call, weights.fracture)
    status = Status.OK
    if error is not None:
        status = Status.UNSUPPORTED if fault is None else Status.FAILED
        findings = ()
    regions = None if call is None else call.detected if call.veto else call.fired
    supported = () if call is None else call.thresholds
    doubts = routing(call) if findings else ()
    networks: list[Router | Specialist] = [] if weights.region is None else [weights.region]
    networks += [weights.fracture[finding.region] for finding in findings]
    return Outcome(
        image=item.image,
        status=status,
        region=call,
        findings=findings,
        error=error,
        elapsed_ms=item.elapsed_ms,
        bundle_digests=weights.digests(networks),
        header=item.header,
        flags=item.flags + reconcile(item.header, regions, supported) + doubts,
        study=item.study,
        identity=item.identity,
        rendered=item.rendered,
    )


def _since(started: float) -> float:
    """Milliseconds since a ``time.perf_counter`` reading."""
    return (time.perf_counter() - started) * 1000.0
