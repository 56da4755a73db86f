"""Fracture boxes of FracAtlas as distributed by its authors: COCO, PASCAL VOC or YOLO."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ...samples import Box

Boxes = dict[str, tuple[Box, ...]]


def read_annotations(folder: Path, faults: list[str]) -> Boxes:
    """Read the boxes by the stem of the picture's name, from the preferred available format.

    Args:
        folder: ``Annotations/``.
        faults: Receives a message for each broken file and each box without an area.
    """
    boxes_of: dict[str, list[Box]] = defaultdict(list)
    for pattern, read in (
        ("COCO JSON/*.json", _read_coco),
        ("PASCAL VOC/*.xml", _read_voc),
        ("YOLO/*.txt", _read_yolo),
    ):
        files = sorted(folder.glob(pattern))
        for file in files:
            try:
                for stem, corners in read(file):
                    boxes_of[stem].append(within(*corners))
            except (ValueError, LookupError, TypeError, ElementTree.ParseError) as error:
                faults.append(f"{file}: invalid boxes: {error}")
        if files:
            break
    return {stem: tuple(boxes) for stem, boxes in boxes_of.items()}


def within(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Clip the corners to the picture: hand-drawn boxes may extend slightly beyond it.

    Raises:
        ValueError: The clipped box has no area.
    """
    clipped = tuple(min(max(float(value), 0.0), 1.0) for value in (x0, y0, x1, y1))
    x0, y0, x1, y1 = clipped
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"a box without an area, from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})")
    return x0, y0, x1, y1


def _read_coco(file: Path) -> Iterator[tuple[str, Box]]:
    content = json.loads(file.read_text(encoding="utf-8"))
    pictures = {picture["id"]: picture for picture in content["images"]}
    for annotation in content["annotations"]:
        picture = pictures[annotation["image_id"]]
        # Size of the annotated picture: a resized copy has the same fractions.
        width, height = picture["width"], picture["height"]
        x, y, w, h = annotation["bbox"]
        stem = Path(picture["file_name"]).stem
        yield stem, (x / width, y / height, (x + w) / width, (y + h) / height)


def _read_voc(file: Path) -> Iterator[tuple[str, Box]]:
    # Expat, used by ElementTree, rejects entities that expand without bounds.
    root = ElementTree.parse(file).getroot()  # noqa: S314
    width, height = (float(root.findtext(f"size/{name}", "")) for name in ("width", "height"))
    for box in root.iterfind("object/bndbox"):
        x0, y0, x1, y1 = (
            float(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax")
        )
        yield file.stem, (x0 / width, y0 / height, x1 / width, y1 / height)


def _read_yolo(file: Path) -> Iterator[tuple[str, Box]]:
    if file.stem == "classes":
        return
    for line in filter(str.strip, file.read_text(encoding="utf-8").splitlines()):
        _, x, y, w, h = map(float, line.split())
        yield file.stem, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
