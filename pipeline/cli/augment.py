"""``fxpipe augment``: draws pictures as a network sees them in training."""

from __future__ import annotations

from pathlib import Path

import click

from ._extras import needs
from ._training import FILE, PATH, settings_of


@click.command(name="augment")
@click.option(
    "--index", type=FILE, default=Path("index.csv"), show_default=True,
    help="Table made by `fxpipe index`.",
)  # fmt: skip
@click.option("--show", type=PATH, required=True, help="PNG file for the contact sheet.")
@click.option("--by-setting", is_flag=True, help="One column per setting, each applied alone.")
@click.option("--pictures", type=click.IntRange(1, 50), default=6, show_default=True)
@click.option("--views", type=click.IntRange(1, 30), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True)
@click.option("--config", "file", type=FILE, help="TOML file of `train-stage region`.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="One setting, such as augment.zoom=0; repeatable.",
)  # fmt: skip
def command(
    index: Path, show: Path, by_setting: bool, pictures: int, views: int, seed: int,
    file: Path | None, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Draw training pictures with their augmentations, the frame and the fracture boxes.

    The pictures are evenly spaced in the training split. Use the sheet to check that the label of
    each picture is still right for every view.
    """
    config = settings_of("region", file, settings, {}, quiet=False)
    with needs("train"):
        from stages.data.augment_sheet import sheet, sheet_by_setting
        from stages.data.index import read_index
    train = read_index(index).of("train")
    step = max(1, len(train) // pictures)
    chosen = train[::step][:pictures]
    if by_setting:
        drawn = sheet_by_setting(chosen, config.preprocess, config.augment, seed)
    else:
        drawn = sheet(chosen, config.preprocess, config.augment, views, seed)
    show.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(show, "PNG")
    click.echo(f"{show}: {len(chosen)} of {len(train)} training pictures")
