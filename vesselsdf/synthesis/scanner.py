"""Turn a signed distance field of vessels into what a CT or MR scanner or a two-photon microscope would show of it.

Strategy: every voxel is a mixture of vessel, tissue and distractors by partial volume; tissue, organs, bone and
brightness are thresholded or plain smooth random fields (cubic splines of random coefficients, cheap at any size);
then point spread, thick slices and the noise of the modality. All draws come from one generator.
"""

from typing import get_args

import numpy as np
from jaxtyping import Float, Float32
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter

from vesselsdf.constants import Modality
from vesselsdf.errors import InputError

MODALITIES: tuple[Modality, ...] = get_args(Modality)
# Of a thick vessel. Blur and partial volume take another half from the thinnest: below these ranges nobody sees them.
_CONTRAST_TO_NOISE = {"ct": (4.0, 25.0), "mr": (5.0, 30.0), "microscopy": (4.0, 25.0), "in_vivo": (10.0, 80.0)}

CUT_OFF = {"ct": 0.12, "mr": 0.25, "microscopy": 0.12, "in_vivo": 0.12}
"""Share of the scans whose background was removed."""


def scan(
    sdf: Float32[np.ndarray, "x y z"],
    spacing: tuple[float, float, float],
    modality: str,
    generator: np.random.Generator,
    slices: int = 1,
) -> Float32[np.ndarray, "x y w"]:
    """Synthetic scan of the vessels `sdf <= 0`.

    Contrast, distractors, blur and noise are drawn widely: the contrast-to-noise ratio of a thick vessel is 4 to 30, of
    the brightest in vivo 10 to 80.

    Args:
        sdf: (X, Y, Z) float32 mm; it may be clipped to a band of at least one voxel.
        spacing: of `sdf`, mm.
        modality: "ct" (Hounsfield units); "mr", "microscopy" (two-photon) or "in_vivo" (two-photon through living
            tissue, denoised), in arbitrary units, not negative.
        generator: the only source of randomness.
        slices: number of voxel layers along z that one slice of the image averages (thick slices).

    Returns:
        (X, Y, Z // slices) float32. Slice k covers layers `k * slices` to `(k + 1) * slices - 1`.

    Raises:
        InputError: unknown modality, or fewer layers than one slice needs.

    >>> sdf = np.full((24, 24, 24), 4.0, np.float32)
    >>> scan(sdf, (1.0, 1.0, 1.0), "ct", np.random.default_rng(0), slices=4).shape
    (24, 24, 6)
    """
    if modality not in MODALITIES:
        raise InputError(f"modality is {modality!r}; choose one of {', '.join(MODALITIES)}.")
    if not 1 <= slices <= sdf.shape[2]:
        raise InputError(f"slices is {slices}; give a number between 1 and the {sdf.shape[2]} layers along z.")
    # Averaged over directions, a plane at distance d fills 1/2 - d/h of a voxel of width h, within a few percent.
    vessel = np.clip(0.5 - sdf / np.float32(np.mean(spacing)), 0, 1).astype(np.float32)
    scene = {"ct": _ct, "mr": _mr, "microscopy": _microscopy, "in_vivo": _in_vivo}[modality]
    image, contrast = scene(vessel, generator)
    blood = image[vessel > 0.9]
    image = gaussian_filter(image, generator.uniform(0.35, 0.85, 3), truncate=3.0)
    if slices > 1:
        depth = image.shape[2] // slices
        image = image[:, :, : depth * slices].reshape(*image.shape[:2], depth, slices).mean(3)
    sigma = contrast / float(np.exp(generator.uniform(*np.log(_CONTRAST_TO_NOISE[modality]))))
    noise = {"ct": _gaussian, "mr": _rician, "microscopy": _poisson, "in_vivo": _denoised}[modality]
    noisy = noise(image, sigma, contrast, generator)
    if generator.random() < CUT_OFF[modality] and blood.size:
        # Everything darker than some level between tissue and vessel is set to zero (air in CT), as for projections.
        # In CT bone is left; where nothing tells that from an MR, it would teach that the brightest is no vessel.
        level = float(blood.mean()) - contrast * generator.uniform(0.55, 0.95)
        noisy[noisy < level] = -1000 if modality == "ct" else 0
    return np.ascontiguousarray(noisy, np.float32)


