"""The generator against Random123's published answers, and the streams built on it."""

import math

import pytest
import torch
from scipy import stats

from evotext.keys.philox import MASK, Purpose, many_normals, normal, normals, philox, stream_id, uniform

# philox4x32-10 of Random123's kat_vectors: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK << 32) | MASK, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
INDEX = torch.arange(50)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: tuple[int, ...], key: int, expected: tuple[int, ...]) -> None:
    """Catches any error in rounds, constants, word order or the emulation of unsigned arithmetic."""
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    assert tuple(word.item() for word in philox(key, (c0, c1, c2, c3))) == expected


def test_uniform_is_in_range_and_uniform() -> None:
    """Catches signed words (negative numbers) and a wrong scale."""
    numbers = uniform(7, stream_id(Purpose.TOKEN_SAMPLING), 3, INDEX, 2001)
    assert numbers.dtype == torch.float64
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("offset", [0, 1, 4, 7, 30])
def test_an_offset_is_a_slice_of_the_stream(offset: int) -> None:
    """Catches numbers that depend on how they are asked for: a token's number must not depend on the turn's start."""
    stream = stream_id(Purpose.TOKEN_SAMPLING)
    assert torch.equal(
        uniform(1, stream, 0, INDEX, 9, offset), uniform(1, stream, 0, INDEX, 60)[:, offset : offset + 9]
    )


def test_normals_are_normal() -> None:
    """Moments within 5 standard errors and a Kolmogorov-Smirnov test; catches e.g. one angle for both of a pair."""
    numbers = normal(11, stream_id(Purpose.WEIGHT_NOISE, 5), 2, torch.arange(100), 2000).double()
    error = 1 / math.sqrt(numbers.numel())
    assert abs(float(numbers.mean())) < 5 * error
    assert abs(float(numbers.var()) - 1) < 5 * math.sqrt(2) * error
    assert abs(float((numbers**4).mean()) - 3) < 5 * math.sqrt(96) * error
    neighbours = numbers[:, 1:] * numbers[:, :-1]
    assert abs(float(neighbours.mean())) < 5 * error
    assert stats.kstest(numbers.flatten().numpy(), "norm").pvalue > 1e-3


def test_normals_do_not_depend_on_what_is_drawn_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers agree bit for bit: alone, among other streams, for some indices only, in chunks of any size."""
    streams = [(stream_id(Purpose.WEIGHT_NOISE, i), range(count)) for i, count in enumerate([5, 12, 1, 64])]
    together = normals(3, 4, INDEX, streams)
    for (stream, places), expected in zip(streams, together, strict=True):
        count = len(places)
        assert expected.shape == (50, count)
        assert torch.equal(normal(3, stream, 4, INDEX, count), expected)
        assert torch.equal(normal(3, stream, 4, INDEX[20:23], count), expected[20:23])
        assert torch.equal(normal(3, stream, 4, INDEX, count + 9)[:, :count], expected)
    monkeypatch.setattr("evotext.keys.philox.CHUNK_BLOCKS", 7)
    for expected, chunked in zip(together, normals(3, 4, INDEX, streams), strict=True):
        assert torch.equal(chunked, expected)


@pytest.mark.parametrize("places", [range(0), range(3), range(5, 9), range(8, 64), range(63, 64)])
def test_numbers_from_the_middle_of_a_stream_are_those_of_the_whole(places: range) -> None:
    stream = stream_id(Purpose.WEIGHT_NOISE, 1)
    before, found, after = normals(3, 4, INDEX, [(stream, range(7)), (stream, places), (stream, range(7))])
    whole = normal(3, stream, 4, INDEX, 64)
    assert torch.equal(found, whole[:, places.start : places.stop])
    assert torch.equal(before, whole[:, :7]) and torch.equal(after, whole[:, :7])


def test_streams_are_different_and_uncorrelated() -> None:
    """Catches keys that collide: adjacent seeds, generations, indices, purposes, and seeds beyond 32 bits."""
    noise, tokens = stream_id(Purpose.WEIGHT_NOISE), stream_id(Purpose.TOKEN_SAMPLING)
    keys = [(0, noise, 0), (1, noise, 0), (1 << 32, noise, 0), (0, noise, 1), (0, noise + 1, 0), (0, tokens, 0)]
    drawn = torch.cat([normal(seed, stream, generation, INDEX[:2], 4000) for seed, stream, generation in keys])
    correlation = drawn.corrcoef() - torch.eye(len(drawn))
    assert float(correlation.abs().max()) < 5 / math.sqrt(4000)


def test_stream_ids_are_unique() -> None:
    """A parameter's index never reaches into the next purpose."""
    ids = {stream_id(purpose, index) for purpose in Purpose for index in (0, 1, (1 << 24) - 1)}
    assert len(ids) == 3 * len(Purpose)
    with pytest.raises(AssertionError):
        stream_id(Purpose.WEIGHT_NOISE, 1 << 24)


def test_many_normals_are_normal_and_a_function_of_their_key_alone() -> None:
    """They do not depend on what is drawn beside them; another seed, stream, generation or index gives uncorrelated numbers."""
    cpu = torch.device("cpu")
    numbers = many_normals(3, 5, 2, torch.arange(50), 4000, cpu)
    for index in (0, 49):
        assert torch.equal(many_normals(3, 5, 2, torch.tensor([index]), 4000, cpu)[0], numbers[index])
    assert torch.equal(many_normals(3, 5, 2, torch.arange(50), 10, cpu), numbers[:, :10])
    assert abs(float(numbers.mean())) < 4 / numbers.numel() ** 0.5
    assert abs(float(numbers.double().pow(4).mean()) - 3) < 4 * (96 / numbers.numel()) ** 0.5
    others = [many_normals(*key, torch.tensor([0]), 4000, cpu)[0] for key in ((4, 5, 2), (3, 6, 2), (3, 5, 3))]
    together = torch.corrcoef(torch.stack([numbers[0], numbers[1], *others]))
    assert float((together - torch.eye(5)).abs().max()) < 4.5 / 4000**0.5
