"""``fxpipe augment --show``: a contact sheet of augmented training pictures."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.cli import main
from stages.data.augment_sheet import CELL_PX, ONE_BY_ONE


@pytest.mark.parametrize(
    ("words", "columns"), [(["--views", "4"], 6), (["--by-setting"], 1 + len(ONE_BY_ONE))]
)
def test_contact_sheet_has_pictures_in_rows_and_views_in_columns(project, tmp_path, words, columns):
    target = tmp_path / "new/sheet.png"
    options = ["augment", "--index", str(project / "index.csv"), "--show", str(target)]
    result = CliRunner().invoke(main, [*options, "--pictures", "3", *words])
    assert result.exit_code == 0, result.output
    assert "sheet.png: 3 of " in result.output
    sheet = np.asarray(Image.open(target))
    assert sheet.shape[1] == columns * CELL_PX
    cells = sheet[14:].reshape(3, CELL_PX, columns, CELL_PX, 3)
    assert (cells.std((1, 3)).max(2) > 5).all()  # no cell is empty


def test_contact_sheet_is_reproducible_by_seed(project, tmp_path):
    options = ["augment", "--index", str(project / "index.csv"), "--pictures", "2", "--views", "2"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        CliRunner().invoke(main, [*options, "--show", str(tmp_path / name), "--seed", seed])
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other
