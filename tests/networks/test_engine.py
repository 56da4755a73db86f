"""Files in, outcomes out: order, failures, routing, batching, memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import SPEC, for_all, paint, probability, spec, standard_specs, write_png
from factories import dicom, dicom_file
from PIL import Image
from row_counts import count_rows
from tiny_networks import write_bundles

from pipeline.bundle import BundleSpec, Kind
from pipeline.config import RunConfig
from pipeline.domain import ImageRef, XrayImage
from pipeline.engine import Engine, run
from pipeline.errors import DeviceError, UnreadableImageError
from pipeline.io import Room
from pipeline.judge import Judge
from pipeline.outcome import Outcome, Status, Verdict
from pipeline.reading import in_process
from pipeline.reading.prepared_picture import ReadOptions
from pipeline.report.record import caption
from pipeline.runtime.network import Opened
from pipeline.runtime.session import Weights, load_bundles
from pipeline.timing import Clock

CPU = RunConfig(device="cpu", intra_op_threads=1, workers=2, batch_size=4, isolate=False)


def judge(paths: list[Path], weights: Weights, **changes: object) -> list[Outcome]:
    return list(run(paths, weights, CPU.model_copy(update=changes)))


def bundles(folder: Path, specs: list[BundleSpec] | None = None) -> Weights:
    return load_bundles(write_bundles(folder, specs), CPU)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Weights:
    return bundles(tmp_path_factory.mktemp("weights"))


def test_one_picture_from_file_to_verdict(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.8, "elbow": 0.9})
    (outcome,) = judge([path], weights)
    (finding,) = outcome.findings
    assert (outcome.status, finding.region, finding.target) == (Status.OK, "hand", "fracture")
    assert finding.verdict is Verdict.POSITIVE
    assert finding.probability == pytest.approx(probability(204 / 255), abs=1e-4)
    assert outcome.image == ImageRef(path, None, hashlib.sha256(path.read_bytes()).hexdigest())
    assert set(outcome.bundle_digests) == {"trunk", "region", "fracture-hand"}
    assert outcome.bundle_digests["fracture-hand"] == weights.fracture["hand"].digest
    assert outcome.elapsed_ms > 0.0


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [(0.6, Verdict.POSITIVE), (0.48, Verdict.UNCERTAIN), (0.3, Verdict.NEGATIVE)],
)
@pytest.mark.parametrize("region", ["elbow", "hand", "shoulder"])
def test_every_specialist_judges_its_own_region(weights, tmp_path, region, cell, verdict):
    others = dict.fromkeys({"elbow", "hand", "shoulder"} - {region}, 1.0 - cell)
    path = write_png(tmp_path / "a.png", {region: 0.9}, {region: cell, **others})
    (outcome,) = judge([path], weights)
    assert [(f.region, f.verdict) for f in outcome.findings] == [(region, verdict)]


def test_two_regions_go_to_both_specialists(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9, "elbow": 0.8}, {"hand": 0.1, "elbow": 0.9})
    (outcome,) = judge([path], weights)
    found = {finding.region: finding.verdict for finding in outcome.findings}
    assert found == {"elbow": Verdict.POSITIVE, "hand": Verdict.NEGATIVE}
    assert outcome.leading == next(f for f in outcome.findings if f.region == "elbow")


def test_no_region_gets_no_verdict(weights, tmp_path):
    path = write_png(tmp_path / "knee.png", {}, {"hand": 0.9, "elbow": 0.9, "shoulder": 0.9})
    (outcome,) = judge([path], weights)
    assert (outcome.status, outcome.findings) == (Status.UNSUPPORTED, ())
    assert "no supported region recognised" in str(outcome.error)
    assert set(outcome.bundle_digests) == {"trunk", "region"}


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("noise", [0, 6])
def test_a_picture_without_contrast_gets_no_verdict(weights, tmp_path, grey, noise):
    rough = np.random.default_rng(0).integers(-noise, noise + 1, (320, 300))
    Image.fromarray(np.clip(rough + grey, 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    (outcome,) = judge([tmp_path / "a.png"], weights)
    assert (outcome.status, outcome.findings, outcome.region) == (Status.UNSUPPORTED, (), None)
    assert str(outcome.error).startswith("blank: ")
    assert [flag.name for flag in outcome.flags] == ["blank"]


def test_missing_specialists_are_told_and_never_silent(tmp_path):
    weights = bundles(tmp_path / "w", standard_specs()[:-1])  # no shoulder
    alone = write_png(tmp_path / "a.png", {"shoulder": 0.9}, {"shoulder": 0.9})
    along = write_png(tmp_path / "b.png", {"shoulder": 0.9, "hand": 0.9}, {"hand": 0.9})
    first, second = judge([alone, along], weights)
    assert first.status is Status.UNSUPPORTED
    assert "recognised as shoulder, which has no specialist" in str(first.error)
    assert [finding.region for finding in second.findings] == ["hand"]
    assert second.unexamined == ("shoulder",)


def test_one_for_all_regions_looks_at_every_picture(tmp_path):
    weights = bundles(tmp_path / "w", for_all())
    paths = [
        write_png(tmp_path / "hand.png", {"hand": 0.9}, {"all": 0.8, "hand": 0.1}),
        write_png(tmp_path / "knee.png", {}, {"all": 0.2, "hand": 0.9}),
    ]
    outcomes = judge(paths, weights)
    for outcome, cell in zip(outcomes, (0.8, 0.2), strict=True):
        (finding,) = outcome.findings
        assert (outcome.status, outcome.region, finding.region) == (Status.OK, None, "all")
        assert finding.probability == pytest.approx(probability(round(cell * 255) / 255), abs=1e-4)
        assert set(outcome.bundle_digests) == {"trunk", "fracture-all"}


def test_one_for_all_regions_behind_a_region_stage(tmp_path, monkeypatch):
    weights = bundles(
        tmp_path / "w",
        [*standard_specs()[:2], spec("fracture-hand", Kind.FRACTURE), for_all()[1]],
    )
    seen = count_rows(monkeypatch)
    shown = [
        {"hand": 0.9}, {"elbow": 0.9}, {"elbow": 0.9, "shoulder": 0.9},
        {"hand": 0.9, "elbow": 0.9}, {},
    ]  # fmt: skip
    paths = [write_png(tmp_path / f"{i}.png", regions, {}) for i, regions in enumerate(shown)]
    outcomes = judge(paths, weights, batch_size=8)
    looked = [sorted(finding.region for finding in outcome.findings) for outcome in outcomes]
    assert looked == [["hand"], ["all"], ["all"], ["all", "hand"], []]
    assert [outcome.unexamined for outcome in outcomes] == [()] * 5
    assert outcomes[4].status is Status.UNSUPPORTED
    assert seen == {"fracture-all": 3, "fracture-hand": 2, "region": 5, "trunk": 5}


def test_types_are_told_where_a_picture_is_not_negative(tmp_path):
    types = {"labels": ["a", "b"], "activation": "softmax", "temperature": [2, 2], "bias": [0, 0]}
    typed = spec("fracture-all", Kind.FRACTURE, types=types)
    weights = bundles(tmp_path / "w", [for_all()[0], typed])
    paths = []
    for place, cell in enumerate((0.8, 0.47, 0.2)):  # positive, uncertain, negative
        pixels = paint({}, {"all": cell})
        pixels[16:24, 8:16], pixels[16:24, 16:24] = 153, 128  # the cells of both types
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    findings = [outcome.findings[0] for outcome in judge(paths, weights)]
    assert [finding.verdict.value for finding in findings] == ["positive", "uncertain", "negative"]
    wanted = 1 / (1 + np.exp(-20 * (153 - 128) / 255 / 2))
    for finding in findings[:2]:
        assert finding.types == pytest.approx({"a": wanted, "b": 1 - wanted}, abs=1e-4)
    assert findings[2].types == {}
    shown = caption(findings[0])
    assert shown.endswith(f", a {wanted:.3f}, b {1 - wanted:.3f}")


def write_dicom(path: Path, regions: dict[str, float], **header: str) -> Path:
    """A painted picture with a header; its hand is fractured."""
    pixels = paint(regions, {"hand": 0.8, "shoulder": 0.8})
    path.write_bytes(dicom_file(dicom(pixels, bits=8, **header)))
    return path


def test_a_chest_by_its_header_is_no_shoulder(weights, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", {"shoulder": 0.9}, BodyPartExamined="CHEST")
    (outcome,) = judge([path], weights)
    assert (outcome.status, outcome.findings) == (Status.UNSUPPORTED, ())
    assert "the header says CHEST" in str(outcome.error)
    assert "the router found shoulder with probability 1.000" in str(outcome.error)
    assert outcome.region is not None
    assert (outcome.region.fired, outcome.region.header_effect) == ((), "vetoed")
    assert [flag.name for flag in outcome.flags if flag.name == "body-part-differs"]
    assert set(outcome.bundle_digests) == {"trunk", "region"}
    (alone,) = judge([path], weights, header="ignore")
    assert (alone.status, alone.region.header_effect) == (Status.OK, "ignored")
    assert "body-part-differs" in [flag.name for flag in alone.flags]


def test_a_hand_by_its_header_needs_less_of_the_router(weights, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", {"hand": 0.48}, BodyPartExamined="HAND")
    (outcome,) = judge([path], weights)
    assert [finding.region for finding in outcome.findings] == ["hand"]
    assert "header-helped" in [flag.name for flag in outcome.flags]
    assert outcome.region is not None
    assert outcome.region.header_effect == "helped"
    for changes in ({"header": "ignore"}, {"header_margin": 0.2}):
        assert judge([path], weights, **changes)[0].status is Status.UNSUPPORTED
    other = write_dicom(tmp_path / "b.dcm", {"hand": 0.4}, BodyPartExamined="HAND")
    assert judge([other], weights)[0].status is Status.UNSUPPORTED  # not by its own word


def test_a_header_has_no_say_where_nothing_routes(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", {}, BodyPartExamined="KNEE")
    (outcome,) = judge([path], bundles(tmp_path / "w", for_all()))
    assert (outcome.status, outcome.region) == (Status.OK, None)


def many(folder: Path, count: int) -> list[Path]:
    """Pictures of all kinds, with a bad file at every fifth place."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        path = folder / f"{i:03}.png"
        if i % 5 == 3:
            path.write_bytes(b"" if i % 2 else b"\x89PNG\r\n\x1a\n broken")
        else:
            cells = rng.uniform(0.2, 0.9, (2, 3)).tolist()
            names = ("elbow", "hand", "shoulder")
            write_png(path, *(dict(zip(names, row, strict=True)) for row in cells))
        paths.append(path)
    return paths


