"""Kernels behind `persistence`: a discrete Morse complex of the voxels, compiled by numba.

Voxels enter one by one in the order of (key, flat index). What a voxel changes is decided by its contact `K`: the part
of its surface that earlier voxels cover, told by a 26-bit code, one bit for each earlier neighbour. Adding a closed
voxel to the union `X` of the earlier ones attaches a ball along `K`, so `H_k(X + voxel, X)` is the reduced
`H_{k-1}(K)` (Robins, Wood, Sheppard 2011 use the same for the dual pair of adjacencies). With `c` components of `K` and
`d` components of the rest of the voxel's surface, the voxel stands for

    one critical 0-cell if `c = 0`, `c - 1` critical 1-cells, `d - 1` critical 2-cells, one critical 3-cell if `d = 0`,

and changes nothing when `c = d = 1`: it is a simple point. Faces of the voxel are joined in the rest of the surface
across uncovered edges, and `c` follows from Euler's formula, so one look-up in a table of 2^18 entries decides.
"""

import numpy as np
from numba import njit

from vesselsdf.topology.contact import (
    OUT,
    contact,
    contact_part,
    face_part,
    first_bit,
    highest,
    lowest,
    parts,
    spanning_tree,
)  # fmt: skip


@njit(cache=True, nogil=True)
def find(parent, voxel):
    """Root of a voxel in a union-find forest, halving its path."""
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@njit(cache=True, nogil=True)
def scan(keys, steps, table, parent):
    """Critical voxels in flat order, with their codes; `parent` becomes the forest of steepest descents."""
    voxels, codes, count = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    for voxel in range(keys.size):
        key = keys[voxel]
        if key == OUT:
            continue
        code, lowest, best = np.int64(0), voxel, key
        for k in range(26):
            near = voxel + steps[k]
            other = keys[near]
            if other < key or (other == key and near < voxel):
                code |= 1 << k
                if other < best or (other == best and near < lowest):
                    lowest, best = near, other
        parent[voxel] = lowest
        c, d = parts(code, table)
        if c != 1 or d != 1:
            if count == voxels.size:
                voxels, codes = grown(voxels), grown(codes)
            voxels[count], codes[count] = voxel, code
            count += 1
    return voxels[:count], codes[:count]


@njit(cache=True, nogil=True)
def merge_components(keys, steps, table, parent, voxels, codes, order, touch):
    """H0: joins components in the order of the critical voxels.

    Gives bars (birth voxel, death voxel) and the elder births that they merge into; for each critical voxel where its
    1-cells start in `cells`, which holds the rank of each 1-cell among those that close a loop, and -1 for those that
    join two components; the 1-cells that close loops, by rank; and for each 1-cell the voxel whose contact with its
    voxel it leads to.
    """
    starts = np.zeros(voxels.size + 1, np.int64)
    for i in range(voxels.size):
        starts[i + 1] = starts[i] + max(parts(codes[i], table)[0] - 1, 0)
    cells, sides = np.full(starts[-1], -1, np.int64), np.empty(starts[-1], np.int64)
    born, dies, into, bars = np.empty_like(cells), np.empty_like(cells), np.empty_like(cells), 0
    loops, count = np.empty_like(cells), 0
    for i in order:
        voxel, rest = voxels[i], codes[i]
        if starts[i + 1] == starts[i]:
            continue
        own = find(parent, voxel)
        part = contact_part(rest, lowest(keys, voxel, rest, steps), touch)
        rest &= ~part
        for cell in range(starts[i], starts[i + 1]):
            first = first_bit(rest)
            rest &= ~contact_part(rest, first, touch)
            sides[cell] = voxel + steps[first]
            other = find(parent, sides[cell])
            if other == own:
                cells[cell] = count
                loops[count] = cell
                count += 1
                continue
            if keys[other] < keys[own] or (keys[other] == keys[own] and other < own):
                own, other = other, own
            parent[other] = own
            born[bars], dies[bars], into[bars] = other, voxel, own
            bars += 1
    return born[:bars], dies[:bars], into[:bars], starts, cells, loops[:count], sides


@njit(cache=True, nogil=True)
def ascend(keys, steps, parent, row, slab):
    """`parent` becomes the forest of steepest ascents across faces; what never enters is joined to components.

    Components of what never enters have their first voxel as root: 0 for the outer one. `row` and `slab` are the flat
    distances of neighbouring lines and planes.
    """
    for voxel in range(keys.size):
        key = keys[voxel]
        if key != OUT:
            highest, best = voxel, key
            for k in range(6):
                near = voxel + steps[k]
                other = keys[near]
                if other > best or (other == best and near > highest):
                    highest, best = near, other
            parent[voxel] = highest
            continue
        before = voxel > 0 and keys[voxel - 1] == OUT
        parent[voxel] = parent[voxel - 1] if before else voxel
        for step in (row, slab):
            # Where the voxel before touches the same neighbour, they are joined already.
            if voxel >= step and keys[voxel - step] == OUT and not (before and keys[voxel - 1 - step] == OUT):
                a, b = find(parent, voxel), find(parent, voxel - step)
                parent[max(a, b)] = min(a, b)