def smooth_field(shape: tuple[int, ...], scale: float, generator: np.random.Generator) -> Float32[np.ndarray, "x y z"]:
    """Random field of zero mean and about unit deviation that varies over `scale` voxels: cubic splines of noise."""
    matrices = [_spline_matrix(n, scale, generator) for n in shape]
    field = generator.standard_normal([m.shape[1] for m in matrices]).astype(np.float32)
    for axis, matrix in enumerate(matrices):
        field = np.moveaxis(np.tensordot(matrix, field, axes=(1, axis)), 0, axis)
    return field


def _spline_matrix(count: int, scale: float, generator: np.random.Generator) -> Float32[np.ndarray, "n k"]:
    """Values of the cubic B-splines with knots `scale` apart at 0..count-1, scaled to keep unit variance."""
    at = np.arange(count) / scale + generator.uniform(0, 1)
    knots = np.arange(-3, int(at[-1]) + 5)
    matrix = BSpline.design_matrix(at, knots, 3).toarray()
    return (matrix / np.sqrt((matrix**2).sum(1, keepdims=True))).astype(np.float32)


def _above(field: Float32[np.ndarray, "x y z"], level: float, softness: float) -> Float32[np.ndarray, "x y z"]:
    """1 where a field is above a level, 0 below, with a soft edge: a smooth blob."""
    return np.clip((field - np.float32(level)) / np.float32(softness) + np.float32(0.5), 0, 1)


def _texture(shape, generator: np.random.Generator) -> Float32[np.ndarray, "x y z"]:
    """Fine tissue texture: two scales of unequal strength, about unit deviation."""
    fine, coarse = generator.uniform(1.8, 4.0), generator.uniform(6.0, 16.0)
    share = np.float32(generator.uniform(0.2, 0.8))
    return share * smooth_field(shape, fine, generator) + (1 - share) * smooth_field(shape, coarse, generator)


def _put(image, value, where) -> None:
    """Blend a value into an image, by a share between 0 and 1."""
    image += where * (np.float32(value) - image)


def _place_vessel(image, brightness, vessel) -> None:
    image += vessel * (brightness - image)


def _fading(vessel, chance: float, generator: np.random.Generator, faintest: float = 0.5):
    """Factor that dims thin vessels, as slow flow and dye concentration do; by chance there is none."""
    if generator.random() >= chance:
        return np.float32(1)
    crowd = gaussian_filter(
        vessel, 1.5, truncate=2.0
    )  # near 0.35 in a vessel of radius 1.3 voxels, 1 deep in a thick one
    low = np.float32(generator.uniform(faintest, 0.9))
    return low + (1 - low) * np.clip(crowd / np.float32(0.7), 0, 1)


def _hollow(vessel, chance: float, generator: np.random.Generator):
    """Factor that dims the inside of thick vessels: dye on the wall, and red cells in the middle; by chance none."""
    if generator.random() >= chance:
        return np.float32(1)
    deep = np.clip(2 * gaussian_filter(vessel, generator.uniform(1.5, 4.0), truncate=2.0) - 1, 0, 1)
    return 1 - np.float32(generator.uniform(0.2, 0.8)) * deep


def _ct(vessel, generator: np.random.Generator) -> tuple:
    """CT angiogram in HU: soft tissue, organs, fat, lung or air, bone with a denser shell, calcified spots."""
    shape, draw = vessel.shape, generator.uniform
    size = max(min(shape), 32)
    image = np.full(shape, draw(20, 70), np.float32)
    for _ in range(int(generator.integers(1, 4))):
        _put(
            image, draw(-10, 140), _above(smooth_field(shape, size * draw(0.15, 0.4), generator), draw(0.2, 1.2), 0.25)
        )
    fat = smooth_field(shape, size * draw(0.1, 0.3), generator)
    _put(image, draw(-110, -70), _above(fat, draw(0.3, 1.5), 0.2))
    image += np.float32(draw(2, 15)) * _texture(shape, generator)
    contrast = float(draw(150, 450))
    if generator.random() < 0.25:  # lung: vessels in air-filled tissue
        lung = _above(smooth_field(shape, size * draw(0.3, 0.6), generator), draw(-1.5, 0.3), 0.15)
        image += lung * (np.float32(draw(-900, -750)) + np.float32(draw(10, 40)) * _texture(shape, generator) - image)
    if generator.random() < 0.4:
        _put(image, -1000, _outside(vessel, generator))
    if generator.random() < 0.75:
        _put_bone(image, size, generator)
    if generator.random() < 0.35:
        _put_bone_beside(image, vessel, generator)
    brightness = np.float32(40 + contrast) * (
        1 + np.float32(draw(0.02, 0.1)) * smooth_field(shape, size * 0.3, generator)
    )
    _place_vessel(image, brightness, vessel)
    if generator.random() < 0.3:  # calcified wall
        spots = _above(smooth_field(shape, draw(3, 6), generator), draw(2.2, 2.8), 0.5)
        _put(image, draw(600, 1200), spots * (vessel > 0) * (vessel < 1))
    if generator.random() < 0.2:
        image += _streaks(shape, generator)
    return image, contrast


