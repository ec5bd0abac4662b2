"""Collectives between the processes of a run. A run of one process takes the same paths and sends nothing.

`torchrun --nproc-per-node N -m evotext train ...` starts N processes that run the same program. Each runs its share of the
episodes; the others' data that an update needs is gathered, so all compute the same update and hold the same weights.
Messages are tensors: nothing is pickled.

Shapes: N processes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from evotext.devices import has_own_memory
from evotext.distributed import torchrun

T = TypeVar("T")
# Most time between the first and the last process of a group to be ready.
START = timedelta(minutes=2)
# Bytes that this process has sent.
_sent = [0]
# Processes that share a model, and so run the same rows.
_mates = [1]


@contextmanager
def joined() -> Iterator[None]:
    """Make the processes that torchrun started one group within the block; without torchrun do nothing."""
    if torchrun.size() == 1:
        yield
        return
    gpu, backend = torch.accelerator.current_accelerator(check_available=True), "gloo"
    if gpu is not None and has_own_memory(gpu):
        backend = f"cpu:gloo,{gpu.type}:{dist.get_default_backend_for_device(gpu.type)}"
    store, rank, size = next(rendezvous("env://"))
    store = PrefixStore(torchrun.attempt(), store)
    _await_all(store, rank, size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    share_by_groups(1)
    yield
    dist.destroy_process_group()  # not after an error, when the others may be gone


def _await_all(store: PrefixStore, rank: int, size: int) -> None:
    """Wait until all processes have come. Raise RuntimeError if one was lost before: torch would wait for half an hour."""
    store.set(f"here/{rank}", "yes")
    try:
        store.wait([f"here/{other}" for other in range(size)], START)
    except dist.DistStoreError as error:
        raise RuntimeError(f"expected {size} processes within {START.seconds} s, and one did not come") from error


def world_size() -> int:
    """Return N, the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def bytes_sent() -> int:
    """Return the bytes that this process has sent so far, each message counted once however many receive it."""
    return _sent[0]


def count_sent(tensor: Tensor) -> None:
    """Count a message of this process."""
    _sent[0] += tensor.numel() * tensor.element_size()


def share_by_groups(size: int) -> None:
    """Let groups of so many consecutive processes have the same share of the rows (`distributed.tensor_group`)."""
    _mates[0] = size


def mates() -> int:
    """Return how many processes have the same share of the rows: 1 unless they hold a model together."""
    return _mates[0]


def shares() -> int:
    """Return into how many shares the rows are divided: N, or the number of groups."""
    return world_size() // mates()


def share() -> int:
    """Return the number of this process's share, from 0."""
    return rank() // mates()


def own_share(items: Iterable[T]) -> Iterator[T]:
    """Yield every item of this process's share: of S shares every S-th one."""
    return islice(items, share(), None, shares())


def gather_shares(values: Tensor) -> Tensor:
    """Return the values of all shares (`all_gather`), stacked along a new first axis, (S, ...)."""
    return all_gather(values)[:: mates()]


def all_gather(values: Tensor) -> Tensor:
    """Return the values of all processes (same shape, on the CPU), stacked along a new first axis, (N, ...)."""
    if world_size() == 1:
        return values[None]
    count_sent(values)
    sent = values.to(torch.uint8) if values.dtype == torch.bool else values
    received = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(received, sent.contiguous())
    return torch.stack(received).to(values.dtype)


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, which is the same on all to the last bit."""
    if world_size() == 1:
        return
    for tensor in tensors:
        count_sent(tensor)
        dist.all_reduce(tensor)


def total(value: float) -> float:
    """Return the sum of all processes' values."""
    values = torch.tensor([value], dtype=torch.float64)
    all_reduce([values])
    return float(values)


