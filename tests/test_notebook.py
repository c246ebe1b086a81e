"""The notebook of the documentation runs from a clean kernel and says what its text says."""

import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'vesselsdf[docs]'")
nbformat = pytest.importorskip("nbformat")


def outputs_of(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def said(outputs: list, where: str) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == where)


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert outputs_of(notebook) == []
    assert all(cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_it_runs_and_finds_the_tree_with_two_loops():
    """One test, so that processes that share the tests among them run it once."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with warnings.catch_warnings():
        # What Jupyter's own modules warn of is not ours; the kernel is another process.
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = outputs_of(notebook)
    text = said(outputs, "stdout")
    assert "components, loops, cavities: (1, 2, 0)" in text
    assert "field, mesh and graph agree: True" in text
    assert "watertight: True" in text
    dice = float(next(line for line in text.splitlines() if line.startswith("dice ")).split()[1])
    assert dice > 0.95

    pictures = [output for output in outputs if output.output_type == "display_data" and "image/png" in output.data]
    assert len(pictures) == 2
    assert said(outputs, "stderr") == ""

    readme = (NOTEBOOK.parents[1] / "README.md").read_text(encoding="utf-8")
    for name in ("sdf.nii.gz", "sdf.zarr", "vessels.nii.gz", "centreline.json", "branches.csv", "topology.json"):
        assert name in text, f"it does not save {name}"
        assert f"`{name}`" in readme
