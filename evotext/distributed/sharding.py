"""Weights, gradients and optimizer state divided over the processes of a run, by torch's `fully_shard` (FSDP2).

Zhao et al. 2023, "PyTorch FSDP", arXiv 2304.11277; the stages of ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054. Each process
holds a slice of every parameter along its first axis (a DTensor). A layer's slices are gathered when it runs, forward and
backward, and freed after it; its gradients are added up over the processes and divided. Embeddings, the last norm and the
output head are gathered together, for a whole pass. Trained weights are kept in float32 and gathered in the network's own
type, so that no masters are needed beside them.

Every pass is a message to all: processes have to run layers as often as each other. One that has nothing to run reads a single
token and drops what comes of it (`Sharding.acting`, `baselines/inner_loop.py`).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from evotext.distributed import collectives

RolloutWeights = Literal["layers", "whole"]
"""Gathered for rollouts: one layer after another in each pass, or all of them together until the rollouts are over."""
Parts = tuple[PreTrainedModel, Any]
"""A network and the adapter in it; None without one."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """The way in which a network is divided."""

    network: PreTrainedModel
    """The network."""
    blank: Parts
    """The network as it was, with its adapter, but on torch's meta device, where weights take no memory."""
    mesh: DeviceMesh
    """All processes, one after another."""
    rollout_weights: RolloutWeights
    """What rollouts gather."""

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Run the network without gradients within the block, in each process as often as it likes."""
        layers = _sharded(self.network)[1:]
        with torch.no_grad(), gathered(self.network):
            if self.rollout_weights == "whole":
                for layer in layers:
                    layer.unshard()
                    layer.set_reshard_after_forward(False, recurse=False)
                yield
                for layer in layers:
                    layer.set_reshard_after_forward(True, recurse=False)
                    layer.reshard()
            else:
                hook = self.network.register_forward_pre_hook(_announce)
                yield
                hook.remove()
                while _going_on(False):
                    _read_one_token(self.network)

    def copied(self, *, trunk: bool, frozen: bool) -> PreTrainedModel:
        """Return another network (or its trunk) with these weights, divided likewise. frozen: it is not trained."""
        # Of what is not written to, the system gives no memory.
        network, _ = _with_parameters(self.blank, lambda p: torch.empty_like(p, device="cpu"))
        other, own = (n.base_model if trunk else n for n in (network, self.network))
        if frozen:
            other.requires_grad_(False)
        _shard(other, self.mesh)
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                parameter.copy_(own.get_parameter(name))
            for name, buffer in other.named_buffers():
                buffer.copy_(own.get_buffer(name))
        return other

    def whole(self) -> Parts:
        """Return network and adapter as they were, on the CPU, with these weights in process 0; every process calls it."""
        first = collectives.rank() == 0
        network, adapter = _with_parameters(
            self.blank, lambda p: torch.empty_like(p, device="cpu" if first else "meta")
        )
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                assert isinstance(parameter, DTensor)
                values = parameter.full_tensor()  # one at a time
                network.get_parameter(name).copy_(values)
        return network, adapter

    def divided(self, whole: Tensor) -> Tensor:
        """Return this process's slice of a tensor that each process has."""
        return distribute_tensor(whole, self.mesh, [Shard(0)], src_data_rank=None).clone()  # not a view of the whole


def shard(network: PreTrainedModel, adapter: Any, device: torch.device, rollout_weights: RolloutWeights) -> Sharding:
    """Divide a network over all processes, in place, and move each one's share to its device.

    Raise ValueError for a network without layers that could be gathered one by one.
    """
    blank = _with_parameters((network, adapter), lambda p: torch.empty_like(p, device="meta"))
    if device.index is not None:
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (collectives.world_size(),))
    _shard(network, mesh)
    return Sharding(network=network, blank=blank, mesh=mesh, rollout_weights=rollout_weights)


@contextmanager
def gathered(network: PreTrainedModel) -> Iterator[None]:
    """Let parts of the network be called on their own within the block; with gradients, until their backward pass is over.

    A network that is not divided needs nothing.
    """
    if not isinstance(network, FSDPModule):
        yield
        return
    network.unshard()
    network.set_reshard_after_forward(False, recurse=False)
    yield
    network.set_reshard_after_forward(True, recurse=False)
    if not torch.is_grad_enabled():
        network.reshard()


def is_sharded(network: nn.Module) -> bool:
    """Return whether the network is divided over processes."""
    return isinstance(network, FSDPModule)


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's slice of a tensor that is divided, and any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process calls it if it is divided."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_divided(tensor: Tensor) -> bool:
    """Return whether this process has but a slice of the tensor."""
    return isinstance(tensor, DTensor)


def _shard(network: PreTrainedModel, mesh: DeviceMesh) -> None:
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"parallel: expected a network whose layers transformers marks (GradientCheckpointingLayer), got "
            f"{type(network).__name__}, which has none; take null"
        )
    policy = MixedPrecisionPolicy(param_dtype=network.dtype, reduce_dtype=torch.float32)
    for module in (*layers, network):
        for parameter in module.parameters():
            if parameter.requires_grad and not is_divided(parameter):
                parameter.data = parameter.data.float()
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for module in _sharded(network):
        # Losses are sums over all rows; gloo has neither averages nor scaled sums.
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
        module.set_reduce_scatter_unused_params(True)  # an expert may be used in one process and not in another
        if mesh.device_type == "cpu":
            # By default the layer before is gathered meanwhile; here nothing runs meanwhile, and it takes a layer's memory.
            module.set_modules_to_backward_prefetch([module])
    _read_one_token(network)  # the gathered tensors are made in the first pass, and inference mode would spoil them


def _sharded(network: nn.Module) -> list[Any]:
    """Return the modules that are gathered by themselves: the network, for what belongs to no layer, then its layers."""
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


@torch.no_grad()
def _read_one_token(network: PreTrainedModel) -> None:
    network(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=network.device), use_cache=False)


def _announce(*_: object) -> None:
    """Make the other processes join in a pass."""
    _going_on(True)


def _going_on(mine: bool) -> bool:
    """Return whether some process has a pass to run."""
    return collectives.total(float(mine)) > 0


def _with_parameters(model: Parts, make: Callable[[Tensor], Tensor]) -> Parts:
    """Return a copy of network and adapter whose parameters are made anew, tied ones tied."""
    memo: dict[int, Any] = {id(p): nn.Parameter(make(p), requires_grad=p.requires_grad) for p in model[0].parameters()}
    return copy.deepcopy(model, memo)
