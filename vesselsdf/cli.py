"""The command line: finds the command, and turns errors into a sentence and an exit code."""

import sys
from collections.abc import Callable, Sequence

from vesselsdf import __version__
from vesselsdf.commands import COMMANDS

HELP = f"""vesselsdf {__version__}: vessel networks from CT and MR volumes, with their topology verified.

usage: vesselsdf COMMAND [options]        vesselsdf COMMAND --help for the options of one command

  train        train the network on your cases, or on synthetic vessel trees
  reconstruct  volume in; distance field, watertight mesh, centreline graph and topology report out
  blocks       the same of a volume that fits into no memory, block by block, on one machine or many
  convert      a scan, or a folder of TIFF slices, as OME-Zarr for `blocks`
  mesh         smooth, decimate or open the ends of a reconstruction's mesh, for simulation, print or rendering
  evaluate     compare masks or distance fields with a reference, or measure a trained run
  compare      several methods on one case, side by side on one page
  synth        write synthetic cases: image, label, exact distance field, graph
  data         data sets that load by name: list, show, check a copy of one, prepare it for training
  export       models and results for MONAI, ONNX, DICOM, 3D Slicer, VMTK, Neuroglancer
  inspect      say what a file holds, and what reconstructing it will take
  doctor       examine this machine and say what is wrong with it

examples:
  vesselsdf train                                         the small network on synthetic trees
  vesselsdf train --data.root my_cases                    on your own (nnU-Net, MSD or images/ + labels/ folders)
  vesselsdf train --data.root my_cases --training.start general       fine-tune the weights that come with it
  vesselsdf reconstruct scan.nii.gz -o result             with the weights that come with it
  vesselsdf reconstruct mask.nii.gz -o result --mask      from anybody's segmentation, no network
  vesselsdf convert slices/ brain.zarr --spacing 0.001 0.001 0.002
  vesselsdf blocks brain.zarr -o result --workers 4       of an OME-Zarr volume of any size
  vesselsdf mesh result -o flow.vtp --smooth --open-ends  wall, inlets and outlets for flow simulation
  vesselsdf evaluate                                      the newest run on its held-out cases
  vesselsdf evaluate --prediction p.nii.gz --reference r.nii.gz --levels -o measured
  vesselsdf compare ours.nii.gz theirs.nii.gz --reference r.nii.gz --image scan.nii.gz
  vesselsdf export seg result --series dicom_folder       the mask as DICOM SEG

exit codes: 0 ok, 2 usage or bad input, 3 failed run, 4 topology check failed (evaluate --require-topology)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"vesselsdf {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"vesselsdf: there is no command '{name}'; choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return _guarded(COMMANDS[name], rest)


def _guarded(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    import logging
    import warnings

    from vesselsdf.errors import VesselSDFError
    from vesselsdf.progress import shown

    logging.basicConfig(level=logging.WARNING, format="vesselsdf: %(message)s")
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # other packages' deprecations are no news to a user
    try:
        with shown(sys.stderr.isatty()):
            return command(arguments)
    except VesselSDFError as error:
        print(f"vesselsdf: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print(
            "vesselsdf: memory ran out: reconstruct it in blocks (`vesselsdf blocks`), or crop the volume; "
            "`vesselsdf inspect` says what it needs.",
            file=sys.stderr,
        )
        return 3
    except KeyboardInterrupt:
        print("vesselsdf: interrupted.", file=sys.stderr)
        return 130


def entry() -> None:
    """Console script: exit with the command's code."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
