"""VTK XML PolyData (.vtp), which VTK, ParaView, 3D Slicer and VMTK read: lines of graphs and faces of meshes."""

import base64
from pathlib import Path

import numpy as np

from vesselsdf.files import write_text

Arrays = dict[str, np.ndarray]
"""Arrays by name, (n,) or (n, components)."""


def write_polydata(
    path: str | Path,
    points: np.ndarray,
    cells: dict[str, tuple[np.ndarray, np.ndarray]],
    point_data: Arrays,
    cell_data: Arrays,
) -> None:
    """Write points (n, 3), the cells among them and the data of both, atomically.

    cells: for `Verts`, `Lines` or `Polys` the points of all cells in a row, and the number of points of each cell.
    cell_data: in VTK's order of cells, which is that of the three names.

    The field array `SPACE` says that points are RAS mm, or 3D Slicer would take them for LPS.
    Integers and floats are kept as they are (4 or 8 bytes, or uint8); booleans become uint8.
    """
    kinds = ("Verts", "Lines", "Polys")
    counts = " ".join(f'NumberOf{kind}="{len(cells[kind][1]) if kind in cells else 0}"' for kind in kinds)
    parts = [
        vtk_section("PointData", point_data),
        vtk_section("CellData", cell_data),
        vtk_section("Points", {"Points": points}),
        *(
            vtk_section(kind, {"connectivity": cells[kind][0], "offsets": np.cumsum(cells[kind][1], dtype=np.int64)})
            for kind in kinds
            if kind in cells
        ),
    ]
    body = "\n".join(parts)
    write_text(
        path,
        '<?xml version="1.0"?>\n'
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n<PolyData>\n'
        f"{SPACE}\n"
        f'<Piece NumberOfPoints="{len(points)}" {counts} NumberOfStrips="0">\n{body}\n'
        "</Piece>\n</PolyData>\n</VTKFile>\n",
    )


def vtk_section(tag: str, arrays: Arrays) -> str:
    """One element of a VTK XML file with its arrays, base64 with a length in front (inline binary)."""
    lines = [f"<{tag}>"]
    for name, array in arrays.items():
        kind = vtk_type(array.dtype)
        raw = np.ascontiguousarray(array, dtype=kind.newbyteorder("<")).tobytes()
        text = base64.b64encode(np.uint64(len(raw)).astype("<u8").tobytes() + raw).decode("ascii")
        components = f' NumberOfComponents="{array.shape[1]}"' if array.ndim == 2 else ""
        lines.append(
            f'<DataArray type="{VTK_NAMES[kind.name]}" Name="{name}"{components} format="binary">{text}</DataArray>'
        )
    return "\n".join([*lines, f"</{tag}>"])


SPACE = (
    '<FieldData><DataArray type="String" Name="SPACE" NumberOfTuples="1" format="ascii">82 65 83 0</DataArray>'
    "</FieldData>"
)
"""The string RAS, as VTK's XML writes strings: numbers of characters."""

VTK_NAMES = {
    "uint8": "UInt8", "int32": "Int32", "int64": "Int64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def vtk_type(dtype: np.dtype) -> np.dtype:
    """The type that an array is written in."""
    if dtype.name in VTK_NAMES:
        return dtype
    return np.dtype("uint8" if dtype.kind == "b" else "int64" if dtype.kind in "iu" else "float64")