@njit(cache=True, nogil=True)
def merge_cavities(keys, steps, table, parent, voxels, codes, order, edge_holders, edge_faces):
    """H2 by duality: joins components of the background in falling order.

    Gives bars (birth voxel, death voxel) and the later deaths that they merge into, and the 2-cells that fill loops,
    latest first, as (critical voxel, faces of the uncovered part that the loop runs around).
    """
    most = 0
    for i in range(voxels.size):
        most += max(parts(codes[i], table)[1] - 1, 0)
    born, dies, into, bars = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64), 0
    fillings, around, count = np.empty(most, np.int64), np.empty(most, np.int64), 0
    for i in order[::-1]:
        voxel = voxels[i]
        if parts(codes[i], table)[1] < 2:
            continue
        rest = ~codes[i] & 63
        own = find(parent, voxel)
        rest &= ~face_part(codes[i], highest(keys, voxel, rest, steps), edge_holders, edge_faces)
        while rest:
            first = first_bit(rest)
            part = face_part(codes[i], first, edge_holders, edge_faces)
            rest &= ~part
            other = find(parent, voxel + steps[first])
            if other == own:
                fillings[count], around[count] = i, part
                count += 1
                continue
            a, b = keys[other], keys[own]
            if other == 0 or (own != 0 and (a > b or (a == b and other > own))):
                own, other = other, own
            parent[other] = own
            born[bars], dies[bars], into[bars] = voxel, other, own
            bars += 1
    return born[:bars], dies[:bars], into[:bars], fillings[:count], around[:count]


@njit(cache=True, nogil=True)
def grown(array):
    """A copy with room for as many items again."""
    larger = np.empty(2 * array.size, np.int64)
    for k in range(array.size):
        larger[k] = array[k]
    return larger


@njit(cache=True, nogil=True)
def pop(heap):
    """Take the largest item out of a heap, whose place 0 holds the number of items."""
    size = heap[0]
    item, heap[0], k = heap[size], size - 1, 1
    while 2 * k < size:
        child = 2 * k
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= item:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = item


@njit(cache=True, nogil=True)
def toggle(keys, first, second, steps, chain, heap):
    """Add (mod 2) the edge between two voxels that touch to a chain; gives the heap, which may have grown.

    `chain` holds for each voxel the earlier neighbours to which edges lead, as bits, and in bit 26 whether it waits in
    the heap.
    """
    if keys[first] < keys[second] or (keys[first] == keys[second] and first < second):
        first, second = second, first
    k = 0
    while first + steps[k] != second:
        k += 1
    chain[first] ^= 1 << k
    if chain[first] >> 26:
        return heap
    chain[first] |= 1 << 26
    heap[0] += 1
    k = heap[0]
    if k == heap.size:
        heap = grown(heap)
    item = np.int64(keys[first]) << 32 | first
    while k > 1 and heap[k >> 1] < item:
        heap[k] = heap[k >> 1]
        k >>= 1
    heap[k] = item
    return heap


@njit(cache=True, nogil=True)
def settle(keys, steps, voxels, starts, cells, touch, chain, heap, found):
    """Let a chain flow down to the 1-cells that close loops on which it comes to rest; `chain` is 0 then.

    Latest first, the edges from a voxel to earlier neighbours are replaced by paths between these: within each part of
    the contact along a tree from the part's root (of the first part, the lowest neighbour: the edge to it is matched
    with the voxel). A path that reaches another part's root passes the critical 1-cell of that part.

    Gives the heap and `found`, whose place 0 holds the number of ranks behind it; those that come an even number of
    times cancel.
    """
    tree, above = np.empty(26, np.int64), np.empty(26, np.int64)
    while heap[0]:
        voxel = heap[1] & 0x7FFFFFFF
        pop(heap)
        bits = chain[voxel] & 0x3FFFFFF
        chain[voxel] = 0
        if not bits:
            continue
        rest = contact(keys, voxel, steps)
        root, cell = lowest(keys, voxel, rest, steps), -1
        while rest:
            last, rest = spanning_tree(rest, root, touch, tree, above)
            for i in range(last - 1, 0, -1):
                if bits >> tree[i] & 1:
                    bits ^= 1 << above[i]
                    heap = toggle(keys, voxel + steps[tree[i]], voxel + steps[above[i]], steps, chain, heap)
            if cell >= 0 and bits >> root & 1:
                rank = cells[starts[position(voxels, voxel)] + cell]
                if rank >= 0:
                    found[0] += 1
                    if found[0] == found.size:
                        found = grown(found)
                    found[found[0]] = rank
            cell += 1
            if rest:
                root = first_bit(rest)
    return heap, found


