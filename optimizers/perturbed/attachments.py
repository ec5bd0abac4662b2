"""Replaced `forward`s and parameters, put in place while a network runs perturbed.

Shapes: B rows (= P members x K rows).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from evotext.noise import MemberNoise

from .active import Active
from .by_member import ByMember, by_member
from .embedding import embedding_forward
from .experts import experts_forward
from .linear import OneInput, linear_forward
from .probe import Use
from .vectors import NormVector, is_torch_norm, norm_forward


class Attachments:
    """The replacements for these uses of parameters. one_input: linear layers that read the same input."""

    def __init__(self, uses: Sequence[Use], one_input: Sequence[tuple[str, ...]], idle: MemberNoise) -> None:
        self.transposed: set[str] = set()
        """Parameters that are stored I x O."""
        matrices = {use.name for use in uses if use.kind == "linear" and use.key == "weight"}
        self.one_input = [OneInput(names) for names in one_input if matrices.issuperset(names)]
        """Layers that get their noise in one call."""
        self._active = Active(idle, 0, 0)
        self._forwards: list[tuple[dict[str, Any], Callable[..., Tensor]]] = []
        self._by_member: list[tuple[dict[str, Any], str, nn.Parameter, ByMember]] = []
        self._vectors: list[NormVector] = []
        self._entered = False
        self._idle = idle
        # Weakly: full-rank noise has many times the weights' size, and the next batch's is made when this one is gone.
        self._last: tuple[ref[MemberNoise], int, int] | None = None
        self._scaled: list[Tensor] = []
        of_module: dict[nn.Module, list[Use]] = {}
        for use in uses:
            of_module.setdefault(use.module, []).append(use)
        for module, its_uses in of_module.items():
            self._attach(module, its_uses)

    @contextmanager
    def active(self, noise: MemberNoise, rows_per_member: int) -> Iterator[None]:
        """Put the replacements in place for noise.count x rows_per_member rows; take them away afterwards."""
        assert not self._entered, "already perturbed"
        active = self._active
        version = sum(vector.parameter._version for vector in self._vectors)  # grows with every update of the weights
        if self._last is None or self._last[0]() is not noise or self._last[1:] != (rows_per_member, version):
            active.members, active.rows = noise.count, noise.count * rows_per_member
            self._scaled = [vector.per_row(noise, rows_per_member) for vector in self._vectors]
            self._last = ref(noise), rows_per_member, version
        active.noise, self._entered = noise, True
        previous = [attributes.get("forward") for attributes, _ in self._forwards]
        for attributes, forward in self._forwards:
            attributes["forward"] = forward
        for attributes, key, _, own in self._by_member:
            attributes[key] = own
        for vector, scale in zip(self._vectors, self._scaled, strict=True):
            vector.attributes[vector.key] = scale
        try:
            yield
        finally:
            for (attributes, _), before in zip(self._forwards, previous, strict=True):
                if before is None:
                    del attributes["forward"]
                else:
                    attributes["forward"] = before
            for attributes, key, parameter, _ in self._by_member:
                attributes[key] = parameter
            for vector in self._vectors:
                vector.attributes[vector.key] = vector.parameter
            for each in self.one_input:
                each.clear()
            active.noise, self._entered = self._idle, False

    def _attach(self, module: nn.Module, uses: list[Use]) -> None:
        """Make the replacements for one module."""
        attributes, names = module.__dict__, {use.key: use.name for use in uses}
        if uses[0].kind == "linear":
            weight = names.get("weight")
            one_input = next((each for each in self.one_input if weight in each.names), None)
            forward = linear_forward(module, weight, names.get("bias"), self._active, one_input)
            self._forwards.append((attributes, forward))
            if isinstance(module, Conv1D) and weight is not None:
                self.transposed.add(weight)
        elif uses[0].kind == "embedding":
            self._forwards.append((attributes, embedding_forward(module, names["weight"], self._active)))
        elif uses[0].kind == "experts":
            self._forwards.append((attributes, experts_forward(module, names, self._active)))
            if module.is_transposed:
                self.transposed |= {use.name for use in uses if getattr(module, use.key).ndim == 3}
        elif uses[0].kind == "norm":
            if is_torch_norm(module):
                self._forwards.append((attributes, norm_forward(module, uses[0].input_dim, self._active)))  # type: ignore[arg-type]
            self._vectors += [
                NormVector(module._parameters, use.key, use.name, getattr(module, use.key), use.input_dim)
                for use in uses
            ]
        else:
            for use in uses:
                parameter = getattr(module, use.key)
                self._by_member.append(
                    (module._parameters, use.key, parameter, by_member(parameter, use.name, self._active))
                )