def _put_bone(image, size: int, generator: np.random.Generator) -> None:
    """Blobs or curved plates, brighter than most vessels, with a dense shell around a spongy inside."""
    draw = generator.uniform
    field = smooth_field(image.shape, size * draw(0.12, 0.35), generator)
    level = float(draw(1.2, 2.2))
    bone = _above(field, level, 0.1)
    if generator.random() < 0.4:
        field = -np.abs(field - np.float32(draw(-0.8, 0.8)))  # a plate around a level surface
        level = -float(draw(0.08, 0.25))
        window = _above(smooth_field(image.shape, size * 0.4, generator), draw(0, 0.8), 0.3)
        bone = _above(field, level, 0.1) * window
    shell = bone * (1 - _above(field, level + draw(0.15, 0.4), 0.15))
    inside = np.float32(draw(150, 450)) + np.float32(draw(30, 120)) * _texture(image.shape, generator)
    image += bone * (inside - image)
    _put(image, draw(600, 1400), shell)


def _put_bone_beside(image, vessel, generator: np.random.Generator) -> None:
    """A lump of bone that touches a vessel, as the skull base or a vertebra does."""
    draw = generator.uniform
    inside = np.argwhere(vessel >= 1)
    if len(inside) == 0:
        return
    radii = draw(4, max(5.0, 0.2 * min(vessel.shape)), 3)
    centre = inside[generator.integers(len(inside))] + generator.normal(size=3) * radii
    x, y, z = (np.arange(n, dtype=np.float32) - np.float32(c) for n, c in zip(vessel.shape, centre, strict=True))
    r = [np.float32(value) for value in radii]
    away = np.sqrt((x[:, None, None] / r[0]) ** 2 + (y[None, :, None] / r[1]) ** 2 + (z[None, None, :] / r[2]) ** 2)
    away += np.float32(0.15) * smooth_field(vessel.shape, float(radii.min()), generator)
    _put(image, draw(150, 500), _above(-away, -1.0, 0.2))
    _put(image, draw(500, 1300), _above(-np.abs(away - np.float32(0.85)), -float(draw(0.05, 0.15)), 0.1))


def _streaks(shape, generator: np.random.Generator) -> Float32[np.ndarray, "x y z"]:
    """What beam hardening and metal leave in the axial planes: rays from a dense spot, weaker with distance."""
    draw = generator.uniform
    place = [draw(-0.1, 1.1) * n for n in shape]
    x, y = (np.arange(n, dtype=np.float32) - np.float32(p) for n, p in zip(shape[:2], place[:2], strict=True))
    angle = np.arctan2(y[None, :], x[:, None]) / (2 * np.pi) + 0.5
    rays = int(draw(40, 160))
    profile = gaussian_filter(generator.standard_normal(rays), 0.8, mode="wrap").astype(np.float32)
    pattern = np.interp(angle, np.arange(rays + 1) / rays, np.append(profile, profile[0])).astype(np.float32)
    reach = np.float32(draw(10, 40))
    plane = pattern * reach / (reach + np.hypot(x[:, None], y[None, :]))
    depth = np.exp(-0.5 * ((np.arange(shape[2]) - place[2]) / draw(2, 12)) ** 2).astype(np.float32)
    return np.float32(draw(60, 300)) * plane[:, :, None] * depth


