"""A network that runs every row of a batch as its own member of a population, at nearly the cost of one plain batch.

    y = x W^T + b  +  (what the member's noise adds)

The stored weights are never touched: while perturbed, layers run through a replaced `forward` that adds each member's
noise to the ordinary output in place (linear layers, embeddings), or read a scale per row instead of one for all (norms).

How each kind of parameter is perturbed:

    matrix of nn.Linear, Conv1D                 `forward` replaced; the product is added onto the noise, in one pass
    matrix of nn.Embedding                      `forward` replaced; the noise is added to its output
    matrix of any other module                  `weight` replaced by a `_StandIn`, which takes part in `linear` and
                                                `embedding` calls only (position tables with offsets, scaled
                                                embeddings, routers)
    vector of a norm                            replaced by a tensor with one scale a row, (B, 1, N)
    bias of a linear layer                      added to its output
    anything else                               an error that names it and asks to exclude it

Layers are not trusted to be what they look like: the constructor runs a tiny batch and finds every parameter that is not
applied, is applied to something else than the batch's rows, or does something else with its vector than scale and shift.

Shapes: B rows (= P members x K rows), T tokens, O outputs, I inputs, D embedding width, N a vector's size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.models.perturbed_probe import (
    ROWS_PER_MEMBER,
    NoNoise,
    Use,
    alike,
    inspect_uses,
    probe_logits,
    readers_of_one_input,
    summary,
)
from evotext.noise import MemberNoise, ParameterSpec


@dataclass(slots=True)
class _Active:
    """What the layers apply at the moment."""

    noise: MemberNoise
    members: int
    rows: int


class CannotPerturbError(ValueError):
    """A parameter is used in a way that no member of its own can be given to."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class PerturbedNetwork:
    """A transformers causal LM with the means to run batches perturbed. Outside of `active` it is the network itself.

    network: in evaluation mode. exclude: glob patterns of parameter names that stay as they are, as do all that do not
    require gradients (the frozen weights beside an adapter).
    Several patterns may name the same thing in different families; one at least must match. Raises ValueError if none
    does, and for parameters that cannot be perturbed.
    A tensor used twice (a tied embedding and head) is one parameter and is perturbed in both uses.
    """

    def __init__(self, network: PreTrainedModel, *, exclude: Sequence[str] = ()) -> None:
        self.network = network
        if network.training:
            raise ValueError(f"{type(network).__name__} is in training mode, where dropout acts: call its eval() first")
        stored = dict(network.named_parameters())
        if any(parameter.is_inference() for parameter in stored.values()):
            raise ValueError(f"{type(network).__name__} was made within torch.inference_mode(): its weights are fixed")
        if exclude and not any(fnmatchcase(name, pattern) for name in stored for pattern in exclude):
            wanted = " or ".join(map(repr, exclude))
            raise ValueError(f"exclude: no parameter matches {wanted}; the network has {summary(stored)}")
        self._excluded = {name for name in stored if any(fnmatchcase(name, pattern) for pattern in exclude)}
        self._excluded |= {name for name, parameter in stored.items() if not parameter.requires_grad}
        if len(self._excluded) == len(stored):
            raise ValueError(f"exclude: {list(exclude)} leaves no parameter to perturb")
        self._active = _Active(NoNoise({}, network.device), 0, 0)
        self._entered = False
        self._last: tuple[MemberNoise, int, int] | None = None
        self._scaled: list[Tensor] = []
        self._build(stored)

    @property
    def parameters(self) -> Mapping[str, ParameterSpec]:
        """Every parameter that may be perturbed, by its name, sorted."""
        return self._parameters

    @property
    def together(self) -> Sequence[tuple[str, ...]]:
        """Matrices of linear layers that read the same input, one after another."""
        return self._together

    def in_stored_layout(self, name: str, matrix_OI: Tensor) -> Tensor:
        """A matrix in the layout of `parameters` as the layer stores it (Conv1D keeps I x O)."""
        return matrix_OI.T if name in self._transposed else matrix_OI

    @contextmanager
    def active(self, noise: MemberNoise, rows_per_member: int) -> Iterator[None]:
        """Within it, batches of noise.count x rows_per_member rows, ordered by member, run perturbed; no gradients."""
        assert not self._entered, "already perturbed"
        active = self._active
        version = sum(vector.parameter._version for vector in self._vectors)  # grows with every update of the weights
        if self._last is None or self._last[0] is not noise or self._last[1:] != (rows_per_member, version):
            active.noise, active.members, active.rows = noise, noise.count, noise.count * rows_per_member
            self._scaled = [vector.per_row(noise, rows_per_member) for vector in self._vectors]
            self._last = noise, rows_per_member, version
        self._entered = True
        previous = [attributes.get("forward") for attributes, _ in self._forwards]
        for attributes, forward in self._forwards:
            attributes["forward"] = forward
        for attributes, key, _, stand_in in self._stand_ins:
            attributes[key] = stand_in
        for vector, scale in zip(self._vectors, self._scaled, strict=True):
            vector.attributes[vector.key] = scale
        try:
            yield
        finally:
            for (attributes, _), own in zip(self._forwards, previous, strict=True):
                if own is None:
                    del attributes["forward"]
                else:
                    attributes["forward"] = own
            for attributes, key, parameter, _ in self._stand_ins:
                attributes[key] = parameter
            for vector in self._vectors:
                vector.attributes[vector.key] = vector.parameter
            self._entered = False

    def _build(self, stored: dict[str, nn.Parameter]) -> None:
        """Choose how each parameter is perturbed, try it, and refuse what cannot be."""
        name_of = {id(parameter): name for name, parameter in stored.items() if name not in self._excluded}
        uses, faults, plain_BTV = inspect_uses(self.network, name_of)
        while True:
            self._attach([use for use in uses if use.name not in faults])
            recorder = NoNoise({use.name: _outputs(use) for use in uses}, self.network.device)
            try:
                with self.active(recorder, ROWS_PER_MEMBER):
                    perturbed_BTV = probe_logits(self.network)
            except CannotPerturbError as fault:
                faults[fault.name] = fault.reason
                continue
            break
        self._last, self._scaled = None, []
        self._together = readers_of_one_input(recorder.inputs)
        for name in name_of.values():
            if name not in faults and name not in recorder.applied:
                faults[name] = "not applied"
        if faults:
            reasons = "; ".join(
                f"{', '.join(summary(name for name in faults if faults[name] == reason))} ({reason})"
                for reason in dict.fromkeys(faults.values())
            )
            raise ValueError(
                f"cannot perturb some parameters of {type(self.network).__name__}. Leave them out: "
                f"exclude={summary([*faults, *self._excluded])}. The reasons: {reasons}"
            )
        if not alike(perturbed_BTV, plain_BTV):
            raise ValueError(f"{type(self.network).__name__} computes something else under noise of size zero")
        self._parameters = {
            name: ParameterSpec(
                kind="vector" if stored[name].ndim == 1 else "matrix",
                shape=tuple(stored[name].shape[::-1] if name in self._transposed else stored[name].shape),
                index=index,
                dtype=stored[name].dtype,
                device=stored[name].device,
            )
            for index, name in enumerate(sorted(stored))
            if name not in self._excluded
        }

    def _attach(self, uses: Sequence[Use]) -> None:
        """Make the replacements that `active` puts in place."""
        self._forwards: list[tuple[dict[str, Any], Callable[..., Tensor]]] = []
        self._stand_ins: list[tuple[dict[str, Any], str, nn.Parameter, _StandIn]] = []
        self._vectors: list[_Vector] = []
        self._transposed: set[str] = set()
        of_module: dict[nn.Module, dict[str, Use]] = {}
        for use in uses:
            of_module.setdefault(use.module, {})[use.key] = use
        for module, by_key in of_module.items():
            use = next(iter(by_key.values()))
            names = {key: use.name for key, use in by_key.items()}
            match use.kind:
                case "linear":
                    forward = _linear(module, names.get("weight"), names.get("bias"), self._active)
                    self._forwards.append((module.__dict__, forward))
                    if isinstance(module, Conv1D) and "weight" in names:
                        self._transposed.add(names["weight"])
                case "embedding":
                    self._forwards.append((module.__dict__, _embedding(module, names["weight"], self._active)))
                case "norm":
                    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                        self._forwards.append((module.__dict__, _norm(module, use.input_dim, self._active)))
                    self._vectors += [
                        _Vector(module._parameters, key, use.name, getattr(module, key), use.input_dim)
                        for key, use in by_key.items()
                    ]
                case "other":
                    for key, use in by_key.items():
                        parameter = getattr(module, key)
                        stand_in = _StandIn(parameter, use.name, self._active)
                        self._stand_ins.append((module._parameters, key, parameter, stand_in))


