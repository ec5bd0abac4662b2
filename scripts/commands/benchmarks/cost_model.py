"""The cost of a generation on many devices, and the point where more of them stop helping.

    T(N) = s(N) R + U(N) + X(N)          efficiency(N) = T(1) / (N T(N))

R, U are the seconds of rollouts and update of one device, s(N) the largest share of the rows that a device gets, and X(N) the
exchange. Evolution strategies: U(N) = U where every device computes the whole update from the keys (algorithm.update=repeated),
and X is a few bytes a row; with algorithm.update=shared U(N) = p(N) U, p being the largest share of the parameters, which go
whole, and X has the stored weights. Policy gradients: U(N) = s(N) U, and X has the gradients of every parameter.

Messages go around a ring, as gloo sends them: a gather of b bytes from each takes N - 1 steps of b bytes, a sum of b bytes
2 (N - 1) steps of b / N bytes; a step takes latency + bytes / bandwidth. A weight of b bytes goes to the others down a tree,
log2 N steps of b bytes; those of different owners may go at the same time, which is left out, as are memory bandwidth and
clock rate that processes on one machine share, fewer rows a batch, stragglers (`processes/waiting` measures them).
"""

from dataclasses import dataclass

from evotext.optimizers import ownership
from evotext.rollouts.collector import even_batch

# Bytes that `processes` exchanges for each row: return, length, ending and two flags, in 8 bytes each.
ROW_BYTES = 5 * 8
# Bytes of a token: id, mask, turn, reward, log-probability.
TOKEN_BYTES = 8 + 1 + 8 + 4 + 4
COST_BYTES, FIGURE_BYTES = 9 * 8, 8
# The length of an empty list in JSON, and the list: the names of the rewards' parts, where there are none.
NO_PARTS_BYTES = 8, 2


@dataclass(frozen=True, kw_only=True)
class Work:
    """A generation on one device."""

    rollout_seconds: float
    """R."""
    update_seconds: float
    """U."""
    rows: int
    """Episodes."""
    whole: int
    """Rows that stay together: those of a member."""
    at_once: int
    """Rows of a batch at most."""
    tensors: int
    """Parameter tensors."""
    parameters: int = 0
    """Numbers whose gradients are added up at each step; 0 for evolution strategies."""
    steps: int = 0
    """Optimizer steps a generation that add up gradients."""
    width: int = 0
    """Tokens of the longest conversation, where tokens are exchanged."""
    weights: tuple[int, ...] = ()
    """Bytes of each parameter, where an evolution strategy's update is shared out; empty where each device repeats it."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Between two devices."""

    latency: float
    """Seconds of a step without content."""
    bandwidth: float
    """Bytes a second."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Bytes that each device gives in a generation, message by message."""

    gathers: tuple[int, ...]
    """To all others."""
    sums: tuple[int, ...]
    """To be added up."""
    weights: tuple[int, ...] = ()
    """Of parameters, each from its owner to all others."""
    most_weights: int = 0
    """Of those, what the device that owns most gives."""

    @property
    def bytes(self) -> int:
        """The bytes that `processes/bytes` counts: each message once."""
        return sum(self.gathers) + sum(self.sums) + self.most_weights

    def seconds(self, devices: int, link: Link) -> float:
        """Return the time of all messages, one after another."""
        steps = devices - 1
        gathered = sum(steps * (link.latency + size / link.bandwidth) for size in self.gathers)
        spread = sum((devices - 1).bit_length() * (link.latency + size / link.bandwidth) for size in self.weights)
        return (
            gathered + spread + sum(2 * steps * (link.latency + size / devices / link.bandwidth) for size in self.sums)
        )


def largest_share(work: Work, devices: int) -> int:
    """Return the rows of the busiest device: batches are dealt out in turn, of one size as nearly as whole members allow."""
    size = work.at_once
    if devices > 1:
        size = even_batch(work.rows, work.whole, devices, most=work.at_once)
    if work.whole <= size:
        size -= size % work.whole
        batches = _cut(work.rows, size)
    else:
        batches = _cut(work.whole, size) * (work.rows // work.whole)
    return max(sum(batches[device::devices]) for device in range(devices))


def _cut(rows: int, size: int) -> list[int]:
    """Return pieces of this size and the rest."""
    return [size] * (rows // size) + [rows % size] * (rows % size > 0)


def exchange(work: Work, devices: int) -> Exchange:
    """Return the messages of a generation of an evolution strategy or, if `parameters` is set, of policy gradients."""
    most = largest_share(work, devices)
    gathers = [ROW_BYTES * most, *NO_PARTS_BYTES, 8, COST_BYTES, 8, COST_BYTES, 8 * work.tensors]
    sums: list[int] = []
    if work.parameters:
        gathers.append(TOKEN_BYTES * most * work.width)
        # float32 gradients, tensor by tensor, and one number a tensor that says whether it has any.
        each = work.parameters // work.tensors
        sums += work.steps * [4 * work.tensors, *[4 * each] * work.tensors]
    if not work.weights:
        return Exchange(gathers=tuple(gathers), sums=tuple(sums))
    # Of each parameter's direction four figures, of its change and its drift one.
    sums += [4 * FIGURE_BYTES * len(work.weights), *2 * [FIGURE_BYTES * len(work.weights)]]
    most_weights = ownership.most_owned(work.weights, devices)
    return Exchange(gathers=tuple(gathers), sums=tuple(sums), weights=work.weights, most_weights=most_weights)


def generation_seconds(work: Work, devices: int, link: Link) -> float:
    """Return T(N)."""
    if devices == 1:
        return work.rollout_seconds + work.update_seconds
    share = largest_share(work, devices) / work.rows
    own = (
        share
        if work.parameters
        else ownership.most_owned(work.weights, devices) / sum(work.weights)
        if work.weights
        else 1.0
    )
    return share * work.rollout_seconds + own * work.update_seconds + exchange(work, devices).seconds(devices, link)


def efficiency(work: Work, devices: int, link: Link) -> float:
    """Return the share of N times one device's speed."""
    return generation_seconds(work, 1, link) / (devices * generation_seconds(work, devices, link))


def fastest(work: Work, link: Link, most: int) -> int:
    """Return the number of devices, of powers of two up to `most`, beyond which more are no faster."""
    counts = [2**k for k in range(most.bit_length()) if 2**k <= most]
    return min(counts, key=lambda devices: generation_seconds(work, devices, link))