def test_a_row_for_every_input_in_order_and_failures_in_their_places(weights, tmp_path):
    paths = many(tmp_path, 23)
    outcomes = judge(paths, weights)
    assert [outcome.image.path for outcome in outcomes] == paths
    bad = [i for i, outcome in enumerate(outcomes) if outcome.status is Status.FAILED]
    assert bad == [3, 8, 13, 18]
    assert all(outcomes[i].error and outcomes[i].image.sha256 for i in bad)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_answers_do_not_depend_on_the_batch(weights, tmp_path, size):
    paths = many(tmp_path, 18)
    reference = judge(paths, weights, batch_size=8)
    for one, other in zip(judge(paths, weights, batch_size=size), reference, strict=True):
        assert (one.status, one.image) == (other.status, other.image)
        assert [f.region for f in one.findings] == [f.region for f in other.findings]
        for a, b in zip(one.findings, other.findings, strict=True):
            assert a.probability == pytest.approx(b.probability, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-4),
        ({"pad_value": 0.5}, 1e-4),  # other preprocessing, equal arrays
        ({"height_px": 64, "width_px": 64}, 1.0),  # blurred cells: only the routing is equal
    ],
)
def test_complete_networks_mix_with_heads(weights, tmp_path, changes, tolerance):
    """The answer is the same whether a specialist shares the trunk or brings its own."""
    specs = standard_specs()
    canvas = SPEC.model_copy(update=changes)
    specs[3] = spec("fracture-hand", Kind.FRACTURE, input="image", trunk=None, preprocess=canvas)
    mixed = bundles(tmp_path / "w", specs)
    paths = many(tmp_path, 18)
    for one, other in zip(judge(paths, mixed), judge(paths, weights), strict=True):
        assert [f.region for f in one.findings] == [f.region for f in other.findings]
        for a, b in zip(one.findings, other.findings, strict=True):
            assert a.probability == pytest.approx(b.probability, abs=tolerance)


