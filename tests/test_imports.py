"""The shape of the package: imports point one way, importing it is cheap, only the command line prints."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vesselsdf"

# Each module may import those above it. A folder's name stands for all its modules that are not listed by themselves.
ORDER = """
    constants errors compiled files progress streams vtk_xml resampling marching
    prolongation_kernels volume scales field_store zarr_volume itk dicom tiff formats conversion
    distance
    topology.betti
    synthesis
    config preprocessing
    planes prolongation convolution image_kernels image_features site_kernels sites
    processes network
    topology
    losses
    roots rooted branch_shape murray anatomy branch_table
    skeleton sections centring false_features masks graph graph_files branch_persistence agreement
    mesh
    surface_distance overlap centreline_points comparison metric_table metrics
    alignment segments segment_comparison
    familiarity optimiser checkpoint data segment_findings sources sampling inference needs trackers training
    training_facts
    report reconstruction blockwise blockwise.plan blockwise.band blockwise.skeleton
    blockwise.graph_parts blockwise.centreline blockwise.wall
    blockwise.tasks blockwise.executors blockwise.outlook blockwise.run
    classes export.result export data_check evaluation file_evaluation runs doctor api
    options data_commands export_commands train_command commands cli
""".split()  # noqa: SIM905 (rows that belong together are easier to keep in order than a list of one name a line)

# A module and its own backend, which is imported only when a file of its kind is met.
BACKENDS = {("volume", "formats"), ("itk", "formats")}

COMMAND_LINE = {"cli", "commands", "data_commands", "export_commands", "options", "train_command"}

# Hands names on from everywhere, on first use.
ROOT = "__init__"


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__") if name != ROOT else name


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def rank(name: str) -> int | None:
    """Place in the order, by the module's own name or else its folder's."""
    for candidate in (name, name.split(".")[0]):
        if candidate in ORDER:
            return ORDER.index(candidate)
    return None


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Modules of this package that a file imports anywhere, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path.name}:{node.lineno} has a relative import: write the full name of the module"
            )
            # `from vesselsdf import volume` imports a module, `from vesselsdf.volume import Volume` a name of one.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "vesselsdf" or name.startswith("vesselsdf."):
                inner = name.removeprefix("vesselsdf").removeprefix(".")
                while inner and inner not in MODULES:
                    inner = inner.rpartition(".")[0]
                if inner:
                    found.append((inner, node.lineno))
    return found


@pytest.mark.parametrize("name", [name for name in MODULES if name != ROOT])
def test_imports_point_to_earlier_modules_only(name):
    own = rank(name)
    assert own is not None, f"vesselsdf.{name} is missing from ORDER in {__file__}: put it after all that it imports"
    for imported, line in imports_of(MODULES[name]):
        theirs = rank(imported)
        assert theirs is not None, f"vesselsdf.{imported} is missing from ORDER in {__file__}"
        if (name, imported) in BACKENDS or imported == name:
            continue
        assert theirs < own or (theirs == own and imported.split(".")[0] == name.split(".")[0]), (
            f"{MODULES[name]}:{line} imports vesselsdf.{imported}, which comes after vesselsdf.{name} in ORDER: "
            "move what is shared into an earlier module, or hand it in as an argument"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_modules_of_one_folder_do_not_import_in_circles(name):
    seen, waiting = set(), [name]
    while waiting:
        for imported, _ in imports_of(MODULES[waiting.pop()]):
            if imported.startswith(name.split(".")[0] + ".") and imported not in seen:
                seen.add(imported)
                waiting.append(imported)
    assert name not in seen, f"vesselsdf.{name} imports itself through {sorted(seen)}"


@pytest.mark.parametrize("module", ["vesselsdf", "vesselsdf.cli"])
def test_importing_is_cheap_and_leaves_the_heavy_packages_alone(module):
    if module.removeprefix("vesselsdf.") not in MODULES and module != "vesselsdf":
        pytest.fail(f"{module} does not exist")
    code = (
        f"import sys, time; start = time.perf_counter(); import {module}; took = time.perf_counter() - start;"
        "print(took, *sorted({'torch', 'monai', 'SimpleITK', 'matplotlib', 'gudhi', 'vtk'} & set(sys.modules)))"
    )
    best = float("inf")
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
        )
        took, *heavy = run.stdout.split()
        assert heavy == [], f"import {module} also imports {heavy}: import them inside the functions that need them"
        best = min(best, float(took))
        time.sleep(0.1)
    assert best < 0.5


@pytest.mark.parametrize("name", [name for name in MODULES if name not in COMMAND_LINE])
def test_only_the_command_line_prints(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{MODULES[name]}:{node.lineno} prints: use logging.getLogger(__name__)"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_too_long(name):
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= 420, f"{MODULES[name]} has {lines} lines: it wants to be two modules"


@pytest.mark.parametrize("name", [name for name in MODULES if name != ROOT])
def test_torch_is_imported_at_the_top_only_where_networks_live(name):
    heavy = {"torch", "monai"}
    tops = [node for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body]
    imported = {alias.name.split(".")[0] for node in tops if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in tops if isinstance(node, ast.ImportFrom)}
    allowed = {"network", "sites", "image_features", "losses", "optimiser", "sampling", "training", "inference"}
    allowed |= {"checkpoint", "convolution", "doctor", "processes", "planes", "prolongation"}
    allowed |= {"export.bundle_parts", "export.network_graph"}
    assert not imported & heavy or name in allowed, f"{MODULES[name]} imports {imported & heavy} at its top"
