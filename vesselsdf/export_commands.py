"""`vesselsdf export`: models and results in the formats of other people's tools."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from vesselsdf.errors import InputError
from vesselsdf.options import parse

HELP = """Models and results in the formats of other tools.

  vesselsdf export bundle -o bundle                    the network as a MONAI bundle
  vesselsdf export onnx -o model.onnx                  the network for ONNX Runtime and its kin
  vesselsdf export seg result --series DICOM -o v.dcm  the mask as DICOM SEG on the frames of its series
  vesselsdf export slicer result                       segmentation and end points for 3D Slicer
  vesselsdf export vmtk result                         centrelines cut into branches, for VMTK
  vesselsdf export neuroglancer result -o folder       of any size: mask, wall and centreline for Neuroglancer

What each file is, and which tool opens it: docs/exports.md.
"""

Output = Path | None


def export(arguments: list[str]) -> int:
    """One of the exports; prints the help without any."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if arguments[0] not in ACTIONS:
        raise InputError(f"there is no `export {arguments[0]}`: use one of {', '.join(ACTIONS)}")
    return ACTIONS[arguments[0]](arguments[1:])


def _bundle(arguments: list[str]) -> int:
    import tyro

    def command(
        checkpoint: Path | None = None,
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("vesselsdf_bundle"),
    ) -> int:
        """Write a checkpoint as a MONAI bundle, which makes the same field as `vesselsdf reconstruct`.

        Args:
            checkpoint: model.safetensors of a trained run; by default the general one that comes with the package.
            output: folder of the bundle.
        """
        from vesselsdf.export.bundle import write_bundle

        write_bundle(output, checkpoint)
        print(f"MONAI bundle: {output}")
        print(
            f"Run it: python -m monai.bundle run --config_file {output}/configs/inference.json --bundle_root {output} "
            "--datalist \"['scan.nii.gz']\" --output_dir out   (needs: pip install 'vesselsdf[bundle]')"
        )
        return 0

    examples = (
        "  vesselsdf export bundle\n  vesselsdf export bundle --checkpoint runs/mine/model.safetensors -o my_bundle"
    )
    return parse(command, "export bundle", examples, arguments)


def _onnx(arguments: list[str]) -> int:
    import tyro

    def command(
        checkpoint: Path | None = None,
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("vesselsdf.onnx"),
    ) -> int:
        """Write the network of a checkpoint as ONNX, for volumes of any size, all levels; how to use it is in the file.

        Args:
            checkpoint: model.safetensors of a trained run; by default the general one that comes with the package.
            output: .onnx file.
        """
        from vesselsdf.export.onnx_file import write_onnx

        write_onnx(output, checkpoint)
        print(f"ONNX model: {output}")
        print(
            "Open it with ONNX Runtime or Netron; inputs image and acquisition, outputs level_0, ... (metadata_props)."
        )
        return 0

    examples = "  vesselsdf export onnx\n  vesselsdf export onnx --checkpoint runs/mine/model.safetensors -o model.onnx"
    return parse(command, "export onnx", examples, arguments)


def _seg(arguments: list[str]) -> int:
    import tyro

    def command(
        result: Annotated[Path, tyro.conf.Positional],
        series: Path,
        output: Annotated[Output, tyro.conf.arg(aliases=["-o"])] = None,
    ) -> int:
        """Write the mask of a result as DICOM Segmentation that refers to the series of the scan.

        Args:
            result: folder of a reconstruction.
            series: folder of the DICOM series, whose frames the mask is put on.
            output: .dcm file; by default vessels.dcm in the folder of the result.
        """
        from vesselsdf.export.dicom_seg import write_seg

        path = output or result / "vessels.dcm"
        count = write_seg(result, series, path)
        print(f"DICOM SEG: {path} ({count} voxels are vessel)")
        print("Open it together with its series in OHIF, 3D Slicer, MITK or a PACS.")
        return 0

    examples = (
        "  vesselsdf export seg result --series dicom_folder\n"
        "  vesselsdf export seg result --series dicom_folder -o vessels.dcm"
    )
    return parse(command, "export seg", examples, arguments)


