"""The network as an ONNX graph, written operator by operator: dense, for volumes of any size.

`VesselNet.forward` looks up active voxels in tables and calls compiled kernels, which no exporter follows. Here every
level is computed everywhere and multiplied by its activity, which is zero outside the active voxels: the same
definition, so the same numbers up to rounding. Running statistics are folded into the convolutions before them.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from vesselsdf.image_features import BLOCK, FLAT
from vesselsdf.network import ACQUISITION, VesselNet

OPSET, IR = 18, 9
"""Versions of ONNX's operators and file format: those of 2023, which any runtime of today reads."""

Input = Any
"""A `Value`, what a constant is made of, or None for an input that is left out."""


@dataclass(frozen=True)
class Value:
    """What a node of a graph gives; arithmetic makes further nodes."""

    graph: "Graph"
    name: str

    def __add__(self, other: Input) -> "Value":
        return self.graph("Add", self, other)

    def __sub__(self, other: Input) -> "Value":
        return self.graph("Sub", self, other)

    def __mul__(self, other: Input) -> "Value":
        return self.graph("Mul", self, other)

    def __truediv__(self, other: Input) -> "Value":
        return self.graph("Div", self, other)


@dataclass
class Graph:
    """Nodes and constants of an ONNX graph that is being written."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def __call__(self, operator: str, *inputs: Input, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its `Value`, or a list of several. Numbers become float32, whole arrays int64."""
        from onnx import helper

        names = [self._name(one) for one in inputs]
        made = [f"{operator.lower()}_{len(self.nodes)}" + (f"_{k}" if outputs > 1 else "") for k in range(outputs)]
        self.nodes.append(helper.make_node(operator, names, made, name=f"{operator}_{len(self.nodes)}", **attributes))
        values = [Value(self, name) for name in made]
        return values if outputs > 1 else values[0]

    def _name(self, one: Input) -> str:
        return one.name if isinstance(one, Value) else "" if one is None else self.constant(one)

    def constant(self, value: Any) -> str:
        """The name of a constant: a tensor, an array, a number, or a list of whole numbers."""
        from onnx import numpy_helper

        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = np.ascontiguousarray(array, np.int64 if isinstance(value, list) else np.float32).reshape(array.shape)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def network_model(network: VesselNet) -> Any:
    """The `onnx.ModelProto` of a network in evaluation mode.

    Inputs: `image` (1, 1, X, Y, Z) and `acquisition` (1, 4), as `VesselNet.forward` has them. Outputs: `level_0` (1, 1,
    X, Y, Z), `level_1`, ... in working voxels, level `l` with `ceil(X / 2**l)` voxels. All float32.
    """
    from onnx import TensorProto, helper

    graph = Graph()
    fields = _fields(graph, network, Value(graph, "image"), Value(graph, "acquisition"))
    for level, one in enumerate(fields):
        graph.nodes.append(helper.make_node("Identity", [one.name], [f"level_{level}"], name=f"level_{level}"))

    def declared(name: str, axes: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    outputs = [
        declared(f"level_{k}", [1, 1, *(f"{axis}_{k}" if k else axis for axis in "XYZ")]) for k in range(len(fields))
    ]
    inputs = [declared("image", [1, 1, "X", "Y", "Z"]), declared("acquisition", [1, ACQUISITION])]
    whole = helper.make_graph(graph.nodes, "vesselsdf", inputs, outputs, graph.constants)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _fields(g: Graph, net: VesselNet, image: Value, acquisition: Value) -> list[Value]:
    """Fields of all levels, finest first."""
    contrast = _local_contrast(g, image)
    stems = [g("Concat", image, contrast, *_curvatures(g, contrast), axis=1)]
    for stage in net.stem:
        contrast = _pooled(g, _even(g, contrast), 2, 2)
        stems.append(_stem(g, stage, stems[-1], _curvatures(g, contrast), acquisition))
    features = stems[-1]
    for block in net.context:
        features = _residual(g, block, features)
    fields = [g("Conv", features, net.coarsest.weight, net.coarsest.bias) * 2.0 ** (net.levels - 1)]
    for level in range(net.levels - 2, -1, -1):
        shape = _sizes(g, stems[level])
        base = _finer(g, fields[-1], 2, shape)
        field, features = _refine(g, net, level, stems[level], base, _finer(g, features, 2, shape, "nearest"))
        fields.append(field)
    return fields[::-1]


def _local_contrast(g: Graph, image: Value) -> Value:
    """`image_features.LocalContrast`."""
    shape = _sizes(g, image)
    whole = _padded(g, image, g("Mod", g("Neg", shape), [BLOCK]))
    moments = [_pooled(g, power, BLOCK, BLOCK) for power in (whole, whole * whole)]
    mean, square = (_pooled(g, _wide(g, one), 3, 1) for one in moments)
    deviation = g("Sqrt", g("Relu", square - mean * mean) + FLAT)
    scale = g("Reciprocal", deviation)
    return (image - _finer(g, mean, BLOCK, shape)) * _finer(g, scale, BLOCK, shape)


def _curvatures(g: Graph, image: Value) -> list[Value]:
    """`image_features.curvatures`: smoothing and second differences are convolutions."""
    line = np.array([0.25, 0.5, 0.25])
    smooth = g("Conv", _wide(g, image), (line[:, None, None] * line[:, None] * line)[None, None])
    wide = _wide(g, smooth)
    xx, yy, zz, xy, xz, yz = (g("Conv", wide, kernel[None, None]) for kernel in second_differences())
    mean = (xx + yy + zz) / 3.0
    xx, yy, zz = xx - mean, yy - mean, zz - mean
    square = (xx * xx + yy * yy + zz * zz) / 6.0 + (xy * xy + xz * xz + yz * yz) / 3.0
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return [mean, g("Sqrt", square), determinant / (square * 2.0 + 1e-12)]


def second_differences() -> np.ndarray:
    """Kernels (6, 3, 3, 3) of the entries xx, yy, zz, xy, xz, yz of the Hessian, by central differences."""
    second, first, none = np.array([1.0, -2.0, 1.0]), np.array([-0.5, 0.0, 0.5]), np.array([0.0, 1.0, 0.0])
    kernels = []
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        x, y, z = (second if a == b == axis else first if axis in (a, b) else none for axis in range(3))
        kernels.append(x[:, None, None] * y[:, None] * z)
    return np.array(kernels)


def _stem(g: Graph, stage: Any, features: Value, curvature: list[Value], acquisition: Value) -> Value:
    scale, shift = stage.norm.held()
    halved = g("Conv", _even(g, features), _scaled(stage.halve.weight, scale), shift, strides=[2] * 3)
    seen = g("Conv", g("Concat", *curvature, axis=1), _scaled(stage.shape.weight, scale))
    told = g("MatMul", acquisition, (stage.acquired.weight * scale[:, None]).T)
    return _residual(g, stage.look, g("Relu", halved + seen + g("Unsqueeze", told, [2, 3, 4])))


def _residual(g: Graph, block: Any, features: Value) -> Value:
    first, norm, _, second, last = block.body
    looked = g("Relu", _looked(g, first, norm, features))
    return g("Relu", _looked(g, second, last, looked) + features)


def _looked(g: Graph, convolution: nn.Conv3d, norm: Any, features: Value) -> Value:
    scale, shift = norm.held()
    reach = convolution.dilation[0]
    weight = _scaled(convolution.weight, scale)
    return g("Conv", _wide(g, features, reach), weight, shift, dilations=[reach] * 3)


def _refine(g: Graph, net: VesselNet, level: int, stem: Value, base: Value, parent: Value) -> tuple[Value, Value]:
    """Field and features of a level from its stem, and from the field and the features of the level above it."""
    h = 2.0 ** (level + 1)
    bound, needed = net.kappa * h, net.needed * h
    share = g("Clip", (g("Abs", base) * -1.0 + bound) / (bound - needed), 0.0, 1.0)
    part: Any = net.refinements[level]
    entry: Any = net.entry
    seen = stem if level else g("Relu", _normed(g, entry.convolution, entry.norm, _wide(g, stem)))
    reduced = g("Conv", parent, part.reduce.weight[:, :, None, None, None])
    rows = g("Concat", seen, reduced, base / h, axis=1) * share

    def convolved(k: int, convolution: Any, rows: Value) -> Value:
        return _normed(g, convolution, part.norms[k], rows, pads=[1] * 6)

    first = g("Relu", convolved(0, part.enter, rows)) * share
    rows = g("Relu", convolved(1, part.inner[0], first)) * share
    rows = g("Relu", convolved(2, part.inner[1], rows) + first) * share
    raw = g("Conv", rows, part.correction.weight[:, :, None, None, None], part.correction.bias)
    return base + share * bound * g("Tanh", raw), rows


def _normed(g: Graph, convolution: Any, norm: nn.BatchNorm1d, features: Value, **attributes: Any) -> Value:
    """A convolution of active voxels, 27 matrices, as a dense one, normalised by running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    matrices = convolution.weight
    kernel = matrices.reshape(3, 3, 3, *matrices.shape[1:]).permute(4, 3, 0, 1, 2)
    return g("Conv", features, _scaled(kernel, scale), norm.bias - norm.running_mean * scale, **attributes)


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale[:, None, None, None, None]


def _sizes(g: Graph, volume: Value) -> Value:
    """The lengths of the three axes."""
    return g("Shape", volume, start=2)


def _padded(g: Graph, volume: Value, more: Value) -> Value:
    """Longer by `more` voxels along each axis, repeating the last one."""
    return g("Pad", volume, g("Concat", [0] * 3, more, axis=0), None, [2, 3, 4], mode="edge")


def _even(g: Graph, volume: Value) -> Value:
    return _padded(g, volume, g("Mod", _sizes(g, volume), [2]))


def _wide(g: Graph, volume: Value, reach: int = 1) -> Value:
    """The border repeated outwards."""
    return g("Pad", volume, [reach] * 6, None, [2, 3, 4], mode="edge")


def _pooled(g: Graph, volume: Value, size: int, stride: int) -> Value:
    return g("AveragePool", volume, kernel_shape=[size] * 3, strides=[stride] * 3)


def _finer(g: Graph, volume: Value, factor: int, shape: Value, mode: str = "linear") -> Value:
    """Values on a finer grid, linear between the centres of cells or those of the cell, cropped to its shape."""
    rounding: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
    coordinates = "asymmetric" if mode == "nearest" else "half_pixel"
    scales = np.array([1, 1, factor, factor, factor], np.float32)
    finer = g("Resize", volume, None, scales, mode=mode, coordinate_transformation_mode=coordinates, **rounding)
    return g("Slice", finer, [0] * 3, shape, [2, 3, 4])
