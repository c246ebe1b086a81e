"""The notebook of the documentation runs from a clean kernel and says what its text says."""

import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'vesselsdf[docs]'")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with warnings.catch_warnings():
        # What Jupyter's own modules warn of is not ours; the kernel is another process.
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return notebook


def said(notebook) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def test_it_is_kept_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_the_tree_with_two_loops_is_found(executed):
    text = said(executed)
    assert "components, loops, cavities: (1, 2, 0)" in text
    assert "field, mesh and graph agree: True" in text
    assert "watertight: True" in text
    dice = float(next(line for line in text.splitlines() if line.startswith("dice ")).split()[1])
    assert dice > 0.95


def test_what_it_saves_is_what_the_readme_lists(executed):
    text = said(executed)
    readme = (NOTEBOOK.parents[1] / "README.md").read_text(encoding="utf-8")
    for name in ("sdf.nii.gz", "sdf.zarr", "vessels.nii.gz", "centreline.json", "branches.csv", "topology.json"):
        assert name in text
        assert f"`{name}`" in readme


def test_it_draws_two_figures_and_warns_of_nothing(executed):
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if output.output_type == "display_data" and "image/png" in output.data]
    assert len(pictures) == 2
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