@njit(cache=True, nogil=True)
def boundaries(
    keys, steps, voxels, codes, starts, cells, fillings, around, chain,
    edge_holders, edge_faces, edge_corners, corner_holders, touch,
):  # fmt: skip
    """Where the boundary of each 2-cell comes to rest when it flows down: `settle`'s ranks, and where each's end.

    A boundary starts as the loop around uncovered faces of its voxel: each edge of the voxel on that border, and each
    of its corners, is held by an earlier neighbour, and those follow each other.
    """
    ends = np.empty(fillings.size, np.int64)
    heap, found = np.empty(1024, np.int64), np.empty(4096, np.int64)
    heap[0] = found[0] = 0
    for column in range(fillings.size):
        voxel, code, faces = voxels[fillings[column]], codes[fillings[column]], around[column]
        for edge in range(12):
            held = code & edge_holders[edge]
            if held and (faces >> edge_faces[edge, 0] & 1) != (faces >> edge_faces[edge, 1] & 1):
                by = first_bit(held)
                for k in range(2):
                    end = first_bit(code & corner_holders[edge_corners[edge, k]])
                    if end != by:
                        heap = toggle(keys, voxel + steps[by], voxel + steps[end], steps, chain, heap)
        heap, found = settle(keys, steps, voxels, starts, cells, touch, chain, heap, found)
        ends[column] = found[0]
    return found, ends


@njit(cache=True, nogil=True)
def images_of_cycles(descent_keys, begin, heads, sides, keys, steps, voxels, starts, cells, touch, chain):
    """Where cycles of one filtration come to rest in another one: as `boundaries`.

    A cycle is given as 1-cells of the first filtration (with `descent_keys`), in `heads` and `sides` from `begin[i]` to
    `begin[i + 1]`. Each stands for the edge between its two voxels and the steepest descents from both.
    """
    ends = np.empty(begin.size - 1, np.int64)
    heap, found = np.empty(1024, np.int64), np.empty(4096, np.int64)
    heap[0] = found[0] = 0
    for cycle in range(begin.size - 1):
        for i in range(begin[cycle], begin[cycle + 1]):
            heap = toggle(keys, heads[i], sides[i], steps, chain, heap)
            for start in (heads[i], sides[i]):
                voxel, code = start, contact(descent_keys, start, steps)
                while code:
                    below = voxel + steps[lowest(descent_keys, voxel, code, steps)]
                    heap = toggle(keys, voxel, below, steps, chain, heap)
                    voxel, code = below, contact(descent_keys, below, steps)
        heap, found = settle(keys, steps, voxels, starts, cells, touch, chain, heap, found)
        ends[cycle] = found[0]
    return found, ends


@njit(cache=True, nogil=True)
def position(voxels, voxel):
    """Index of a voxel in an ascending array that holds it."""
    low, high = 0, voxels.size - 1
    while low < high:
        middle = (low + high) >> 1
        if voxels[middle] < voxel:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def reduce_columns(begin, ranks, loops):
    """The pivot (largest rank) of each column of a boundary matrix over Z/2 after reduction, -1 for none.

    Also gives the reduced columns: for each pivot where they start and end in a pool of ranks, ascending.

    begin: (columns + 1,) where each column starts in `ranks`, ascending within a column. loops: number of ranks.
    """
    pivots = np.full(begin.size - 1, -1, np.int64)
    first, last = np.zeros(loops, np.int64), np.zeros(loops, np.int64)
    pool, used = np.empty(4096, np.int64), 0
    for column in range(begin.size - 1):
        start, end = used, used + begin[column + 1] - begin[column]
        while end > pool.size:
            pool = grown(pool)
        for k in range(start, end):
            pool[k] = ranks[begin[column] + k - start]
        while end > start and last[pool[end - 1]] > 0:
            # The sum (mod 2) of this column and the one with the same pivot, written behind it.
            i, j, k = start, first[pool[end - 1]], end
            stop, other = end, last[pool[end - 1]]
            while end + (stop - i) + (other - j) > pool.size:
                pool = grown(pool)
            while i < stop or j < other:
                if j == other or (i < stop and pool[i] < pool[j]):
                    pool[k] = pool[i]
                    i, k = i + 1, k + 1
                elif i == stop or pool[j] < pool[i]:
                    pool[k] = pool[j]
                    j, k = j + 1, k + 1
                else:
                    i, j = i + 1, j + 1
            end = start + k - stop
            for i in range(start, end):
                pool[i] = pool[i + stop - start]
        if end > start:
            pivots[column] = pool[end - 1]
            first[pivots[column]], last[pivots[column]] = start, end
            used = end
    return pivots, first, last, pool[:used]
