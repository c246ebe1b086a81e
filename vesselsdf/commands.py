"""The commands of the command line: options, a call of the API, what is printed of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from vesselsdf.constants import Modality
from vesselsdf.data_commands import data
from vesselsdf.export_commands import export
from vesselsdf.options import parse
from vesselsdf.train_command import train

Spacing = tuple[float, float, float]


def _reconstruct(arguments: list[str]) -> int:
    import tyro

    def command(
        volume: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
        checkpoint: Path | None = None,
        mask: bool = False,
        mend: bool = False,
        root: tuple[tuple[float, float, float], ...] = (),
        spacing: Spacing | None = None,
        memory: str | None = None,
        max_error: float | None = None,
        ids: tuple[int, ...] = (),
        each_class: bool = False,
        names: str | None = None,
    ) -> int:
        """Volume in; distance field, watertight mesh, centreline graph and topology report out.

        Args:
            volume: image file, or folder of a DICOM series.
            output: folder for the results.
            checkpoint: model.safetensors of a trained run; by default the general one that comes with the package.
            mask: the volume is a segmentation (vessel above 0); no network is used.
            mend: take out what noise of a voxel or two makes: holes, cavities, specks and gaps.
            root: where a tree begins, RAS mm (several: one after the other); by default its thickest end.
            spacing: voxel edges in mm, for .npy and TIFF files only.
            memory: that may be taken, as 4GB; what needs more is refused before it begins.
            max_error: of the distance fields in sdf.zarr, mm; by default an eighth of a voxel (a 64th near the wall).
            ids: with --mask: the label ids that are vessel; by default all above 0.
            each_class: with --mask: every id by itself, in a folder of its own, and a table of where they touch.
            names: of the ids, for --each-class: 1=artery,2=vein, a dataset card (topcow), a .toml or .json file.
        """
        from vesselsdf.api import reconstruct
        from vesselsdf.errors import InputError
        from vesselsdf.needs import gigabytes
        from vesselsdf.report.text import reconstruction_summary

        if max_error is not None and not max_error > 0:
            raise InputError(f"--max-error is {max_error}: give a positive length in mm.")
        if each_class:
            if not mask or mend or root or memory or checkpoint:
                raise InputError("--each-class goes with --mask, --ids, --names, --spacing and --max-error alone.")
            return _reconstruct_classes(volume, output, names, ids, spacing, max_error)
        if names:
            raise InputError("--names is for --each-class; --ids chooses what is vessel by number.")
        limit = gigabytes(memory) if memory else None
        made = reconstruct(volume, checkpoint, mask, spacing, mend, root, limit, ids or None)
        made.save(output, max_error)
        print(reconstruction_summary(made, output))
        return 0

    examples = (
        "  vesselsdf reconstruct scan.nii.gz -o result\n"
        "  vesselsdf reconstruct dicom_folder -o result --checkpoint runs/mine/model.safetensors\n"
        "  vesselsdf reconstruct label.nii.gz -o result --mask\n"
        "  vesselsdf reconstruct label.nii.gz -o result --mask --mend --root -12.5 40 -310\n"
        "  vesselsdf reconstruct label.nii.gz -o result --mask --ids 1 3\n"
        "  vesselsdf reconstruct label.nii.gz -o result --mask --each-class --names 1=artery,2=vein"
    )
    return parse(command, "reconstruct", examples, arguments)


def _reconstruct_classes(volume, output, names, ids, spacing, max_error) -> int:
    from vesselsdf.classes import reconstruct_classes, save_classes
    from vesselsdf.report.text import classes_table
    from vesselsdf.volume import read_volume

    made = reconstruct_classes(volume, names, ids or None, spacing)
    print(classes_table(save_classes(made, read_volume(volume, spacing), output, max_error), output))
    return 0


def _blocks(arguments: list[str]) -> int:
    import tyro

    def command(
        volume: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
        block: int | None = None,
        memory: str = "4GB",
        workers: int = 1,
        part: str | None = None,
        dask: str | None = None,
        checkpoint: Path | None = None,
        spacing: Spacing | None = None,
        max_error: float | None = None,
    ) -> int:
        """Distance field, mask and topology of a volume that fits into no memory, block by block.

        The result is the same whatever the blocks and whoever does them. A run that was interrupted goes on with what
        is left when the same command is given again.

        Args:
            volume: OME-Zarr, or a plain Zarr array.
            output: folder for the results; all workers must see it.
            block: voxels along the edge of a block, a multiple of 8; by default as many as `memory` allows.
            memory: that each worker may take, as 4GB.
            workers: processes on this machine.
            part: do the k-th of n parts, as 3/8: for job arrays, one part per job.
            dask: address of a Dask scheduler, or 'local' for a cluster of `workers` on this machine.
            checkpoint: model.safetensors of a trained run; by default the general one that comes with the package.
            spacing: voxel edges in mm, for plain arrays only.
            max_error: of the distance field that is kept, mm; by default an eighth of a voxel.
        """
        from vesselsdf.blockwise.executors import chosen
        from vesselsdf.blockwise.run import make_plan, reconstruct_in_blocks, tidy
        from vesselsdf.needs import gigabytes

        plan = make_plan(volume, checkpoint, spacing, block, max_error, gigabytes(memory))
        report = reconstruct_in_blocks(plan, output, chosen(workers, part, dask))
        if part is None:  # other parts may still be at work
            tidy(output)
        print("components {}, loops {}, cavities {} (26 for vessels, 6 for background)".format(*report["betti"]))
        print(f"Distance field, mask, mesh, centreline and topology: {output}")
        return 0

    examples = (
        "  vesselsdf blocks brain.zarr -o result --workers 4\n"
        "  vesselsdf blocks brain.zarr -o result --part 3/8          the third of eight jobs\n"
        "  vesselsdf blocks brain.zarr -o result --dask tcp://node1:8786"
    )
    return parse(command, "blocks", examples, arguments)


def _convert(arguments: list[str]) -> int:
    import tyro

    def command(
        scan: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        spacing: Spacing | None = None,
    ) -> int:
        """Write a scan as OME-Zarr, which `vesselsdf blocks` reads; some layers at a time are in memory.

        Args:
            scan: NIfTI, a folder of TIFF slices, a TIFF stack, .npy; or any other scan that fits into memory.
            output: name of the new OME-Zarr folder.
            spacing: voxel edges in mm, for .npy and TIFF files only.
        """
        from vesselsdf.conversion import convert

        made = convert(scan, output, spacing)
        edges = " x ".join(f"{edge:.4g}" for edge in made.spacing)
        print(f"{output}: {' x '.join(map(str, made.shape))} voxels of {edges} mm")
        print(f"Next: vesselsdf blocks {output} -o result")
        return 0

    examples = (
        "  vesselsdf convert scan.nii.gz scan.zarr\n  vesselsdf convert slices/ brain.zarr --spacing 0.001 0.001 0.002"
    )
    return parse(command, "convert", examples, arguments)


def _mesh(arguments: list[str]) -> int:
    import tyro

    def command(
        source: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
        mask: bool = False,
        smooth: bool = False,
        faces: int | None = None,
        error: float | None = None,
        open_ends: bool = False,
        root: tuple[tuple[float, float, float], ...] = (),
    ) -> int:
        """A mesh for printing, rendering or flow simulation: smoothed, decimated, cut open at its ends.

        Args:
            source: folder of a reconstruction, a distance field (mm), or with --mask a segmentation.
            output: .ply, .stl, .obj, .glb or .vtp; with --open-ends .vtp, .stl or .obj.
            mask: the source is a segmentation (vessel above 0).
            smooth: smooth the wall; its volume stays within 1%, every vertex within a quarter of a voxel of the wall.
            faces: decimate to that many faces.
            error: decimate as far as this distance from the wall allows, mm.
            open_ends: cut every end flat; wall, inlets and outlets become groups, and a table of the caps is written.
            root: where flow comes in, RAS mm (several: one after the other); by default the thickest end of each tree.
        """
        from vesselsdf.api import make_mesh
        from vesselsdf.report.text import mesh_summary

        print(mesh_summary(make_mesh(source, output, mask, smooth, faces, error, open_ends, root), output))
        return 0

    examples = (
        "  vesselsdf mesh result -o vessels.stl --smooth --faces 50000\n"
        "  vesselsdf mesh label.nii.gz -o flow.vtp --mask --smooth --open-ends\n"
        "  vesselsdf mesh result -o flow.stl --open-ends --root -12.5 40 -310"
    )
    return parse(command, "mesh", examples, arguments)


def _evaluate(arguments: list[str]) -> int:
    import tyro

    def command(
        prediction: Path | None = None,
        reference: Path | None = None,
        run: Path | None = None,
        levels: bool = False,
        names: str | None = None,
        align: bool = False,
        require_topology: bool = False,
        image: Path | None = None,
        output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    ) -> int:
        """Compare a prediction with a reference, or measure a trained run on its held-out cases.

        Args:
            prediction: mask or distance field, or a folder of them.
            reference: the truth on the same grid, or a folder with files of the same names.
            run: folder of a trained run; by default the newest, if no prediction is given.
            levels: also say what survives at coarser levels of the prediction.
            names: of label ids, for labels with several: 1=BA,2=R-PCA, a dataset card (topcow), a .toml or .json file.
            align: bring labels with several ids together, if they are on different grids or in different frames.
            require_topology: exit with code 4 unless all Betti numbers agree and nothing is lost or invented.
            image: the scan, or a folder of them, for the slices of the page.
            output: folder for report.html, evaluation.json and evaluation.csv.
        """
        return _run_evaluation(prediction, reference, run, levels, names, align, require_topology, image, output)

    examples = (
        "  vesselsdf evaluate\n"
        "  vesselsdf evaluate --prediction p.nii.gz --reference r.nii.gz --levels\n"
        "  vesselsdf evaluate --prediction predicted/ --reference labels/ -o table --require-topology\n"
        "  vesselsdf evaluate --prediction ct.nii.gz --reference mr.nii.gz --align --names topcow"
    )
    return parse(command, "evaluate", examples, arguments)


def _run_evaluation(prediction, reference, run, levels, names, align, require_topology, image, output) -> int:
    from vesselsdf import api, file_evaluation
    from vesselsdf.errors import InputError, TopologyCheckFailed
    from vesselsdf.report.text import evaluation_table, run_table

    if (prediction is None) != (reference is None):
        missing = "--reference" if reference is None else "--prediction"
        raise InputError(f"evaluate: {missing} is missing; --prediction and --reference come together.")
    if image is not None and output is None:
        raise InputError("evaluate: --image is for the page; say with -o where it is to be written.")
    if prediction is None:
        if names or align or image:
            raise InputError("evaluate: --names, --align and --image are for files; give --prediction and --reference.")
        report = api.evaluate_run(run, output)
        output = output or Path(report["run"])
        print(run_table(report))
    else:
        report = file_evaluation.evaluate_files(prediction, reference, levels, names, align, output, image)
        print(evaluation_table(report))
    if output is not None:
        print(f"\nLook at {output / 'report.html'} in a browser.")
    if require_topology:
        wrong = file_evaluation.topology_differences(report)
        if wrong:
            raise TopologyCheckFailed(f"The topology differs from the reference: {'; '.join(wrong)}.")
    return 0


def _compare(arguments: list[str]) -> int:
    import tyro

    def command(
        predictions: Annotated[tuple[Path, ...], tyro.conf.Positional],
        reference: Path,
        image: Path | None = None,
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("compare.html"),
    ) -> int:
        """Several methods on one case, side by side: one page to look at, and a table.

        Args:
            predictions: masks or distance fields of one case, by different methods.
            reference: the truth, on the same grid.
            image: the scan, for the slices of the page.
            output: the page; the metrics are written beside it as CSV.
        """
        from vesselsdf.errors import InputError
        from vesselsdf.file_evaluation import compare
        from vesselsdf.report.text import methods_table

        if not predictions:
            raise InputError("compare: give the predictions of at least one method.")
        found = compare(predictions, reference, image)
        found.save(output)
        print(methods_table(found.methods))
        print(f"\nLook at {output} in a browser; the whole table is {output.with_suffix('.csv')}.")
        return 0

    examples = (
        "  vesselsdf compare ours.nii.gz nnunet.nii.gz --reference label.nii.gz\n"
        "  vesselsdf compare a/case7.nii.gz b/case7.nii.gz --reference label.nii.gz --image scan.nii.gz -o case7.html"
    )
    return parse(command, "compare", examples, arguments)


def _synth(arguments: list[str]) -> int:
    import tyro

    def command(
        output: Annotated[Path, tyro.conf.Positional],
        cases: int = 8,
        seed: int = 0,
        modality: Modality = "ct",
        size: int = 128,
        spacing: float = 0.5,
    ) -> int:
        """Write synthetic cases: images/, labels/, sdf/ and graphs/ (JSON and SWC).

        Args:
            output: folder for the cases; `vesselsdf train --data.root` takes it as it is.
            cases: how many.
            seed: every draw follows from it.
            modality: what the images look like.
            size: voxels along each edge.
            spacing: voxel edge, mm.
        """
        from vesselsdf.api import synthesise

        written = synthesise(output, cases, seed, modality, size, spacing)
        print(f"Wrote {len(written)} cases to {output} (images, labels, sdf, graphs).")
        return 0

    return parse(command, "synth", "  vesselsdf synth trees --cases 20 --seed 7 --modality mr", arguments)


def _inspect(arguments: list[str]) -> int:
    import tyro

    def command(
        volume: Annotated[Path, tyro.conf.Positional], checkpoint: Path | None = None, spacing: Spacing | None = None
    ) -> int:
        """Say what a file holds, what reconstructing it will take, and whether the network knows scans like it.

        Args:
            volume: image or mask file, or folder of a DICOM series.
            checkpoint: model.safetensors of a trained run; by default the general one that comes with the package.
            spacing: voxel edges in mm, for .npy and TIFF files only.
        """
        from vesselsdf.api import inspect
        from vesselsdf.report.text import inspection

        print(inspection(inspect(volume, spacing, checkpoint)))
        return 0

    return parse(command, "inspect", "  vesselsdf inspect scan.nii.gz\n  vesselsdf inspect dicom_folder", arguments)


def _doctor(arguments: list[str]) -> int:
    def command() -> int:
        """Examine this machine: versions, devices, bf16, one forward pass; say what is wrong."""
        from vesselsdf.doctor import examine

        findings = examine()
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            print(f"{finding.what:<{width}}  {finding.value}")
        advice = [finding.advice for finding in findings if finding.advice]
        print("\n" + ("\n".join(f"! {line}" for line in advice) if advice else "Nothing is wrong."))
        return 0

    return parse(command, "doctor", "  vesselsdf doctor", arguments)


COMMANDS: dict[str, Callable[[list[str]], Any]] = {
    "train": train,
    "reconstruct": _reconstruct,
    "blocks": _blocks,
    "convert": _convert,
    "mesh": _mesh,
    "evaluate": _evaluate,
    "compare": _compare,
    "synth": _synth,
    "data": data,
    "export": export,
    "inspect": _inspect,
    "doctor": _doctor,
}