def _outside(vessel, generator: np.random.Generator) -> Float32[np.ndarray, "x y z"]:
    """Share of air around the body: the far side of a wavy surface that leaves every vessel inside by some voxels."""
    shape, size = vessel.shape, max(vessel.shape)
    normal = generator.normal(size=3)
    normal /= np.linalg.norm(normal)
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    place = (normal[0] * x + normal[1] * y + normal[2] * z).astype(np.float32)
    place += np.float32(0.06 * size) * smooth_field(shape, 0.4 * size, generator)
    inside = vessel > 0
    reach = float(place[inside].max()) if inside.any() else float(np.median(place))
    level = max(float(np.quantile(place[::4, ::4, ::4], generator.uniform(0.5, 0.9))), reach + 3)
    return _above(place, level, 2.0)


def _mr(vessel, generator: np.random.Generator) -> tuple:
    """MR angiogram: bright blood, tissue of several grey levels, fat, dark air, coil bias; sometimes subtracted."""
    shape, draw = vessel.shape, generator.uniform
    size = max(min(shape), 32)
    blood = float(np.exp(draw(np.log(200), np.log(2500))))
    subtracted = generator.random() < 0.3
    tissue = blood * (draw(0.0, 0.08) if subtracted else draw(0.08, 0.4))
    image = np.full(shape, tissue, np.float32)
    for _ in range(int(generator.integers(2, 5))):
        organ = _above(smooth_field(shape, size * draw(0.08, 0.4), generator), draw(-0.3, 1.0), 0.3)
        _put(image, tissue * draw(0.3, 1.7), organ)
    image *= 1 + np.float32(draw(0.05, 0.25)) * _texture(shape, generator)
    if not subtracted and generator.random() < 0.5:  # fat and slow veins: nearly as bright as blood
        bright = _above(smooth_field(shape, size * draw(0.08, 0.2), generator), draw(1.3, 2.2), 0.3)
        _put(image, blood * draw(0.4, 0.9), bright)
    if not subtracted and generator.random() < 0.3:  # scalp: a bright sheet
        field = smooth_field(shape, size * draw(0.25, 0.5), generator)
        _put(image, blood * draw(0.3, 0.8), _above(draw(0.05, 0.12) - np.abs(field - draw(-0.8, 0.8)), 0.0, 0.05))
    if generator.random() < 0.5:
        _put(image, 0.01 * blood, _outside(vessel, generator))
    # Flow: signal differs between vessels by saturation, and fades in thin ones.
    flow = 1 + np.float32(draw(0.05, 0.22)) * smooth_field(shape, size * draw(0.15, 0.4), generator)
    _place_vessel(image, np.float32(blood) * np.clip(flow, 0.5, 1.5) * _fading(vessel, 0.6, generator), vessel)
    np.maximum(image, 0, out=image)
    image *= np.exp(np.float32(draw(0.02, 0.25)) * smooth_field(shape, size * draw(0.6, 1.2), generator))
    return image, blood - tissue


def _microscopy(vessel, generator: np.random.Generator) -> tuple:
    """Two-photon stack of labelled plasma: uneven vessels, dark tissue with haze and cells, fading with depth."""
    shape, draw = vessel.shape, generator.uniform
    size = max(min(shape), 32)
    peak = float(draw(80, 255))
    haze = peak * draw(0.01, 0.12)
    image = _hazy(shape, haze, (0.1, 0.5), (0.02, 0.2), generator)
    if generator.random() < 0.5:  # cell bodies and leaked dye
        _put_cells(image, peak, generator)
    if generator.random() < 0.3:
        leak = _above(smooth_field(shape, size * draw(0.15, 0.3), generator), draw(1.0, 2.0), 1.0)
        _put(image, peak * draw(0.15, 0.4), leak)
    uneven = np.exp(np.float32(draw(0.05, 0.45)) * smooth_field(shape, size * draw(0.1, 0.3), generator))
    uneven = np.clip(uneven, 0.35, 1.4) * _fading(vessel, 0.4, generator) * _hollow(vessel, 0.4, generator)
    _place_vessel(image, np.float32(peak) * uneven, vessel)
    return image * _lost_with_depth(shape, 0.8, generator), peak - haze


def _hazy(shape, haze: float, clouds, texture, generator: np.random.Generator) -> Float32[np.ndarray, "x y z"]:
    """Faintly glowing tissue; `clouds` and `texture` are ranges of the strength of its slow and its fine variation."""
    strength, size = np.float32(generator.uniform(*clouds)), max(min(shape), 32)
    image = haze * np.exp(strength * smooth_field(shape, size * generator.uniform(0.2, 0.6), generator))
    return image * np.exp(np.float32(generator.uniform(*texture)) * _texture(shape, generator))