def test_the_trunk_looks_once_and_specialists_only_at_their_rows(weights, tmp_path, monkeypatch):
    seen = count_rows(monkeypatch)
    regions = [{"hand": 0.9}, {"hand": 0.9, "elbow": 0.9}, {}, {"hand": 0.9}]
    paths = [write_png(tmp_path / f"{i}.png", r, {}) for i, r in enumerate(regions)]
    judge(paths, weights)
    assert seen == {"trunk": 4, "region": 4, "fracture-elbow": 1, "fracture-hand": 3}


def frames(good: int, then_fail: bool):
    """A stand-in for ``decode``: some frames, then perhaps a broken one."""

    def decode(
        content: bytes, path: Path, sha256: str, room: Room
    ) -> Generator[XrayImage, None, None]:
        for frame in range(good):
            pixels = np.full((8, 8), 0.5, np.float32)
            yield XrayImage(pixels, ImageRef(path, frame, sha256), 8, dicom={"Modality": "DX"})
        if then_fail:
            raise UnreadableImageError(f"frame {good} is broken")

    return decode


@pytest.mark.parametrize("then_fail", [False, True])
def test_one_outcome_for_each_frame(weights, tmp_path, monkeypatch, then_fail):
    (tmp_path / "cine.dcm").write_bytes(b"x")
    monkeypatch.setattr(in_process, "decode", frames(6, then_fail))
    outcomes = judge([tmp_path / "cine.dcm"], weights)
    assert [outcome.image.frame for outcome in outcomes] == list(range(6 + then_fail))
    assert all(outcome.header == {"Modality": "DX"} for outcome in outcomes[:6])
    assert [o.status is Status.FAILED for o in outcomes] == [False] * 6 + [True] * then_fail


