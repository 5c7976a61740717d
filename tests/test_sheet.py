"""Contact sheets: what is where, in how many sheets, and what is left on the disk."""

import numpy as np
import pytest

from colorflow_rt.pixels import read_picture
from colorflow_rt.sheet import CELL, GAP, Row, Shot, contact_sheets, write_contact_sheets

COLUMNS = ("page", "references used", "result")
RED, GREEN, BLUE = (220, 0, 0), (0, 160, 0), (0, 0, 220)


def flat(color, width=40, height=60):
    return np.full((height, width, 3), color, np.uint8)


def row(title="001.png", references=1):
    return Row(title, [[Shot(flat(RED))], [Shot(flat(GREEN), "a.png 0.91")] * references, [Shot(flat(BLUE))]])


def columns_of(sheet, color):
    """Columns of the sheet in which this colour is seen."""
    return {int(x - GAP) // (CELL[0] + GAP) for x in np.where((sheet == color).all(axis=2))[1]}


def test_each_picture_is_in_its_column():
    (sheet,) = contact_sheets(COLUMNS, [row()])
    assert [columns_of(sheet, color) for color in (RED, GREEN, BLUE)] == [{0}, {1}, {2}]


def test_pages_keep_their_aspect_and_fill_the_cell_or_four_times_their_size():
    (sheet,) = contact_sheets(COLUMNS, [row()])
    ys, xs = np.where((sheet == RED).all(axis=2))
    assert (np.ptp(xs) + 1, np.ptp(ys) + 1) == (160, 240)  # 40x60, four times
    (sheet,) = contact_sheets(("page",), [Row("long", [[Shot(flat(RED, 80, 4000))]])])
    ys, xs = np.where((sheet == RED).all(axis=2))
    assert np.ptp(ys) < CELL[1] and np.ptp(xs) + 1 == pytest.approx((np.ptp(ys) + 1) / 50, abs=1)


@pytest.mark.parametrize("references", [2, 3, 4, 5, 9])
def test_several_references_share_a_cell_without_covering_each_other(references):
    colors = [(10 + 20 * i, 90, 30) for i in range(references)]
    shots = [Shot(flat(color, 400, 600), f"{i}.png") for i, color in enumerate(colors)]
    (sheet,) = contact_sheets(COLUMNS, [Row("p", [[], shots, []])])
    areas = [int((sheet == color).all(axis=2).sum()) for color in colors]
    assert min(areas) > 3000 and max(areas) < 1.05 * min(areas)
    assert all(columns_of(sheet, color) == {1} for color in colors)


def test_titles_and_captions_are_written_and_long_ones_do_not_leave_the_column():
    (plain,) = contact_sheets(("page",), [Row("", [[Shot(flat(RED))]])])
    (titled,) = contact_sheets(("page",), [Row("x" * 300, [[Shot(flat(RED), "y" * 300)]])])
    inked = (titled != plain).any(axis=2)
    assert inked.any() and titled.shape == plain.shape
    assert not inked[:, -GAP:].any()


def test_many_rows_are_paged_and_taken_one_at_a_time():
    taken = []
    sheets = contact_sheets(COLUMNS, (taken.append(i) or row(str(i)) for i in range(5)), rows_per_sheet=2)
    first = next(sheets)
    assert taken == [0, 1]
    rest = list(sheets)
    assert [s.shape[0] for s in rest] == [first.shape[0], (first.shape[0] + 38) // 2]


def test_no_rows_make_no_sheet(tmp_path):
    assert write_contact_sheets(tmp_path, COLUMNS, []) == []
    assert list(tmp_path.iterdir()) == []


def test_sheets_are_written_and_those_of_a_longer_run_removed(tmp_path):
    paths = write_contact_sheets(tmp_path, COLUMNS, [row(str(i)) for i in range(17)])
    assert [p.name for p in paths] == ["contact_sheet.png", "contact_sheet_02.png", "contact_sheet_03.png"]
    assert read_picture(paths[0]).size[0] == 3 * CELL[0] + 4 * GAP
    write_contact_sheets(tmp_path, COLUMNS, [row()])
    assert [p.name for p in tmp_path.iterdir()] == ["contact_sheet.png"]


def test_a_page_called_like_a_sheet_is_not_removed(tmp_path):
    (tmp_path / "contact_sheet_of_mine.png").write_bytes(b"mine")
    write_contact_sheets(tmp_path, COLUMNS, [row()])
    assert (tmp_path / "contact_sheet_of_mine.png").exists()
