"""Trial noise for a perturbed network before it is trusted: none at all, or values that tell rows apart.

Shapes: P members, K positions a member, O outputs, I inputs, N a vector's size, D embedding width, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.models.out_of_memory import is_out_of_memory
from evotext.noise import FromStart

from .active import CannotPerturbError
from .attachments import Attachments
from .by_member import LARGEST
from .probe import MEMBERS, ROWS_PER_MEMBER, Use, Uses, probe_logits

GOLDEN = 2654435769  # of 2**32: the golden ratio's fraction, in whole numbers since not every device has float64
# Tolerated rounding of logits: as a share of what a member's values change in them, and of their size. With few digits
# a token may go to another expert.
NARROW, WIDE = (0.25, 0.05), (1e-3, 3e-5)


class TrialNoise:
    """The noise of `MEMBERS` members: `values` (P, *shape) of some parameters, by name, none of the others.

    outputs: O of every matrix, N of every vector. device: the network's.
    """

    count = MEMBERS

    def __init__(self, outputs: Mapping[str, int], device: torch.device, values: Mapping[str, Tensor]) -> None:
        self._outputs, self._device, self._values = outputs, device, values
        self.applied: set[str] = set()
        """Parameters that were asked for."""

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the value's product, or zeros, plus the start (`MemberNoise.linear`)."""
        self.applied.add(name)
        value = self._values.get(name)
        if value is None:
            y_PKO = x_PKI.new_zeros(*x_PKI.shape[:2], self._outputs[name])
        else:
            y_PKO = x_PKI @ value.flatten(2).transpose(1, 2)
        return y_PKO if start is None else y_PKO + start

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each."""
        return [partial(self.linear, name, x_PKI) for name in names]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> Tensor | None:
        """Return nothing."""
        self.applied.add(name)
        return None

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add the value's rows, or nothing."""
        self.applied.add(name)
        if name in self._values:
            member_P1 = torch.arange(MEMBERS, device=ids_PK.device)[:, None]
            y_PKD.add_(self._values[name][member_P1, ids_PK])

    def vector(self, name: str) -> Tensor:
        """Return the value, or integer zeros: adding them changes neither value nor dtype."""
        self.applied.add(name)
        if name in self._values:
            return self._values[name].reshape(MEMBERS, -1)
        return torch.zeros(MEMBERS, self._outputs[name], dtype=torch.int64, device=self._device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A network with all its parameters attached that can be perturbed."""

    attachments: Attachments
    """The replacements that run it perturbed."""
    faults: dict[str, str]
    """Why the other parameters cannot be perturbed, by name."""
    applied: set[str]
    """Parameters whose noise was asked for."""
    logits_BTV: Tensor
    """The result of `probe_logits` under no noise."""


def attach_what_works(network: PreTrainedModel, found: Uses) -> Tried:
    """Return the network's attachments after a tiny batch has run through them correctly."""
    faults = dict(found.faults)
    outputs = {use.name: _outputs(use) for use in found.uses}
    while True:
        uses = [use for use in found.uses if use.name not in faults]
        idle = TrialNoise(outputs, network.device, {})
        attachments = Attachments(uses, found.one_input, idle)
        # Large matrices run as linear layers and embeddings do; only what is read member by member needs a second look.
        own = [use for use in uses if use.kind == "own" and getattr(use.module, use.key).numel() <= LARGEST]
        values = {use.name: _values(getattr(use.module, use.key)) for use in own}
        uses_of = [use for use in uses if use.name in values]

        def perturbed(values: Mapping[str, Tensor], attachments: Attachments = attachments) -> Tensor:
            noise = TrialNoise(outputs, network.device, values)
            with attachments.active(noise, ROWS_PER_MEMBER):
                return probe_logits(network)

        try:
            with attachments.active(idle, ROWS_PER_MEMBER):
                logits_BTV = probe_logits(network)
            new: dict[str, str] = {}
            if values and not _own_rows(network, uses_of, values, perturbed, found.logits_BTV):
                alone = [
                    name
                    for name in values
                    if not _own_rows(network, uses_of, {name: values[name]}, perturbed, found.logits_BTV)
                ]
                new = dict.fromkeys(alone or values, "gives rows what is not their member's own")
        except CannotPerturbError as fault:
            new = {fault.name: fault.reason}
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            if is_out_of_memory(error) or not values:
                raise
            said = str(error).splitlines()[0]
            new = dict.fromkeys(values, f"read by code that does not run member by member: {said}")
        if not new:
            return Tried(attachments=attachments, faults=faults, applied=idle.applied, logits_BTV=logits_BTV)
        faults |= new


def _outputs(use: Use) -> int:
    """Count the columns that a parameter's layer gives out, or the entries of a vector."""
    shape: torch.Size = getattr(use.module, use.key).shape
    return (*shape, 1)[-1 if isinstance(use.module, Conv1D) else 0] if shape else 1


def _values(parameter: nn.Parameter) -> Tensor:
    """Make a value for each member, (P, *shape): entries between -1/2 and 1/2 that differ from their neighbours."""
    count = torch.arange(MEMBERS * parameter.numel(), device=parameter.device)
    fraction = (count * GOLDEN & 0xFFFFFFFF).float() * 2.0**-32
    return (fraction - 0.5).to(parameter.dtype).view(MEMBERS, *parameter.shape)


def _own_rows(
    network: PreTrainedModel,
    uses: Sequence[Use],
    values: Mapping[str, Tensor],
    perturbed: Callable[[Mapping[str, Tensor]], Tensor],
    plain_BTV: Tensor,
) -> bool:
    """Return whether each member's rows are what the network gives with that member's values in its parameters.

    plain_BTV: what it gives without them.
    """
    together_BTV = perturbed(values)
    places = [(use.module._parameters, use.key, values[use.name]) for use in uses if use.name in values]
    plain = [parameters[key] for parameters, key, _ in places]
    try:
        for member in range(MEMBERS):
            for (parameters, key, value), parameter in zip(places, plain, strict=True):
                assert parameter is not None
                parameters[key] = nn.Parameter(parameter.detach() + value[member], requires_grad=False)
            rows = slice(member * ROWS_PER_MEMBER, (member + 1) * ROWS_PER_MEMBER)
            if not _right(together_BTV[rows], probe_logits(network)[rows], plain_BTV[rows], network.dtype):
                return False
    finally:
        for (parameters, key, _), parameter in zip(places, plain, strict=True):
            parameters[key] = parameter
    return True


def _right(found: Tensor, own: Tensor, plain: Tensor, dtype: torch.dtype) -> bool:
    """Return whether logits are a member's own but for rounding, beside what its values change and how large all is."""
    changed, whole = float((own - plain).norm()), float(own.norm())
    share, least = NARROW if dtype in (torch.bfloat16, torch.float16) else WIDE
    return float((found - own).norm()) <= max(share * changed, least * whole)
