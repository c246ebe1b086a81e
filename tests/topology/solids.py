"""Solids whose topology is known by hand: signed distance, Betti numbers, and the bars that make them up.

Each `sdf` is 1-Lipschitz in world coordinates (mm): a distance, or the maximum (intersection) or minimum (union) of
distances. `bars` holds (dimension, birth, death) of every component, loop and cavity alive at 0, each in mm, None where
it cannot be told by hand; the values are those of the continuous field.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

NEVER = math.inf


@dataclass(frozen=True)
class Solid:
    name: str
    sdf: Any  # (x, y, z) arrays of world coordinates -> array
    half: tuple[float, float, float]  # half the edges of a box that holds it, centred at the origin
    bars: tuple[tuple[int, float | None, float | None], ...]

    @property
    def betti(self):
        return tuple(sum(dimension == k for dimension, _, _ in self.bars) for k in range(3))

    @property
    def margins(self):
        """Margins by dimension, where both ends of the bar are known, sorted."""
        known = [(k, min(-birth, death)) for k, birth, death in self.bars if birth is not None and death is not None]
        return [sorted(margin for k, margin in known if k == dimension) for dimension in range(3)]


def norm(x, y, z):
    return np.sqrt(x**2 + y**2 + z**2)


def ring(x, y, z, big, small):
    """A torus about the z axis."""
    return np.hypot(np.hypot(x, y) - big, z) - small


def ball(radius=4.0):
    return Solid("ball", lambda x, y, z: norm(x, y, z) - radius, (radius,) * 3, ((0, -radius, NEVER),))


def shell(middle=4.0, half=0.9):
    """The cavity is there as soon as the shell is, and fills at its centre."""
    return Solid(
        "shell",
        lambda x, y, z: abs(norm(x, y, z) - middle) - half,
        (middle + half,) * 3,
        ((0, -half, NEVER), (2, -half, middle - half)),
    )


def thick_shell(middle=3.0, half=2.0):
    """Its cavity is smaller than its wall, so that it is filled before it is opened."""
    return Solid("thick shell", shell(middle, half).sdf, (middle + half,) * 3, shell(middle, half).bars)


def torus(big=4.0, small=1.0, name="torus"):
    return Solid(
        name,
        lambda x, y, z: ring(x, y, z, big, small),
        (big + small, big + small, small),
        ((0, -small, NEVER), (1, -small, big - small)),
    )


def thick_torus():
    """Its hole has radius 0.9 and its tube 2.1: it fills before it breaks."""
    return torus(3.0, 2.1, "thick torus")


def separate_chain(count=3, big=2.0, small=0.8, gap=1.8):
    """Rings beside each other in a plane. All but one component end where two walls have grown by half the gap."""
    step = 2 * (big + small) + gap
    middles = [step * (i - (count - 1) / 2) for i in range(count)]
    return Solid(
        "separate chain",
        lambda x, y, z: np.minimum.reduce([ring(x - middle, y, z, big, small) for middle in middles]),
        (middles[-1] + big + small, big + small, small),
        ((0, -small, NEVER), *[(0, -small, gap / 2)] * (count - 1), *[(1, -small, big - small)] * count),
    )


def touching_chain(count=3, big=2.0, small=0.8):
    """Rings whose centre lines touch: one component, and one loop each."""
    middles = [2 * big * (i - (count - 1) / 2) for i in range(count)]
    return Solid(
        f"{count} touching rings",
        lambda x, y, z: np.minimum.reduce([ring(x - middle, y, z, big, small) for middle in middles]),
        (middles[-1] + big + small, big + small, small),
        ((0, -small, NEVER), *[(1, -small, big - small)] * count),
    )


def linked_chain(count=3, big=4.0, small=0.6, step=1.35):
    """Rings that go through their neighbours, each turned by a quarter, `step * big` apart.

    Two circles turned like that, with unit radius and centres c apart, are min(c, 2 - c) apart: with u and v the
    cosines of the angles towards each other's centre, the squared distance is c^2 + 2 + 2uv - 2c(u + v), bilinear in u
    and v, so that its extremes lie at u, v = +-1. Circles that follow the next but one are 2 (c - 1) apart. Until walls
    meet, the rings are rings: they cannot fill before.
    """
    middles = [step * big * (i - (count - 1) / 2) for i in range(count)]
    near = min(step, 2 - step) * big / 2 - small
    far = (step - 1) * big - small

    def sdf(x, y, z):
        rings = [ring(x - m, *((y, z) if i % 2 else (z, y)), big, small) for i, m in enumerate(middles)]
        return np.minimum.reduce(rings)

    assert near < far or count < 3
    assert small < near
    return Solid(
        "Hopf link" if count == 2 else "linked chain",
        sdf,
        (middles[-1] + big + small, big + small, big + small),
        # Loops end somewhere after `near`, which is all that their margin needs.
        ((0, -small, NEVER), *[(0, -small, near)] * (count - 1), *[(1, -small, near)] * count),
    )


def hopf_link():
    return linked_chain(2, big=4.0, small=0.8, step=1.0)


def double_torus(hole=1.4, rim=1.0, wall=0.7, half_height=1.8):
    """A plate with two holes (genus 2). Its loops break at the wall between the holes and at the rim (half widths).

    The field is a maximum, so the part that is deeper than t is the plate cut back by t on all sides: it has both loops
    until t is half the width of the wall, and the loop around both holes until t is half the width of the rim.
    """
    assert wall < rim < half_height
    off = hole + wall
    width, length = hole + 2 * rim, off + hole + 2 * rim

    def sdf(x, y, z):
        plate = np.maximum.reduce([abs(x) - length, abs(y) - width, abs(z) - half_height])
        return np.maximum(plate, hole - np.minimum(np.hypot(x - off, y), np.hypot(x + off, y)))

    return Solid(
        "double torus",
        sdf,
        (length, width, half_height),
        ((0, None, NEVER), (1, -rim, hole), (1, -wall, hole)),
    )


def tunnel_and_cavity(side=4.6, tunnel=1.2, cavity=1.3):
    """A cube with a tunnel along z and a hollow ball beside it. Each breaks at the thinnest wall around it."""
    tunnel_x, cavity_x = 2.1, -1.6

    def sdf(x, y, z):
        cube = np.maximum.reduce([abs(x), abs(y), abs(z)]) - side
        bored = np.maximum(cube, tunnel - np.hypot(x - tunnel_x, y))
        return np.maximum(bored, cavity - norm(x - cavity_x, y, z))

    around_tunnel = (side - tunnel_x - tunnel) / 2  # towards +x; the other sides are thicker
    around_cavity = (tunnel_x - cavity_x - tunnel - cavity) / 2  # towards the tunnel
    assert around_cavity < (side + cavity_x - cavity) / 2
    return Solid(
        "tunnel and cavity",
        sdf,
        (side,) * 3,
        ((0, None, NEVER), (1, -around_tunnel, tunnel), (2, -around_cavity, cavity)),
    )


ALL = {
    solid.name: solid
    for solid in (
        ball(),
        shell(),
        thick_shell(),
        torus(),
        thick_torus(),
        separate_chain(),
        touching_chain(2),
        touching_chain(3),
        linked_chain(),
        hopf_link(),
        double_torus(),
        tunnel_and_cavity(),
    )
}


def rotation(seed):
    """A random rotation, or a reflected one for odd seeds."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q)) * (-1 if seed % 2 else 1)


def sampled(solid, spacing, turn=None, offset=(0.0, 0.0, 0.0), around=1.5):
    """The field at the voxel centres of a grid around the solid, and the grid's affine.

    spacing: per axis, mm; turn: the directions of the axes (3x3), offset: world position of the solid's centre.
    """
    turn = np.eye(3) if turn is None else turn
    linear = turn * np.asarray(spacing)
    extent = abs(turn.T) @ solid.half / spacing + around
    shape = tuple(2 * np.ceil(extent).astype(int) + 1)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.asarray(offset) - linear @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ linear.T + affine[:3, 3] - offset, -1, 0)
    return solid.sdf(x, y, z), affine
