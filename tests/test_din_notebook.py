"""DIN example: what is committed of the notebook. `make notebook-quick` runs it."""

import json
import re
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "examples" / "din" / "din.ipynb"


def code_cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_every_cell_was_run_from_top_to_bottom_without_an_error():
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert not [output for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]


def test_it_has_its_figures_and_stays_small():
    figures = [output for cell in code_cells() for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(figures) >= 6
    assert NOTEBOOK.stat().st_size < 2_000_000


def test_it_names_no_place_of_the_machine_that_ran_it():
    texts = re.sub(r'"image/png": "[^"]*"', "", NOTEBOOK.read_text())
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|usr|Users|mnt|var)/[\w.]+", texts)
