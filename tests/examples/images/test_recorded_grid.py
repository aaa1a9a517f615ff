"""The recorded cells are those of the default grid, and the tables of RESULTS.md are theirs."""

from __future__ import annotations

from pathlib import Path

from examples.images.__main__ import RESULTS
from examples.images.cell import Settings
from examples.images.plan import Grid, cells_of
from examples.images.results import read_cells
from examples.images.tables import sections

CELLS = Path(RESULTS).with_name("cells")


def test_the_recorded_grid_is_complete() -> None:
    expected = cells_of(Grid(settings=Settings()))
    assert {path.name for path in CELLS.glob("*.json")} == {f"{cell.name}.json" for cell in expected}


def test_the_recorded_tables_are_made_again_from_the_cell_files() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    for title, parts in sections(read_cells(CELLS)).items():
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        written = section.strip().split("\n\n", 1)[1]  # after the command
        assert written == "\n\n".join(parts), f"{title}: run `python -m examples.images tables --cells examples/images/cells`"
