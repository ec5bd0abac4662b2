"""A network that runs every row of a batch as its own member of a population, at nearly the cost of one plain batch.

    y = x W^T + b  +  (what the member's noise adds)

The stored weights are never touched: while perturbed, modules run through a replaced `forward`, or find an object in a
parameter's place that lets each row compute with its member's weights.

Each kind of parameter is perturbed in its own way:

    linear layers (nn.Linear, Conv1D)    the product is added onto the noise, in one pass                linear.py
    embeddings                           the noise is added to what was looked up                        embedding.py
    experts of a mixture                 grouped products by expert, and by expert and member            experts.py
    scales and shifts of norms           a vector for each row                                           vectors.py
    parameters that other code reads     routers as linear layers, scaled embeddings as embeddings;      by_member.py
                                         small ones member by member: a mixer's A, D, dt and convolution
    anything else                        an error that names it and asks to exclude it

The type of a layer is not trusted: the constructor runs a tiny batch and finds every parameter that is not
applied, is applied to something other than the batch's rows, or gives a member what is not its own.

Shapes: B rows (= P members x K rows), T tokens, O outputs, I inputs, E experts, N a vector's size.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase

from torch import Tensor, nn
from transformers import PreTrainedModel

from evotext.distributed.parts import Part, Parts
from evotext.noise import MemberNoise, ParameterSpec

from .active import LeaveOutError
from .patterns import covering, summary
from .probe import alike, inspect_uses
from .trial import attach_what_works


class PerturbedNetwork:
    """A transformers causal LM that can run batches perturbed. Outside of `active` it is the network itself.

    network: in evaluation mode. exclude: glob patterns of parameter names that stay as they are, as do all that do not
    require gradients (the frozen weights beside an adapter).
    Several patterns may name the same thing in different families; one at least must match. Raises ValueError if none
    does, and LeaveOutError for parameters that cannot be perturbed.
    A tensor used twice (a tied embedding and head) is one parameter and is perturbed in both uses.
    parts: of its parameters that this process holds; None: all of all.
    """

    def __init__(self, network: PreTrainedModel, *, exclude: Sequence[str] = (), parts: Parts | None = None) -> None:
        self.network = network
        if network.training:
            raise ValueError(f"{type(network).__name__} is in training mode, where dropout acts: call its eval() first")
        stored = dict(network.named_parameters())
        if any(parameter.is_inference() for parameter in stored.values()):
            raise ValueError(f"{type(network).__name__} was made within torch.inference_mode(): its weights are fixed")
        if exclude and not any(fnmatchcase(name, pattern) for name in stored for pattern in exclude):
            wanted = " or ".join(map(repr, exclude))
            raise ValueError(f"exclude: no parameter matches {wanted}; the network has {summary(stored)}")
        excluded = {name for name in stored if any(fnmatchcase(name, pattern) for pattern in exclude)}
        excluded |= {name for name, parameter in stored.items() if not parameter.requires_grad}
        if len(excluded) == len(stored):
            raise ValueError(f"exclude: {list(exclude)} leaves no parameter to perturb")
        found = inspect_uses(network, {id(p): name for name, p in stored.items() if name not in excluded})
        tried = attach_what_works(network, found)
        faults = tried.faults | {
            name: "no text goes through it"
            for name in stored
            if name not in excluded and name not in tried.faults and name not in tried.applied
        }
        if faults:
            reasons = {
                pattern: reason
                for reason in dict.fromkeys(faults.values())
                for pattern in covering([name for name in faults if faults[name] == reason], stored)
            }
            exclude = covering([*faults, *sorted(excluded)], stored)
            raise LeaveOutError(type(network).__name__, exclude, reasons)
        if not alike(tried.logits_BTV, found.logits_BTV):
            raise ValueError(f"{type(network).__name__} computes something else under noise of size zero")
        self._attachments = tried.attachments
        self._stored_shape = {name: parameter.shape for name, parameter in stored.items()}
        experts = {use.name for use in found.uses if use.kind == "experts"}
        held = parts or Parts()
        self._parameters = {
            name: _spec(stored[name], index, name in experts, name in self._attachments.transposed, held.get(name))
            for index, name in enumerate(sorted(stored))
            if name not in excluded
        }

    @property
    def parameters(self) -> Mapping[str, ParameterSpec]:
        """Every parameter that may be perturbed, by its name, sorted."""
        return self._parameters

    @property
    def one_input(self) -> Sequence[tuple[str, ...]]:
        """Matrices of linear layers that read the same input, one after another, and so get their noise in one call."""
        return [each.names for each in self._attachments.one_input]

    def in_stored_layout(self, name: str, value: Tensor) -> Tensor:
        """Return a value in the layout of `parameters` as the layer stores it: Conv1D keeps I x O, a convolution C x 1 x I."""
        ours = value.transpose(-1, -2) if name in self._attachments.transposed else value
        return ours.reshape(self._stored_shape[name])

    def in_our_layout(self, name: str, stored: Tensor) -> Tensor:
        """Return a parameter as its layer stores it in the layout of `parameters`: what `in_stored_layout` undoes."""
        ours = stored.transpose(-1, -2) if name in self._attachments.transposed else stored
        return ours.reshape(self._parameters[name].shape)

    def active(self, noise: MemberNoise, rows_per_member: int) -> AbstractContextManager[None]:
        """Run batches of noise.count x rows_per_member rows, ordered by member, perturbed within the block; no gradients."""
        return self._attachments.active(noise, rows_per_member)


def _spec(parameter: nn.Parameter, index: int, is_expert: bool, transposed: bool, part: Part | None) -> ParameterSpec:
    """Return a parameter's spec in the layout (O, I), or (E, O, I), or (N,)."""
    shape = tuple(parameter.shape)
    if is_expert and parameter.ndim == 3:
        kind, shape = "experts", (shape[0], shape[2], shape[1]) if transposed else shape
    elif parameter.ndim >= 2:
        kind, shape = "matrix", (shape[0], parameter.numel() // shape[0])
        shape = shape[::-1] if transposed else shape
    else:
        kind, shape = "vector", (parameter.numel(),)
    assert part is None or not (is_expert or transposed), "plans divide linear layers and embeddings"
    return ParameterSpec(
        kind=kind,  # type: ignore[arg-type]
        shape=shape,
        index=index,
        dtype=parameter.dtype,
        device=parameter.device,
        part=part,
    )
