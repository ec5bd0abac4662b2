"""Weights that move within a basis, with the optimizer's state in the small space.

Adam's two moments take twice the memory of their parameters: of all weights, or here of a tenth. Without momentum, as shipped,
the first is the gradient, and is not kept. A step is kept until the next one, so that it can be taken back in part where it
turns out too long.

When the basis changes, so does the space. Moments that are sums of gradients are carried over by the product of the two
bases, sums of squares by its squares: what was learned in directions that both hold is kept. Other state begins anew.

Shapes: O outputs, I inputs, k directions of the old basis, K of the new.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from evotext.noise import ParameterSpec
from evotext.optimization.factory import OptimizerFactory
from evotext.optimization.master_weights import NarrowWeights
from evotext.optimization.schedules import LearningRate, Schedule

from .ascent import Ascent
from .perturbations.basis import Basis
from .perturbed import PerturbedNetwork

# State of torch's optimizers that adds up gradients, and that adds up their squares.
MEAN = "exp_avg"
LINEAR, SQUARED = (MEAN, "momentum_buffer"), ("exp_avg_sq",)


class SmallSpaceWeights:
    """Some parameters of a network and the optimizer of their coordinates.

    factory: makes the optimizer. schedule: of its learning rate. narrow, seed: as in `Ascent`.
    basis: the first one, without which all have their whole space; in it, matrices without directions stay.
    """

    def __init__(
        self,
        network: PerturbedNetwork,
        specs: Mapping[str, ParameterSpec],
        factory: OptimizerFactory,
        *,
        schedule: Schedule,
        narrow: NarrowWeights,
        seed: int,
        basis: Basis | None,
    ) -> None:
        self._network, self._specs, self._factory, self._schedule = network, dict(specs), factory, schedule
        stored = {name: parameter for name, parameter in network.network.named_parameters() if name in specs}
        # Coordinates have had their optimizer; the step that comes of them is taken as it is.
        self._weights = Ascent(stored, partial(torch.optim.SGD, lr=1.0), narrow=narrow, seed=seed)
        self._settle(basis)

    def follow(self, generation: int, spent: float) -> None:
        """Set the learning rate of this generation. spent: share of the budget before it."""
        self._learning_rate.follow(generation, spent)

    @property
    def learning_rate(self) -> float:
        """The present rate."""
        return self._learning_rate.now

    @property
    def drift(self) -> float:
        """Euclidean distance from the start (`Ascent`)."""
        return self._weights.drift

    @property
    def dimensions(self) -> int:
        """Dimensions of the space in which the weights move."""
        return sum(coordinate.numel() for coordinate in self._coordinates.values())

    def move_to(self, basis: Basis | None) -> None:
        """Change the basis; the optimizer's state comes along as far as both have the same directions."""
        if basis is None or basis is self._basis:
            return
        old_basis, old, state = self._basis or Basis(), self._coordinates, self._optimizer.state
        kept = {name: dict(state[coordinate]) for name, coordinate in old.items() if coordinate in state}
        self._settle(basis)
        for name in kept.keys() & self._coordinates.keys():
            held, coordinate = kept[name], self._coordinates[name]
            self._optimizer.state[coordinate] = {
                key: _carried(value, key, name, old_basis, basis, coordinate.shape)
                if torch.is_tensor(value) and value.ndim
                else value
                for key, value in held.items()
            }

    @torch.no_grad()
    def ascend(self, directions: Iterable[tuple[str, Tensor]], length: float) -> float:
        """Go so many optimizer steps' length along one that raises what `directions`, in the small space, is the gradient of.

        Return the norm of the weights' change.
        """
        for name, direction in directions:
            coordinate = self._coordinates[name]
            coordinate.zero_()
            coordinate.grad = direction.to(coordinate.dtype).neg_()
            state = self._optimizer.state[coordinate]
            if self._forgets and MEAN in state:
                state[MEAN] = coordinate.grad  # which the step would make of it
            self._optimizer.step()  # skips parameters without a gradient: all others
            if self._forgets:
                state[MEAN] = coordinate.new_empty(0)
            coordinate.grad = None
            coordinate.mul_(length)
        return self._apply(1.0)

    @torch.no_grad()
    def shorten(self, factor: float) -> None:
        """Take back the last step but for this share of it. The optimizer's state stays."""
        self._apply(factor - 1.0)
        for coordinate in self._coordinates.values():
            coordinate.mul_(factor)

    def state_dict(self) -> dict[str, object]:
        """Return the weights' masters and the optimizer's state."""
        return {"weights": self._weights.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, object], basis: Basis | None) -> None:
        """Undo `state_dict`; basis: the one in which the optimizer's state is."""
        self._settle(basis)
        self._weights.load_state_dict(state["weights"])  # type: ignore[arg-type]
        self._optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]

    def _apply(self, share: float) -> float:
        basis = self._basis or Basis()

        def steps() -> Iterable[tuple[str, Tensor]]:
            for name, coordinate in self._coordinates.items():
                whole = basis.lift(name, coordinate.detach() * share, self._specs[name])
                yield name, self._network.in_stored_layout(name, whole)

        return self._weights.step(steps())

    def _settle(self, basis: Basis | None) -> None:
        """Make coordinates and a fresh optimizer for this basis."""
        self._basis = basis
        self._coordinates: dict[str, nn.Parameter] = {}
        for name, spec in self._specs.items():
            if basis is not None and spec.kind == "matrix" and name not in basis:
                continue
            dtype = torch.promote_types(spec.dtype, torch.float32)
            shape = spec.shape if basis is None else basis.small_spec(name, spec).shape
            self._coordinates[name] = nn.Parameter(torch.zeros(shape, dtype=dtype, device=spec.device))
        self._optimizer = self._factory(list(self._coordinates.values()))
        self._forgets = self._optimizer.defaults.get("betas", (1.0,))[0] == 0.0
        self._learning_rate = LearningRate(self._optimizer, self._schedule)


def _carried(value: Tensor, key: str, name: str, old: Basis, new: Basis, shape: torch.Size) -> Tensor:
    """Return a moment in the new basis; zeros where it cannot be carried over."""
    if not value.numel():
        return value
    if key not in (*LINEAR, *SQUARED) or (name in old) != (name in new):
        return value.new_zeros(shape)
    if name in new.tokens:
        size = int(max(old.tokens[name].max(), new.tokens[name].max())) + 1
        power = 2 if key in SQUARED else 1
        value = value / old.lengths[name].to(value.dtype) ** power
        rows_VD = value.new_zeros(size, value.shape[1]).index_copy_(0, old.tokens[name], value)
        return rows_VD[new.tokens[name]] * new.lengths[name].to(value.dtype) ** power
    if name not in new.inputs:
        return value
    V_Ik = old.inputs[name].to(value.dtype)
    overlap_kK = (V_Ik / V_Ik.square().sum(0)).T @ new.inputs[name].to(value.dtype)
    return value @ (overlap_kK.square() if key in SQUARED else overlap_kK)