@dataclass(frozen=True, slots=True)
class _Vector:
    """A norm's scale or shift."""

    attributes: dict[str, Any]
    key: str
    name: str
    parameter: nn.Parameter
    input_dim: int

    def per_row(self, noise: MemberNoise, rows_per_member: int) -> Tensor:
        """The perturbed vector of every row, (B, 1, ..., N), to go with the norm's input; the plain one if frozen."""
        noise_PN = noise.vector(self.name)
        if noise_PN is None:
            return self.parameter
        vector_BN = (self.parameter.detach() + noise_PN).repeat_interleave(rows_per_member, dim=0)
        return vector_BN.view(vector_BN.shape[0], *[1] * (max(self.input_dim, 3) - 2), vector_BN.shape[1])


def _outputs(use: Use) -> int:
    """Columns that a parameter's layer gives out."""
    shape: torch.Size = getattr(use.module, use.key).shape
    return shape[-1] if isinstance(use.module, Conv1D) else shape[0]


def _grouped(x: Tensor, active: _Active, name: str) -> Tensor:
    """Split the rows of x (B, ..., I), or (B * T, I), by member: (P, K * ..., I)."""
    if x.shape[0] != active.rows and (x.dim() != 2 or x.shape[0] % active.rows):
        raise CannotPerturbError(name, f"expected a batch of {active.rows} rows, got an input of {tuple(x.shape)}")
    return x.reshape(active.members, -1, x.shape[-1])


