"""Pictures of radiographs that are not radiographs: screenshots, photographs, prints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Grey = NDArray[np.uint8]
TOOLS = ("Patient", "Window", "Zoom", "Pan", "Measure", "Invert", "Rotate", "Print", "Export")
LINES = (
    "Hospital of Nowhere",
    "Invented^Person  M 045Y",
    "Wrist PA  2023-01-01 10:10",
    "W 4096 L 2048",
)


def screenshot(picture: Grey, dark: bool = True) -> Image.Image:
    """A screenshot of a viewer: title bar, toolbar, side bar, annotations and status line."""
    ground, bar, ink = ((16, 16, 18), (58, 60, 64), (225, 225, 225))
    if not dark:
        ground, bar, ink = ((255, 255, 255), (236, 236, 236), (20, 20, 20))
    screen = Image.new("RGB", (1280, 800), ground)
    pen = ImageDraw.Draw(screen)
    font = ImageFont.load_default(14)
    pen.rectangle((0, 0, 1280, 26), fill=(30, 60, 110) if dark else (205, 215, 235))
    pen.text((10, 5), "Viewer 5.2 - Invented^Person - [Series 1: Wrist]", ink, font)
    pen.rectangle((0, 27, 1280, 70), fill=bar)
    for place, word in enumerate(TOOLS):
        left = 12 + 120 * place
        pen.rectangle((left, 34, left + 24, 58), outline=ink)
        pen.text((left + 30, 40), word, ink, font)
    pen.rectangle((0, 71, 180, 775), fill=bar)
    for row in range(4):
        pen.rectangle((20, 90 + 160 * row, 160, 220 + 160 * row), outline=ink)
    pen.rectangle((0, 776, 1280, 800), fill=bar)
    pen.text((10, 780), "Image 1 of 1    100 %    1254 x 1490", ink, font)
    screen_picture = Image.fromarray(picture)
    screen_picture.thumbnail((1060, 690))
    left, top = 180 + (1100 - screen_picture.width) // 2, 71 + (704 - screen_picture.height) // 2
    screen.paste(screen_picture, (left, top))
    for row, line in enumerate(LINES):
        pen.text((190, 78 + 18 * row), line, ink, font)
    return screen


def photographed_screen(picture: Grey, seed: int = 0) -> Image.Image:
    """A hand-held photograph of a monitor, with moire of subpixels and camera pixels."""
    chance = np.random.default_rng(seed)
    screen_picture = Image.fromarray(picture)
    screen_picture.thumbnail((420, 420))
    panel = np.repeat(np.repeat(np.asarray(screen_picture, np.float32), 6, 0), 6, 1)
    rows, columns = np.mgrid[: panel.shape[0], : panel.shape[1]]
    lit = np.stack([(columns % 6) // 2 == colour for colour in range(3)], -1)
    stripes = (panel[..., None] + 8) * lit * ((rows % 6) < 5)[..., None] * 2.2
    photo = Image.fromarray(np.clip(stripes, 0, 255).astype(np.uint8))
    angle = float(chance.uniform(2, 6))
    photo = photo.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=(22, 21, 20))
    scale = float(chance.uniform(0.27, 0.36))
    size = round(photo.width * scale), round(photo.height * scale)
    # A lens blurs slightly and a sensor samples: the remaining stripes cause moire.
    photo = photo.filter(ImageFilter.GaussianBlur(1.0)).resize(
        size, Image.Resampling.BILINEAR, reducing_gap=None
    )
    return _noisy(photo, chance, 3.0)


def photographed_film(picture: Grey, seed: int = 0) -> Image.Image:
    """A photograph of a film on a light box, with its light colour, in a dark room."""
    chance = np.random.default_rng(seed)
    film = Image.fromarray(picture)
    film.thumbnail((900, 900))
    room = Image.new("RGB", (film.width + 400, film.height + 300), (40, 34, 30))
    pen = ImageDraw.Draw(room)
    pen.rectangle((60, 40, room.width - 60, room.height - 40), fill=(232, 240, 255))
    grey = np.asarray(film, np.float32)[..., None]
    tinted = 20 + grey * np.array([0.80, 0.86, 0.92], np.float32)
    room.paste(Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8)), (200, 150))
    turned = room.rotate(
        float(chance.uniform(-6, 6)), Image.Resampling.BICUBIC, fillcolor=(40, 34, 30)
    )
    return _noisy(turned.filter(ImageFilter.GaussianBlur(1.2)), chance, 4.0)


def scanned_print(picture: Grey, seed: int = 0) -> Image.Image:
    """A print on office paper, scanned in colour, with a line of text above and below."""
    chance = np.random.default_rng(seed)
    paper = Image.new("RGB", (1240, 1754), (250, 247, 238))
    screen_picture = Image.fromarray(picture)
    screen_picture.thumbnail((1000, 1300))
    grey = np.asarray(screen_picture, np.float32)[..., None]
    inked = 34 + grey * np.array([0.83, 0.81, 0.78], np.float32)
    left = (1240 - screen_picture.width) // 2
    paper.paste(Image.fromarray(inked.astype(np.uint8)), (left, 220))
    pen = ImageDraw.Draw(paper)
    for row, line in enumerate(LINES[:3]):
        pen.text((left, 90 + 34 * row), line, (30, 30, 40), ImageFont.load_default(26))
    return _noisy(paper, chance, 2.0)


def _noisy(image: Image.Image, chance: np.random.Generator, sigma: float) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return Image.fromarray(
        np.clip(pixels + chance.normal(0, sigma, pixels.shape), 0, 255).astype(np.uint8)
    )