def _slicer(arguments: list[str]) -> int:
    import tyro

    def command(
        result: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Output, tyro.conf.arg(aliases=["-o"])] = None,
    ) -> int:
        """Write a result for 3D Slicer: the mask as a segmentation, roots and ends of vessels as points.

        Args:
            result: folder of a reconstruction.
            output: folder for vessels.seg.nrrd and ends.mrk.json; by default slicer in the folder of the result.
        """
        from vesselsdf.export.slicer import ENDS, SEGMENTATION, write_slicer
        from vesselsdf.report.text import plural

        folder = output or result / "slicer"
        count = write_slicer(result, folder)
        print(f"3D Slicer: {folder / SEGMENTATION}, {folder / ENDS} ({plural(count, 'point')})")
        print("Drop both into Slicer's window, and mesh.vtp and centreline.vtp of the result with them.")
        return 0

    examples = "  vesselsdf export slicer result\n  vesselsdf export slicer result -o for_slicer"
    return parse(command, "export slicer", examples, arguments)


def _vmtk(arguments: list[str]) -> int:
    import tyro

    def command(
        result: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Output, tyro.conf.arg(aliases=["-o"])] = None,
    ) -> int:
        """Write the centrelines of a result as VMTK's own tools do: a line to each end, whole and cut into branches.

        Args:
            result: folder of a reconstruction.
            output: folder for centrelines.vtp and branches.vtp; by default vmtk in the folder of the result.
        """
        from vesselsdf.export.result import read_graph
        from vesselsdf.export.vmtk import TRACTS, WHOLE, write_vmtk
        from vesselsdf.report.text import plural

        folder = output or result / "vmtk"
        count, loops = write_vmtk(read_graph(result), folder)
        left = (
            f"; {plural(loops, 'branch that closes a loop is', 'branches that close loops are')} left out"
            if loops
            else ""
        )
        print(f"VMTK: {folder / WHOLE} ({plural(count, 'line')}), {folder / TRACTS}{left}")
        print("Open them with VMTK (vmtkbranchclipper, vmtkbifurcationreferencesystems), ParaView or 3D Slicer.")
        return 0

    examples = "  vesselsdf export vmtk result\n  vesselsdf export vmtk result -o for_vmtk"
    return parse(command, "export vmtk", examples, arguments)


def _neuroglancer(arguments: list[str]) -> int:
    import tyro

    def command(
        result: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Output, tyro.conf.arg(aliases=["-o"])] = None,
    ) -> int:
        """Write a result of any size for Neuroglancer: mask at several resolutions, wall, centreline with radii.

        Args:
            result: folder of a reconstruction, in one piece or in blocks.
            output: folder; by default neuroglancer in the folder of the result.
        """
        from vesselsdf.export.neuroglancer import write_neuroglancer
        from vesselsdf.report.text import plural

        folder = output or result / "neuroglancer"
        made = write_neuroglancer(result, folder)
        counts = plural(made["levels"], "level"), plural(made["mesh"], "file of mesh", "files of mesh")
        print(f"Neuroglancer: {folder} ({', '.join(counts)}, {plural(made['vertices'], 'point')})")
        print("Serve the folder by a web server that allows CORS, and give Neuroglancer precomputed://http://ADDRESS")
        return 0

    examples = "  vesselsdf export neuroglancer result\n  vesselsdf export neuroglancer result -o for_neuroglancer"
    return parse(command, "export neuroglancer", examples, arguments)


ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "bundle": _bundle, "onnx": _onnx, "seg": _seg, "slicer": _slicer, "vmtk": _vmtk,
    "neuroglancer": _neuroglancer,
}  # fmt: skip