def test_a_file_without_a_picture_still_gets_its_row(weights, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr(in_process, "decode", frames(0, then_fail=False))
    (outcome,) = judge([tmp_path / "a"], weights)
    assert outcome.status is Status.FAILED
    assert outcome.image.frame is None


@pytest.mark.parametrize(
    ("wrong", "specs", "error"),
    [
        ("region", standard_specs(), "region stage"),
        ("fracture-hand", standard_specs(), "hand specialist"),
        ("fracture-all", for_all(), "all specialist"),
    ],
)
def test_a_network_without_a_number_fails_closed(tmp_path, monkeypatch, wrong, specs, error):
    weights = bundles(tmp_path / "w", specs)
    original = Opened.evaluate

    def broken(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        values = original(self, names, inputs)
        return [v * np.nan for v in values] if self.spec.name == wrong else values

    monkeypatch.setattr(Opened, "evaluate", broken)
    (outcome,) = judge([write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})], weights)
    assert outcome.status is Status.FAILED
    assert error in str(outcome.error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("gate", ["on", "off"])
def test_a_density_that_is_no_number_fails_closed(tmp_path, monkeypatch, value, gate):
    config = CPU.model_copy(update={"gate": gate})
    weights = load_bundles(write_bundles(tmp_path / "w"), config)
    original = Opened.evaluate

    def broken(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        told = zip(names, original(self, names, inputs), strict=True)
        return [np.full_like(v, value) if name == "density" else v for name, v in told]

    monkeypatch.setattr(Opened, "evaluate", broken)
    (outcome,) = judge([write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})], weights)
    assert (outcome.status, outcome.findings) == (Status.FAILED, ())
    assert "the region stage gave no number for it" in str(outcome.error)


