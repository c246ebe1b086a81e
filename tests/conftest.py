"""Shape and type checks on every annotated function of the package, while tests run and only then."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# The tests run in one process per core; more threads would only fight for the cores. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PACKAGE = Path(__file__).resolve().parents[1] / "vesselsdf"
# numba compiles functions as they are written, so the modules of its kernels stay without checks.
_checked = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" and not {"@kernel", "@inner"} & set(path.read_text(encoding="utf-8").splitlines())
]
_hook = install_import_hook(_checked, "beartype.beartype")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Folder of real public data beside the project; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real public data not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def busy_network():
    """Random weights that make corrections large and every level partly active; running statistics set once."""
    import torch

    from vesselsdf.network import VesselNet

    torch.manual_seed(0)
    network = VesselNet()
    torch.nn.init.constant_(network.coarsest.bias, 0.1)
    torch.nn.init.normal_(network.coarsest.weight, std=0.2)
    for refinement in network.refinements:
        torch.nn.init.normal_(refinement.correction.weight, std=0.5)
    network.train()
    with torch.no_grad():
        network(torch.randn(2, 1, 40, 40, 40))
    return network.eval()