def _lost_with_depth(shape, most: float, generator: np.random.Generator) -> Float32[np.ndarray, " z"]:
    """Factor by which light fades from one end of the stack to the other, by `exp(-most)` at most."""
    fading = np.exp(-generator.uniform(0, most) * np.linspace(0, 1, shape[2])).astype(np.float32)
    return fading if generator.random() < 0.5 else fading[::-1]


def _put_cells(image, peak: float, generator: np.random.Generator) -> None:
    spots = _above(smooth_field(image.shape, generator.uniform(4, 9), generator), generator.uniform(2.4, 3.2), 0.5)
    _put(image, peak * generator.uniform(0.3, 1.0), spots)


def _in_vivo(vessel, generator: np.random.Generator) -> tuple:
    """Two-photon stack of a living brain: vessels up to ten times as bright as others, light lost with depth.

    Thick ones glow through what lies beside them; on every voxel of vessel the wall is still a step.
    """
    shape, draw = vessel.shape, generator.uniform
    size = max(min(shape), 32)
    peak = float(draw(80, 255))
    haze = peak * draw(0.005, 0.08)
    image = _hazy(shape, haze, (0.2, 0.8), (0.05, 0.3), generator)
    if generator.random() < 0.5:
        _put_cells(image, 0.5 * peak, generator)
    image += np.float32(peak * draw(0, 0.25)) * gaussian_filter(vessel, draw(3, 10), truncate=2.5)
    uneven = np.exp(np.float32(draw(0.2, 0.9)) * smooth_field(shape, size * draw(0.1, 0.3), generator))
    uneven = np.clip(uneven, 0.1, 1.6) * _fading(vessel, 0.6, generator, 0.2) * _hollow(vessel, 0.4, generator)
    _place_vessel(image, np.maximum(np.float32(peak) * uneven, 1.5 * image), vessel)
    return image * _lost_with_depth(shape, 1.8, generator), peak - haze


def _white(shape, generator: np.random.Generator) -> Float32[np.ndarray, "x y z"]:
    """Unit noise; in most scans reconstruction or denoising has correlated neighbouring voxels."""
    noise = generator.standard_normal(shape, dtype=np.float32)
    if generator.random() < 0.6:
        noise = gaussian_filter(noise, generator.uniform(0.3, 0.9), truncate=2.5)
        noise /= noise.std() + np.float32(1e-6)
    return noise


def _gaussian(image, sigma: float, contrast: float, generator: np.random.Generator):
    return image + np.float32(sigma) * _white(image.shape, generator)


def _rician(image, sigma: float, contrast: float, generator: np.random.Generator):
    """Magnitude of a complex signal with noise (Gudbjartsson and Patz 1995)."""
    real = image + np.float32(sigma) * _white(image.shape, generator)
    return np.hypot(real, np.float32(sigma) * _white(image.shape, generator))


def _poisson(image, sigma: float, contrast: float, generator: np.random.Generator):
    """Photon counts with the wanted deviation on a vessel, plus electronics; clipped at the top as detectors do."""
    photons = contrast / sigma**2
    counts = generator.poisson(np.maximum(image, 0) * np.float32(photons)).astype(np.float32) / np.float32(photons)
    noisy = counts + np.float32(0.2 * sigma) * _white(image.shape, generator)
    if generator.random() < 0.4:
        noisy = gaussian_filter(noisy, generator.uniform(0.4, 0.8), truncate=2.5)
    return np.clip(noisy, 0, generator.uniform(0.7, 1.5) * (image.max() + 1e-3))


def _denoised(image, sigma: float, contrast: float, generator: np.random.Generator):
    """Photon counts after a filter that leaves little noise; the brightest vessels are often saturated."""
    counts = _poisson(image, sigma, contrast, generator)
    smooth = gaussian_filter(counts, generator.uniform(0.3, 1.0), truncate=2.5)
    return np.minimum(smooth, generator.uniform(0.3, 1.5) * smooth.max() + 1e-3)


def thick_affine(affine: Float[np.ndarray, "4 4"], slices: int) -> Float[np.ndarray, "4 4"]:
    """Affine of an image whose slices average `slices` layers along z: the first centre lies amid the first layers."""
    thick = np.array(affine, float)
    thick[:3, 3] += thick[:3, 2] * (slices - 1) / 2
    thick[:3, 2] *= slices
    return thick
