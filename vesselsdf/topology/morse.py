"""Kernels behind `persistence`: a discrete Morse complex of the voxels, compiled by numba.

Voxels enter one by one in the order of (key, flat index). What a voxel changes is decided by its contact `K`: the part
of its surface that earlier voxels cover, told by a 26-bit code, one bit for each earlier neighbour. Adding a closed
voxel to the union `X` of the earlier ones attaches a ball along `K`, so `H_k(X + voxel, X)` is the reduced
`H_{k-1}(K)` (Robins, Wood, Sheppard 2011 use the same for the dual pair of adjacencies). With `c` components of `K` and
`d` components of the rest of the voxel's surface, the voxel stands for

    one critical 0-cell if `c = 0`, `c - 1` critical 1-cells, `d - 1` critical 2-cells, one critical 3-cell if `d = 0`,

and changes nothing when `c = d = 1`: it is a simple point. Faces of the voxel are joined in the rest of the surface
across uncovered edges, and `c` follows from Euler's formula, so one look-up in a table of 2^18 entries decides.

Kernels allocate nothing: arrays to write in come as arguments, which makes them compile in half the time.
"""

import numpy as np

from vesselsdf.compiled import inner, kernel
from vesselsdf.topology.contact import (
    OUT,
    contact,
    face_part,
    first_bit,
    lowest,
    parts,
    spanning_tree,
)


@inner
def find(parent, voxel):
    """Root of a voxel in a union-find forest, halving its path."""
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@kernel
def scan(keys, steps, table, parent, voxels, codes):
    """Critical voxels in flat order, with their codes; `parent` becomes the forest of steepest descents.

    Gives their number, which may be larger than the arrays have room for: then it wants to be called again.
    """
    count = 0
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
            if count < voxels.size:
                voxels[count], codes[count] = voxel, code
            count += 1
    return count


@kernel
def merge_components(keys, steps, parent, voxels, codes, order, starts, tree, born, dies, into, cells, loops, sides):
    """H0: joins components in the order of the critical voxels; those of voxel `i` are `starts[i]` to `starts[i + 1]`.

    Writes bars (birth voxel, death voxel) and the elder births that they merge into; for each 1-cell in `cells` its
    rank among those that close a loop, and -1 if it joins two components; in `loops` the 1-cells by that rank; in
    `sides` the voxel whose contact with the critical voxel each 1-cell leads to. Gives the numbers of bars and loops.
    """
    bars = count = 0
    for i in order:
        if starts[i + 1] == starts[i]:
            continue
        voxel, rest = voxels[i], codes[i]
        own = find(parent, voxel)
        _, rest = spanning_tree(rest, lowest(keys, voxel, rest, steps), tree)
        for cell in range(starts[i], starts[i + 1]):
            first = first_bit(rest)
            _, rest = spanning_tree(rest, first, tree)
            sides[cell] = voxel + steps[first]
            other = find(parent, sides[cell])
            if other == own:
                cells[cell], loops[count] = count, cell
                count += 1
                continue
            cells[cell] = -1
            if keys[other] < keys[own] or (keys[other] == keys[own] and other < own):
                own, other = other, own
            parent[other] = own
            born[bars], dies[bars], into[bars] = other, voxel, own
            bars += 1
    return bars, count


@kernel
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


@kernel
def merge_cavities(keys, steps, parent, voxels, codes, order, free, highest, born, dies, into, fillings, around):
    """H2 by duality: joins components of the background in falling order; `free` is `d` of the critical voxels,
    `highest` the face across which their latest neighbour lies.

    Writes bars (birth voxel, death voxel) and the later deaths that they merge into, and the 2-cells that fill loops,
    latest first, as (critical voxel, faces of the uncovered part that the loop runs around). Gives their numbers.
    """
    bars = count = 0
    for i in order[::-1]:
        if free[i] < 2:
            continue
        voxel, rest = voxels[i], ~codes[i] & 63
        own = find(parent, voxel)
        rest &= ~face_part(codes[i], highest[i])
        while rest:
            first = first_bit(rest)
            part = face_part(codes[i], first)
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
    return bars, count


@inner
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


@inner
def toggle(keys, first, second, steps, chain, heap):
    """Add (mod 2) the edge between two voxels that touch to a chain.

    `chain` holds for each voxel the earlier neighbours to which edges lead, as bits, and in bit 26 whether it waits in
    the heap, whose place 0 holds the number of items.
    """
    if keys[first] < keys[second] or (keys[first] == keys[second] and first < second):
        first, second = second, first
    k = 0
    while first + steps[k] != second:
        k += 1
    chain[first] ^= 1 << k
    if not chain[first] >> 26:
        chain[first] |= 1 << 26
        heap[0] += 1
        k = heap[0]
        item = np.int64(keys[first]) << 32 | first
        while k > 1 and heap[k >> 1] < item:
            heap[k] = heap[k >> 1]
            k >>= 1
        heap[k] = item


