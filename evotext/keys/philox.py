"""Philox4x32-10: every random number of a run as a pure function of its key.

Paper: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (the generator of Random123).

A counter-based generator turns (key, counter) into random bits with no state, so numbers do not depend on the order,
the chunking or the process that asks for them, and resuming a run needs no generator state. Our counter has four words:

    key      the run's seed (64 bits)
    word 0   block of four numbers within the stream
    word 1   index: a population pair, or a rollout row
    word 2   generation
    word 3   stream: the purpose and, for weight noise, the parameter

Words are held in int64 tensors and masked to 32 bits, since torch has no full set of uint32 operations.
The integers are equal on every device; normals can differ in the last bit where `log` and `cos` do.

Shapes: N indices, C numbers per index, K blocks of four (K = ceil(C / 4)).
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from evotext.devices import widest_float

MASK = 0xFFFFFFFF
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
STREAM_BITS = 24
# Blocks computed at once: the working set stays in a CPU's second-level cache.
CHUNK_BLOCKS = 1 << 14


class Purpose(IntEnum):
    """The use of a stream; no two purposes share a number."""

    WEIGHT_NOISE = 0
    TOKEN_SAMPLING = 1
    INSTANCES = 2
    SHUFFLING = 3
    ROUNDING = 4
    SEARCHER = 5
    TASKS = 6
    LEVELS = 7


def stream_id(purpose: Purpose, index: int = 0) -> int:
    """Return the counter's fourth word: a purpose and an index below 2**24 within it (for noise, the parameter)."""
    assert 0 <= index < 1 << STREAM_BITS, index
    return purpose << STREAM_BITS | index


def philox(seed: int, words: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run ten Philox rounds: four int64 tensors of 32-bit counters (one shape) give four of 32-bit random words."""
    c0, c1, c2, c3 = words
    k0, k1 = seed & MASK, seed >> 32 & MASK
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIER_0, c2 * MULTIPLIER_1  # wraps as unsigned 64-bit does
        # Words 1 and 3 keep their high bits until they meet a mask: one operation less each round.
        c0, c1 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(MASK), p1
        c2, c3 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(MASK), p0
        k0, k1 = k0 + WEYL_0 & MASK, k1 + WEYL_1 & MASK
    return c0, c1.bitwise_and_(MASK), c2, c3.bitwise_and_(MASK)


def uniform(seed: int, stream: int, generation: int, index_N: Tensor, count: int, offset: int = 0) -> Tensor:
    """Return uniforms in [0, 1) with 32 random bits, (N, count): numbers offset..offset+count-1 of each stream.

    They are float64; on a device without that float32, to which the greatest round up to 1.
    """
    first, last = offset // 4, -(-(offset + count) // 4)
    block_K = torch.arange(first, last, dtype=torch.int64, device=index_N.device)
    words_NK4 = torch.stack(_words(seed, generation, index_N, block_K, torch.full_like(block_K, stream)), dim=-1)
    start = offset - 4 * first
    numbers_NK = words_NK4.flatten(1)[:, start : start + count]
    return numbers_NK.to(widest_float(index_N.device)) * 2.0**-32


def normal(seed: int, stream: int, generation: int, index_N: Tensor, count: int) -> Tensor:
    """Return float32 standard normals by Box-Muller, (N, count), from the streams (seed, stream, generation, index)."""
    return normals(seed, generation, index_N, [(stream, range(count))])[0]


def normals(seed: int, generation: int, index_N: Tensor, streams: Sequence[tuple[int, range]]) -> list[Tensor]:
    """Return the numbers at these places of several streams at once, (N, count) each: those of `normal` with less overhead."""
    device = index_N.device
    first = [places.start // 4 for _, places in streams]
    blocks = [-(-places.stop // 4) - begin for (_, places), begin in zip(streams, first, strict=True)]
    block_K = torch.cat(
        [
            torch.arange(begin, begin + n, dtype=torch.int64, device=device)
            for begin, n in zip(first, blocks, strict=True)
        ]
    )
    stream_K = torch.cat(
        [torch.full((n,), s, dtype=torch.int64, device=device) for (s, _), n in zip(streams, blocks, strict=True)]
    )
    out_NK4 = torch.empty(index_N.numel(), block_K.numel(), 4, device=device)
    rows = min(index_N.numel(), CHUNK_BLOCKS)
    columns = max(1, CHUNK_BLOCKS // max(rows, 1))
    for top in range(0, index_N.numel(), CHUNK_BLOCKS):
        for left in range(0, block_K.numel(), columns):
            part = slice(top, top + rows), slice(left, left + columns)
            w0, w1, w2, w3 = _words(seed, generation, index_N[part[0]], block_K[part[1]], stream_K[part[1]])
            out_NK4[part][..., :2] = _box_muller(w0, w1)
            out_NK4[part][..., 2:] = _box_muller(w2, w3)
    numbers = out_NK4.split(blocks, dim=1)
    return [
        part_NK4.flatten(1)[:, places.start - 4 * begin :][:, : len(places)]
        for part_NK4, (_, places), begin in zip(numbers, streams, first, strict=True)
    ]


def many_normals(seed: int, stream: int, generation: int, index_N: Tensor, count: int, device: torch.device) -> Tensor:
    """Return float32 standard normals, (N, count), from streams keyed as those of `normal`, for noise of full size.

    On a CPU they come from numpy's Philox4x64-10, thirty times faster than 64-bit integers in torch, and are other
    numbers than on a GPU, which draws those of `normal`: equal keys give equal numbers on devices of one kind.
    """
    if device.type != "cpu":
        return normal(seed, stream, generation, index_N.to(device), count)
    out_NK = np.empty((index_N.numel(), count), dtype=np.float32)
    # A draw counts upwards from 0 in the lowest of the counter's four words; the key's two words are never equal for two
    # streams. One generator is set to each draw in turn, which takes a third of the time of making one.
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=[0, 0, 0, generation])
    state, generator = bits.state, np.random.Generator(bits)
    for row_K, index in zip(out_NK, index_N.tolist(), strict=True):
        state["state"]["counter"][2] = index
        bits.state = state
        generator.standard_normal(dtype=np.float32, out=row_K)
    return torch.from_numpy(out_NK)


def _words(
    seed: int, generation: int, index_N: Tensor, block_K: Tensor, stream_K: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the random words of these blocks of these streams for every index, each of shape (N, K)."""
    assert 0 <= generation <= MASK, generation
    shape = index_N.numel(), block_K.numel()
    generation_NK = torch.full(shape, generation, dtype=torch.int64, device=index_N.device)
    return philox(seed, (block_K.expand(shape), index_N[:, None].expand(shape), generation_NK, stream_K.expand(shape)))


def _box_muller(radius_word: Tensor, angle_word: Tensor) -> Tensor:
    """Return two independent normals, along a new last axis, from two random words."""
    # (word + 1/2) / 2**32 is never 0; in float32 it may round to 1, whose logarithm is 0.
    radius = radius_word.float().add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = angle_word.float().mul_(2.0 * math.pi * 2.0**-32)
    return torch.stack((angle.cos().mul_(radius), angle.sin_().mul_(radius)), dim=-1)