def test_files_are_read_a_bounded_number_ahead(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {})
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield path

    outcomes = run(endless(), weights, CPU)
    for _ in range(20):
        next(outcomes)
    # Two batches a lane, two being read, and the one that the twentieth began.
    assert taken <= 20 + (2 * CPU.lanes + 3) * CPU.batch_size
    outcomes.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]


def test_many_bad_files_between_few_good_ones_do_not_pile_up(weights, tmp_path):
    good = write_png(tmp_path / "a.png", {"hand": 0.9}, {})
    bad = tmp_path / "b.png"
    bad.write_bytes(b"")
    taken = 0

    def paths() -> Iterator[Path]:
        nonlocal taken
        for path in [good, *[bad] * 5000]:
            taken += 1
            yield path

    first = next(run(paths(), weights, CPU))
    assert first.status is Status.OK
    assert taken <= (2 * CPU.lanes * 8 + 4) * CPU.batch_size


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_order_and_answers_do_not_depend_on_the_number_of_lanes(
    weights, tmp_path, monkeypatch, lanes
):
    paths = many(tmp_path, 18)
    reference = judge(paths, weights)
    monkeypatch.setattr(RunConfig, "lanes", lanes)
    found = judge(paths, weights, batch_size=2)
    assert [outcome.image for outcome in found] == [outcome.image for outcome in reference]
    assert [o.findings for o in found] == [o.findings for o in reference]


def test_what_a_lane_meets_ends_the_run(weights, tmp_path, monkeypatch):
    def refuse(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        raise DeviceError("out of memory")

    monkeypatch.setattr(Opened, "evaluate", refuse)
    with pytest.raises(DeviceError, match="out of memory"):
        judge(many(tmp_path, 18), weights)
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]


def test_the_clock_knows_every_kind_of_work(weights, tmp_path):
    clock = Clock()
    assert list(run(many(tmp_path, 9), weights, CPU, clock))
    assert set(clock.seconds) == {"read", "decode", "resize", "trunk", "heads"}
    assert all(seconds > 0.0 for seconds in clock.seconds.values())


def test_an_endless_source_gets_its_answers_as_the_pictures_come(weights, tmp_path):
    """One picture, and a source that then waits: nothing else is needed for its answer."""
    more, path = threading.Event(), write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})

    def source() -> Iterator[Path]:
        yield path
        assert more.wait(30.0)
        yield path

    outcomes = run(source(), weights, CPU)
    first = next(outcomes)
    assert (first.status, more.is_set()) == (Status.OK, False)
    more.set()
    assert next(outcomes).findings == first.findings
    assert next(outcomes, None) is None


def test_out_of_order_an_answer_waits_for_no_other_file(weights, tmp_path):
    go_on = threading.Event()

    class Slow(in_process.InProcessReader):
        def read(self, source, wanted, clock):
            if source.name == "slow.png":
                assert go_on.wait(30.0)
            return super().read(source, wanted, clock)

    paths = [write_png(tmp_path / name, {"hand": 0.9}, {}) for name in ("slow.png", "quick.png")]
    engine = Engine(weights, CPU, Slow(Room(10**6)))
    outcomes = engine.outcomes(paths, ordered=False)
    assert next(outcomes).image.name == "quick.png"
    go_on.set()
    assert [outcome.image.name for outcome in outcomes] == ["slow.png"]


def test_pictures_that_others_have_read_are_judged_at_once(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})
    wanted = ReadOptions(weights.preprocessings)
    items = list(in_process.InProcessReader(Room(10**6)).read(path, wanted, Clock()))
    (outcome,) = Judge(weights, CPU).judge(items)
    (same,) = judge([path], weights)
    assert (outcome.findings, outcome.image) == (same.findings, same.image)
    assert Judge(weights, CPU).judge([]) == []


def test_what_a_source_raises_ends_the_run_in_its_place(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {})

    def source() -> Iterator[Path]:
        yield from [path] * 3
        raise OSError("the medium is gone")

    outcomes = run(source(), weights, CPU)
    assert [next(outcomes).status for _ in range(3)] == [Status.OK] * 3
    with pytest.raises(OSError, match="the medium is gone"):
        next(outcomes)
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]
