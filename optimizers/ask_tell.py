"""An evolution strategy in a loop of one's own: any `nn.Module`, and whoever evaluates its members.

    es = ES(module, population=64, sigma=0.1, ...)
    members = es.ask()              # a population of weights
    es.tell(returns_of(members))    # the module moves to where the returns are greater

The parts of `EvolutionStrategy` without the rollout engine: with w_n the shaped fitness of member n and E_n its unit noise,

    g = 1 / (N sigma) sum_n w_n E_n        W <- optimizer step along g (we maximise)

Members are whole sets of weights here, N times the module's memory, since a module of any kind has to run with them;
language models run perturbed without (`optimizers/perturbed/`).

Shapes: P members, Q instances.
"""

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from evotext.noise import NoiseKey, ParameterSpec, Perturbation, UpdateNoise
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.validation import NonNegativeInt, PositiveFloat, checked

from .ascent import Ascent
from .population import fitness_metrics
from .pseudo_gradient import PseudoGradient


class Members:
    """A generation's population: the module's weights plus what each member adds to them."""

    def __init__(self, module: nn.Module, noise: UpdateNoise, key: NoiseKey) -> None:
        self._module, self._noise, self._key = module, noise, key
        self._parameters = dict(module.named_parameters())

    def __len__(self) -> int:
        return self._key.population

    def __getitem__(self, member: int) -> dict[str, Tensor]:
        """Return the weights of one member by name, for `torch.func.functional_call` or `load_state_dict(..., strict=False)`.

        Parameters that do not move are not among them. Raise IndexError for a member that does not exist.
        """
        if not 0 <= member < len(self):
            raise IndexError(f"expected a member from 0 to {len(self) - 1}, got {member}")
        alone_P = torch.zeros(len(self), dtype=torch.float64)
        alone_P[member] = 1.0
        stored = self._parameters
        return {
            name: stored[name].detach() + (unit * self._key.sigma).view_as(stored[name]).to(stored[name].dtype)
            for name, unit in self._noise.combine(alone_P)
        }

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All members' weights by name, each (P, *shape)."""
        members = [self[member] for member in range(len(self))]
        return {name: torch.stack([member[name] for member in members]) for name in members[0]}

    @torch.no_grad()
    def __call__(self, *inputs: Any) -> Any:
        """Return what the module gives for each member's own inputs, in one batched pass.

        Tensors in the inputs and in what is returned have the members first: (P, ...).
        """

        def run(weights: dict[str, Tensor], *inputs: Any) -> Any:
            return torch.func.functional_call(self._module, weights, inputs)

        return torch.vmap(run, randomness="different")(self.weights, *inputs)


class _Parameters:
    """What noise is drawn for: parameters alone, and no layers that run perturbed."""

    one_input: tuple[tuple[str, ...], ...] = ()

    def __init__(self, module: nn.Module) -> None:
        self.parameters = {
            name: _spec(parameter, index)
            for index, (name, parameter) in enumerate(sorted(module.named_parameters()))
            if parameter.requires_grad and parameter.is_floating_point()
        }


class ES:
    """An evolution strategy on a module, which holds the mean of the population and moves in place.

    Parameters without `requires_grad` stay as they are.

    Args:
        module: what is tuned.
        population: members, even with antithetic pairs.
        sigma: scale of the perturbation, in units of a weight.
        perturbation: `LowRank` or `FullRank` of `optimizers.perturbations`.
        fitness_shaping: one of `optimizers.fitness_shaping`, or a function like them.
        optimizer: makes a torch optimizer of parameters, as `partial(torch.optim.Adam, lr=0.05)` does.
        antithetic: members in mirrored pairs.
        seed: of the noise.

    Raises:
        ValueError: for what is none of that, and for a module without a parameter that moves.
    """

    @checked
    def __init__(
        self,
        module: nn.Module,
        *,
        population: Annotated[int, Field(ge=2)],
        sigma: PositiveFloat,
        perturbation: Perturbation,
        fitness_shaping: Callable[[Tensor], Tensor],
        optimizer: OptimizerFactory,
        antithetic: bool,
        seed: NonNegativeInt,
    ) -> None:
        if antithetic and population % 2:
            raise ValueError(f"population: expected an even number since antithetic=True, got {population}")
        check_optimizer(optimizer)
        self._network = _Parameters(module)
        moving = {name for name, spec in self._network.parameters.items() if perturbation.moves(spec)}
        if not moving:
            raise ValueError(f"module: expected a parameter to perturb, got a {type(module).__name__} without one")
        self._module, self._perturbation, self._shaping = module, perturbation, fitness_shaping
        self._population, self._sigma, self._antithetic, self._seed = population, sigma, antithetic, seed
        parameters = {name: parameter for name, parameter in module.named_parameters() if name in moving}
        self._ascent = Ascent(parameters, optimizer, seed=seed)
        self.generation = 0
        """Generations that have been told."""

    def ask(self) -> Members:
        """Return the members of this generation; the same ones until `tell`."""
        return Members(self._module, self._noise(), self._key)

    def tell(self, returns: Tensor) -> dict[str, float]:
        """Move the weights towards members with greater returns, (P,) or (P, Q), and return the generation's figures.

        Equal returns of all members change nothing. Raise ValueError for another shape, and for a return that is not finite.
        """
        returns_PQ = returns.detach().cpu().double()
        returns_PQ = returns_PQ[:, None] if returns_PQ.ndim == 1 else returns_PQ
        if returns_PQ.ndim != 2 or len(returns_PQ) != self._population:
            raise ValueError(
                f"returns: expected ({self._population},) or ({self._population}, instances), one row a member, "
                f"got {tuple(returns.shape)}"
            )
        if not returns_PQ.isfinite().all():
            raise ValueError("returns: expected finite numbers, got some that are not")
        weight_P = self._shaping(returns_PQ)
        metrics = fitness_metrics(returns_PQ)
        if bool((weight_P != 0).any()):
            gradient = PseudoGradient(self._noise().combine, weight_P, 1.0 / (self._population * self._sigma))
            stored = dict(self._module.named_parameters())
            change = self._ascent.step((name, whole.view_as(stored[name])) for name, whole in gradient)
            metrics |= gradient.figures | {"update_norm": change}
        self.generation += 1
        return metrics

    def state_dict(self) -> dict[str, object]:
        """Return a copy of all state besides the module's weights."""
        return {"generation": self.generation, "ascent": copy.deepcopy(self._ascent.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.generation = int(state["generation"])
        self._ascent.load_state_dict(state["ascent"])

    @property
    def _key(self) -> NoiseKey:
        return NoiseKey(
            seed=self._seed,
            generation=self.generation,
            population=self._population,
            antithetic=self._antithetic,
            sigma=self._sigma,
        )

    def _noise(self) -> UpdateNoise:
        return self._perturbation.draw(self._network, self._key)  # type: ignore[arg-type]  # nothing runs in its layers


def _spec(parameter: nn.Parameter, index: int) -> ParameterSpec:
    """Whatever has two dimensions or more is a matrix of its first by all others."""
    if parameter.ndim < 2:
        return ParameterSpec(
            kind="vector", shape=(parameter.numel(),), index=index, dtype=parameter.dtype, device=parameter.device
        )
    shape = (parameter.shape[0], math.prod(parameter.shape[1:]))
    return ParameterSpec(kind="matrix", shape=shape, index=index, dtype=parameter.dtype, device=parameter.device)