@inner
def settle(keys, steps, voxels, starts, cells, chain, heap, tree, found, count):
    """Let a chain flow down to the 1-cells that close loops on which it comes to rest; `chain` is 0 then.

    Latest first, the edges from a voxel to earlier neighbours are replaced by paths between these: within each part of
    the contact along a tree from the part's root (of the first part, the lowest neighbour: the edge to it is matched
    with the voxel). A path that reaches another part's root passes the critical 1-cell of that part. No voxel comes
    twice, and so no 1-cell.

    Writes ranks into `found` from place `count` on, and gives the place behind the last.
    """
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
            last, rest = spanning_tree(rest, root, tree)
            for i in range(last - 1, 0, -1):
                if bits >> tree[i] & 1:
                    bits ^= 1 << tree[i + 26]
                    toggle(keys, voxel + steps[tree[i]], voxel + steps[tree[i + 26]], steps, chain, heap)
            if cell >= 0 and bits >> root & 1:
                rank = cells[starts[position(voxels, voxel)] + cell]
                if rank >= 0:
                    found[count] = rank
                    count += 1
            cell += 1
            if rest:
                root = first_bit(rest)
    return count


@kernel
def boundaries(begin, heads, sides, keys, steps, voxels, starts, cells, loops, chain, heap, tree, found, ends, column):
    """Where cycles come to rest when they flow down: `settle`'s ranks, and where each's end.

    A cycle is given as edges between voxels that touch, in `heads` and `sides` from `begin[i]` to `begin[i + 1]`.
    Begins with a column, and gives the first one for which there might be no room.
    """
    count = 0 if column == 0 else ends[column - 1]
    while column < begin.size - 1 and count + loops <= found.size:
        for i in range(begin[column], begin[column + 1]):
            toggle(keys, heads[i], sides[i], steps, chain, heap)
        count = settle(keys, steps, voxels, starts, cells, chain, heap, tree, found, count)
        ends[column] = count
        column += 1
    return column


@kernel
def images_of_cycles(
    descent_keys, begin, heads, sides, keys, steps, voxels, starts, cells, loops, chain, heap, tree,
    found, ends, cycle,
):  # fmt: skip
    """Where cycles of one filtration come to rest in another one: as `boundaries`.

    A cycle is given as 1-cells of the first filtration (with `descent_keys`). Each stands for the edge between its two
    voxels and the steepest descents from both.
    """
    count = 0 if cycle == 0 else ends[cycle - 1]
    while cycle < begin.size - 1 and count + loops <= found.size:
        for i in range(begin[cycle], begin[cycle + 1]):
            toggle(keys, heads[i], sides[i], steps, chain, heap)
            for k in range(2):
                voxel = sides[i] if k else heads[i]
                code = contact(descent_keys, voxel, steps)
                while code:
                    below = voxel + steps[lowest(descent_keys, voxel, code, steps)]
                    toggle(keys, voxel, below, steps, chain, heap)
                    voxel = below
                    code = contact(descent_keys, voxel, steps)
        count = settle(keys, steps, voxels, starts, cells, chain, heap, tree, found, count)
        ends[cycle] = count
        cycle += 1
    return cycle


@inner
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


@kernel
def reduce_columns(begin, ranks, loops, pivots, first, last, pool, used, column):
    """Reduction of a boundary matrix over Z/2 from its columns, ascending ranks in `ranks[begin[i] : begin[i + 1]]`.

    Writes the pivot (largest rank) of each reduced column, and for each pivot where that column starts and ends in
    `pool` (`last` must be 0 before). Begins with a column and `used` places of the pool; gives the first column for
    which there might be no room, and the places used.
    """
    while column < pivots.size and used + 3 * loops <= pool.size:
        start, end = used, used + begin[column + 1] - begin[column]
        for k in range(start, end):
            pool[k] = ranks[begin[column] + k - start]
        while end > start and last[pool[end - 1]] > 0:
            # The sum (mod 2) of this column and the one with the same pivot, written behind it, then moved here.
            i, j, k = start, first[pool[end - 1]], end
            stop, other = end, last[pool[end - 1]]
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
        pivots[column] = -1
        if end > start:
            pivots[column] = pool[end - 1]
            first[pool[end - 1]], last[pool[end - 1]] = start, end
            used = end
        column += 1
    return column, used