def share_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes; one that had no rows adds nothing."""
    if world_size() == 1:
        return
    some = [p for p in parameters if p.requires_grad]
    # A parameter without a gradient anywhere stays without one, as it does in a run of one process.
    used = torch.tensor([p.grad is not None for p in some], dtype=torch.int32)
    all_reduce([used])
    chosen = [p for p, n in zip(some, used.tolist(), strict=True) if n]
    for parameter in chosen:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    all_reduce([p.grad for p in chosen if p.grad is not None])


def broadcast(tensor: Tensor) -> Tensor:
    """Return process 0's values, in place; every process passes a tensor of the same shape and type."""
    if world_size() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def broadcast_text(text: str) -> str:
    """Return process 0's text; what the others pass is ignored."""
    if world_size() == 1:
        return text
    data = text.encode()
    size = int(broadcast(torch.tensor([len(data)])))
    buffer = (
        torch.frombuffer(bytearray(data), dtype=torch.uint8) if rank() == 0 else torch.empty(size, dtype=torch.uint8)
    )
    return bytes(broadcast(buffer).numpy()).decode()


def broadcast_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return process 0's tensors by name; what the others pass is ignored."""
    if world_size() == 1:
        return tensors
    received: dict[str, Tensor] = {}
    for name, shape, kind in json.loads(broadcast_text(_listed(tensors))):
        own = tensors[name].contiguous() if rank() == 0 else torch.empty(shape, dtype=getattr(torch, kind))
        received[name] = broadcast(own)
    return received


def broadcast_each(tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
    """Replace each tensor, in place, by the values of the process that owns it."""
    if world_size() == 1:
        return
    under_way = [dist.broadcast(t, owner, async_op=True) for t, owner in zip(tensors, owners, strict=True)]
    for message in under_way:
        message.wait()
    _sent[0] += sum(t.numel() * t.element_size() for t, owner in zip(tensors, owners, strict=True) if owner == rank())


def gather_tensors(own: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return, in process 0, the tensors of each process by name, the others' on the CPU; elsewhere nothing."""
    listed = all_texts(_listed(own))
    if rank() > 0:
        for tensor in own.values():
            dist.send(tensor.cpu().contiguous(), 0)
        return []
    received: list[dict[str, Tensor]] = [own]
    for process in range(1, world_size()):
        received.append({})
        for name, shape, kind in json.loads(listed[process]):
            received[process][name] = torch.empty(shape, dtype=getattr(torch, kind))
            dist.recv(received[process][name], process)
    return received


def all_texts(own: str) -> list[str]:
    """Return the texts of all processes, which are ASCII as JSON is."""
    if world_size() == 1:
        return [own]
    data = own.encode("ascii")
    size_N = all_gather(torch.tensor([len(data)]))[:, 0].tolist()
    padded = torch.tensor(list(data.ljust(max(size_N))), dtype=torch.uint8)
    return [bytes(row[:size]).decode("ascii") for row, size in zip(all_gather(padded).tolist(), size_N, strict=True)]


def all_names(own: Iterable[str]) -> list[str]:
    """Return the names that any process has, in the same order on all."""
    return sorted({name for text in all_texts(json.dumps(sorted(set(own)))) for name in json.loads(text)})


def any_of(flag: bool) -> bool:
    """Return whether any process says so."""
    return bool(all_gather(torch.tensor([flag])).any())


@torch.no_grad()
def check_same(parameters: dict[str, nn.Parameter], when: str) -> None:
    """Raise RuntimeError, on all processes alike, unless all hold the same weights to the last bit.

    Compared by the sum of each parameter's bits taken as integers: 8 bytes a parameter. Where groups hold a model together,
    each process is compared with that of the first group which holds the same parts.
    """
    if world_size() == 1:
        return
    sums = torch.stack([_bits(parameter).sum(dtype=torch.int64).cpu() for parameter in parameters.values()])
    sums_NK = all_gather(sums)
    unequal = (sums_NK != sums_NK[: mates()].repeat(shares(), 1)).nonzero().tolist()
    if unequal:
        process, first = unequal[0]
        raise RuntimeError(
            f"{when}: expected the same weights in all {world_size()} processes, got others in process {process}, "
            f"first in {list(parameters)[first]}; the machines may differ in hardware or software"
        )


def _listed(tensors: Mapping[str, Tensor]) -> str:
    """Return names, shapes and types as JSON."""
    return json.dumps([[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()])


def _bits(tensor: Tensor) -> Tensor:
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(widths[tensor.element_size()])
