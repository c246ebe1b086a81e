"""What the configuration of an exported MONAI bundle is made of: reader, transforms, network and inferer.

They do what `vesselsdf.reconstruct` does up to the field, by the same functions, so that both give the same numbers.
Positions are RAS mm, as `vesselsdf.volume` has them and MONAI's NIfTI reader too.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor

from vesselsdf.checkpoint import load_model
from vesselsdf.inference import predict
from vesselsdf.network import VesselNet
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.volume import Volume, check_image, read_volume, resample

Keys = str | Sequence[Hashable]
Item = dict[Any, Any]


class FinestField(VesselNet):
    """The network with one output, the field of level 0, as MONAI's tools expect it of a network."""

    def forward(  # type: ignore[override]
        self, image: Tensor, spacing: float | Tensor = 1.0, acquisition: Tensor | None = None
    ) -> Tensor:
        """(B, 1, X, Y, Z) normalised -> (B, 1, X, Y, Z) in units of `spacing`; see `VesselNet.forward`."""
        return super().forward(image, spacing, acquisition)[0]


def with_weights(network: VesselNet, path: str | Path, device: str | torch.device = "cpu") -> VesselNet:
    """The network with the weights of a checkpoint (safetensors; nothing is unpickled), on a device, to evaluate."""
    network.load_state_dict(load_model(path).network.state_dict())
    return network.to(device).eval()


class VolumeReader(ImageReader):
    """`vesselsdf.read_volume` as a reader of MONAI's: all its formats and checks; `InputError` for a bad file."""

    def verify_suffix(self, filename: Any) -> bool:
        """Every file is tried: what cannot be read is refused with a reason."""
        return True

    def read(self, data: Any, **kwargs: Any) -> Volume:
        """`data`: a path, alone or in a sequence of one."""
        (path,) = [data] if isinstance(data, str | Path) else data
        return read_volume(path)

    def get_data(self, img: Volume) -> tuple[np.ndarray, dict[str, Any]]:
        """Voxels (X, Y, Z) and what MONAI wants to know of them."""
        affine = {"affine": img.affine, "original_affine": img.affine.copy()}
        return img.array, affine | {"spatial_shape": np.array(img.shape), "space": "RAS"}


class WorkingGridd(MapTransform):
    """An image (1, X, Y, Z) with its affine on the network's isotropic grid, normalised.

    Adds what is needed further on: `spacing` (mm), `acquisition` (4,), and the grid of the input, `input_affine` and
    `input_shape`. Arguments: see `Preprocessing`.
    """

    def __init__(
        self, keys: Keys = "image", spacing: float | None = None, window: Sequence[float] | None = None
    ) -> None:
        super().__init__(keys)
        # Through JSON's types, as configurations bring lists where settings are tuples.
        self.settings = Preprocessing.model_validate({"spacing": spacing, "window": window})

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """The item with the image replaced."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            volume = Volume(image[0].cpu().numpy(), image.affine.cpu().numpy())
            check_image(volume, str(image.meta.get("filename_or_obj", "the image")))
            working = self.settings.working_volume(volume)
            result[key] = _placed(working.array.astype(np.float32, copy=False), working.affine, image)
            result["spacing"] = torch.tensor(self.settings.working_spacing(volume), dtype=torch.float64)
            result["acquisition"] = torch.from_numpy(self.settings.acquisition(volume))
            result["input_affine"] = torch.from_numpy(volume.affine)
            result["input_shape"] = torch.tensor(volume.shape)
        return result


class ActiveVoxelInferer(Inferer):
    """Evaluates a network where the field can change sign, with slabs instead of windows: `inference.predict`."""

    def __init__(self, threshold: float | int = 0.0) -> None:
        """`threshold`: the network's value, in working voxels, that is taken to be the wall (`Preprocessing`)."""
        super().__init__()
        self.threshold = threshold

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> MetaTensor:
        """(B, 1, X, Y, Z) and, by name, `spacing` (B,) and `acquisition` (B, 4) -> distance in mm, (B, 1, X, Y, Z)."""
        fields = []
        for image, spacing, acquired in zip(inputs, kwargs["spacing"], kwargs["acquisition"], strict=True):
            edge = float(spacing)
            field = predict(network, image[0].cpu().numpy(), edge, acquired.cpu().numpy())[0]
            fields.append(torch.from_numpy(field - np.float32(self.threshold * edge))[None])
        result = MetaTensor(torch.stack(fields))
        return result.copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result


class InputGridMaskd(MapTransform):
    """The mask (uint8, 0 or 1) of a distance field on the grid of the input image, under the key `mask`."""

    def __init__(self, keys: Keys = "pred", mask: str = "mask") -> None:
        super().__init__(keys)
        self.mask = mask

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """The item with the mask added."""
        result = dict(data)
        for key in self.key_iterator(result):
            sdf = result[key]
            field = Volume(sdf[0].cpu().numpy(), sdf.affine.cpu().numpy())
            x, y, z = result["input_shape"].tolist()
            affine = result["input_affine"].cpu().numpy()
            values = resample(field, (x, y, z), affine, order=1).array
            result[self.mask] = _placed((values <= 0).astype(np.uint8), affine, sdf)
        return result


def _placed(array: np.ndarray, affine: np.ndarray, like: MetaTensor) -> MetaTensor:
    """An array (X, Y, Z) as MONAI has it, with what else is known of another one (its file)."""
    meta = {key: value for key, value in like.meta.items() if key != "affine"}
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array[None])), affine=torch.from_numpy(affine), meta=meta)