def _add_to_embedding(ids: Tensor, y: Tensor, name: str, active: _Active) -> Tensor:
    """ids: (B, T), or (1, T) for positions that all rows share."""
    if ids.shape[0] == 1 != active.rows:
        ids, y = ids.expand(active.rows, -1), y.expand(active.rows, -1, -1).contiguous()
    if ids.shape[0] != active.rows:
        raise CannotPerturbError(name, f"expected ids of {active.rows} rows, got shape {tuple(ids.shape)}")
    active.noise.add_to_embedding(name, ids.reshape(active.members, -1), y.view(active.members, -1, y.shape[-1]))
    return y


def _linear(
    module: nn.Linear | Conv1D, weight: str | None, bias: str | None, active: _Active
) -> Callable[[Tensor], Tensor]:
    """x W^T + b plus what the member adds. The stored weights' product is accumulated onto the noise's: one pass less."""
    plain = module.forward
    transposed = isinstance(module, nn.Linear)  # Conv1D keeps I x O

    def forward(x: Tensor) -> Tensor:
        noise_PO = None if bias is None else active.noise.vector(bias)
        if weight is None:  # the bias alone
            y = plain(x)
            if noise_PO is not None:
                y.view(active.members, -1, y.shape[-1]).add_(noise_PO[:, None])
            return y
        start = module.bias if noise_PO is None else (module.bias + noise_PO)[:, None]
        x_PKI = _grouped(x, active, weight)
        y_NO = active.noise.linear(weight, x_PKI, start).flatten(0, 1)
        # Not `addmm_`, which torch's counter of operations does not know.
        torch.addmm(y_NO, x_PKI.flatten(0, 1), module.weight.t() if transposed else module.weight, out=y_NO)
        return y_NO.view(*x.shape[:-1], -1)

    return forward


def _embedding(module: nn.Module, name: str, active: _Active) -> Callable[[Tensor], Tensor]:
    plain = module.forward

    def forward(ids: Tensor) -> Tensor:
        return _add_to_embedding(ids, plain(ids), name, active)

    return forward


def _norm(module: nn.LayerNorm | nn.RMSNorm, input_dim: int, active: _Active) -> Callable[[Tensor], Tensor]:
    """torch's norms take one scale for all rows; this takes what `_Vector` puts in its place."""

    def forward(x: Tensor) -> Tensor:
        if input_dim == 2:  # rows and tokens flattened together
            return scaled(_grouped(x, active, "norm").view(active.rows, -1, x.shape[-1])).view_as(x)
        return scaled(x)

    def scaled(x: Tensor) -> Tensor:
        if isinstance(module, nn.RMSNorm):
            return F.rms_norm(x, module.normalized_shape, None, module.eps) * module.weight
        y = F.layer_norm(x, module.normalized_shape, None, None, module.eps)
        return y * module.weight if module.bias is None else torch.addcmul(module.bias, y, module.weight)

    return forward


class _StandIn:
    """Takes a parameter's place in modules whose code is their own, and adds the noise to what is made with it."""

    _KNOWN = ("dtype", "device", "shape", "ndim", "dim", "size", "is_floating_point", "requires_grad")

    def __init__(self, parameter: nn.Parameter, name: str, active: _Active) -> None:
        self._parameter, self._name, self._active = parameter, name, active

    def __getattr__(self, attribute: str) -> Any:
        if attribute in self._KNOWN:
            return getattr(self._parameter, attribute)
        raise CannotPerturbError(self._name, "used otherwise than as a linear layer or an embedding")

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Tensor], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Tensor:
        stand_in = next(a for a in [*args, *(kwargs or {}).values()] if isinstance(a, cls))
        if function not in (F.linear, F.embedding) or len(args) < 2 or args[1] is not stand_in:
            raise CannotPerturbError(stand_in._name, "used otherwise than as a linear layer or an embedding")
        x = args[0]
        y = function(x, stand_in._parameter, *args[2:], **(kwargs or {}))
        if function is F.embedding:
            return _add_to_embedding(x, y, stand_in._name, stand_in._active)
        active = stand_in._active
        return y + active.noise.linear(stand_in._name, _grouped(x, active, stand_in._name)).view_as(y)
