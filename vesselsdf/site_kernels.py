"""Tables of neighbours of active voxels (`sites`), on a CPU."""

from vesselsdf.compiled import kernel


@kernel
def neighbour_table(flat, shape, table):
    """Rows of the 27 neighbours of each site among the sites, their number where a neighbour is not one.

    `flat`: sorted positions in an array of `shape` (B, x, y, z). In each of the nine lines of voxels around a site the
    neighbours are at most three successive entries of `flat`, and from one site to the next they only move on: nothing
    is searched.
    """
    n, (_, nx, ny, nz) = len(flat), shape
    ahead = [0] * 9
    for site in range(n):
        place = flat[site]
        z, y, x = place % nz, place // nz % ny, place // (nz * ny) % nx
        row = table[site]
        row[:] = n
        for i in range(3):
            for j in range(3):
                if 0 <= x + i - 1 < nx and 0 <= y + j - 1 < ny:
                    line = 3 * i + j
                    middle = place + ((i - 1) * ny + j - 1) * nz
                    entry = ahead[line]
                    while entry < n and flat[entry] < middle - 1:
                        entry += 1
                    ahead[line] = entry
                    while entry < n and flat[entry] <= middle + 1:
                        k = flat[entry] - middle
                        if 0 <= z + k < nz:
                            row[3 * line + k + 1] = entry
                        entry += 1


@kernel
def around_table(flat, shape, table):
    """Positions of the 27 neighbours of each site in the array of `shape` (B, x, y, z), whose border is repeated."""
    _, nx, ny, nz = shape
    for site in range(len(flat)):
        place = flat[site]
        z, y, x = place % nz, place // nz % ny, place // (nz * ny) % nx
        row = table[site]
        for i in range(-1, 2):
            plane = place + (min(max(x + i, 0), nx - 1) - x) * ny * nz
            for j in range(-1, 2):
                line = plane + (min(max(y + j, 0), ny - 1) - y) * nz
                first = 9 * i + 3 * j + 12
                row[first] = line - (z > 0)
                row[first + 1] = line
                row[first + 2] = line + (z < nz - 1)
