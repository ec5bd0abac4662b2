"""What every population-based evolution strategy here does: draw members, run them all, move along the pseudo-gradient.

    g = 1 / (N sigma) sum_n w_n E_n        W <- optimizer step along g (we maximise)

An algorithm is a choice of the perturbation E, of whether members come in mirrored pairs, of the shaping that makes
weights w of returns, and of the optimizer: `optimizers/eggroll.py`, `openai_es.py`, `es_at_scale.py`. A generation in
which every weight w is 0 changes nothing at all.
"""

import time
from collections.abc import Callable, Collection, Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.models.perturbed import PerturbedNetwork
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.protocols import Perturbation, PopulationNoise
from evotext.types import Cost, RolloutPlan, Trajectories, UpdateReport
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from optimizers.decay import Decay
from optimizers.masters import MasterWeights, NarrowWeights
from optimizers.members import fitness_metrics, population_plan
from optimizers.resampling import Resampling


class PopulationES:
    """Hyperparameters: see conf/algorithm/eggroll.yaml, where each stands with its unit."""

    @checked
    def __init__(
        self,
        *,
        population: Annotated[int, Field(ge=2)],
        prompts: PositiveInt,
        sigma: PositiveFloat,
        antithetic: bool,
        temperature: NonNegativeFloat,
        perturbation: Perturbation,
        fitness_shaping: Callable[[Tensor], Tensor],
        exclude: list[str],
        narrow_weights: NarrowWeights,
        optimizer: OptimizerFactory,
        sigma_schedule: Callable[[int], float],
        learning_rate_schedule: Callable[[int], float],
        decay: Decay,
        resampling: Resampling,
    ) -> None:
        if antithetic and population % 2:
            raise ValueError(
                f"algorithm.population: expected an even number since algorithm.antithetic=true, got {population}"
            )
        check_optimizer(optimizer)
        self.population, self.prompts, self.sigma, self.antithetic = population, prompts, sigma, antithetic
        self.temperature, self.exclude = temperature, exclude
        self._perturbation = perturbation
        self._shape = fitness_shaping
        self._optimizer, self._narrow, self._decay, self._resampling = optimizer, narrow_weights, decay, resampling
        self._sigma_schedule, self._rate_schedule = sigma_schedule, learning_rate_schedule

    def start(self, model: LanguageModel, seed: int) -> None:
        """Find out how each parameter is perturbed. Raises ValueError for one that cannot be and is not excluded."""
        self._seed = seed
        self._network = PerturbedNetwork(model.network, exclude=self.exclude)
        self._noise: PopulationNoise | None = None
        moved = {name for name, _ in self._draw(0, population=2).combine(torch.zeros(2))}
        self._check_spacing(moved)
        parameters = {name: p for name, p in model.network.named_parameters() if name in moved}
        self._weights = MasterWeights(
            parameters,
            self._optimizer,
            schedule=self._rate_schedule,
            decay=self._decay,
            narrow=self._narrow,
            seed=seed,
        )

    def ask(self, generation: int) -> RolloutPlan:
        """Every member on the same Q instances, rows ordered by member."""
        instances = self._resampling.instances(self._seed, generation, self.prompts)
        self._noise = self._draw(generation, population=self.population)
        return population_plan(
            self._noise,
            instances,
            population=self.population,
            seed=self._seed,
            generation=generation,
            temperature=self.temperature,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Move the weights along the pseudo-gradient; a generation without signal changes nothing."""
        begin = time.perf_counter()
        generation = batch.plan.generation
        self._weights.learning_rate.follow(generation)
        return_PQ = batch.return_B.view(self.population, self.prompts)
        weight_P = self._shape(return_PQ)
        metrics = fitness_metrics(return_PQ)
        metrics |= {"learning_rate": self._weights.learning_rate.now, "sigma": self._sigma(generation)}
        signal = bool((weight_P != 0).any())
        flops = 0.0
        if signal:
            assert self._noise is not None, "tell comes after ask"
            metrics |= self._move(self._noise, weight_P, self._sigma(generation))
            flops = self._noise.combine_flops
        metrics |= {"drift": self._weights.drift, "skipped": float(not signal)}
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=1, flops=flops)
        return UpdateReport(metrics=metrics, cost=cost)

    def state_dict(self) -> dict[str, object]:
        """Optimizer state and masters; noise and instances follow from seed and generation."""
        return self._weights.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._weights.load_state_dict(state)

    def _check_spacing(self, moved: Collection[str]) -> None:
        """Raises ValueError if noise on norms and biases would be rounded off: the update would take noise that never acted."""
        for name, spec in self._network.parameters.items():
            spacing = torch.finfo(spec.dtype).eps
            if name in moved and spec.kind == "vector" and self.sigma < spacing:
                raise ValueError(
                    f"algorithm.sigma: expected at least {spacing:g}, which is what {spec.dtype} numbers near 1 are apart, "
                    f"since noise on vectors like {name} is rounded off, got {self.sigma:g}; "
                    "set algorithm.perturbation.vectors=frozen or model.dtype=float32"
                )

    def _draw(self, generation: int, *, population: int) -> PopulationNoise:
        return self._perturbation.draw(
            self._network,
            seed=self._seed,
            generation=generation,
            population=population,
            antithetic=self.antithetic,
            sigma=self._sigma(generation),
        )

    def _sigma(self, generation: int) -> float:
        return self.sigma * self._sigma_schedule(generation)

    def _move(self, noise: PopulationNoise, weight_P: Tensor, sigma: float) -> dict[str, float]:
        """One optimizer step. The two halves of the population are combined apart: their cosine is the signal to noise."""
        half = self.population // 4 * 2 or self.population
        first_P, second_P = weight_P.clone(), weight_P.clone()
        first_P[half:] = 0
        second_P[:half] = 0
        dot = first_norm = second_norm = norm = 0.0
        scale = 1.0 / (self.population * sigma)

        def directions() -> Iterator[tuple[str, Tensor]]:
            nonlocal dot, first_norm, second_norm, norm
            others = noise.combine(second_P)
            for name, first in noise.combine(first_P):
                _, second = next(others)
                dot += float(torch.dot(first.flatten(), second.flatten()))
                first_norm += float(torch.linalg.vector_norm(first)) ** 2
                second_norm += float(torch.linalg.vector_norm(second)) ** 2
                whole = first.add_(second).mul_(scale)
                del second  # of an embedding's size
                norm += float(torch.linalg.vector_norm(whole)) ** 2
                yield name, self._network.in_stored_layout(name, whole) if whole.ndim == 2 else whole

        change = self._weights.ascend(directions())
        both = (first_norm * second_norm) ** 0.5
        cosine = {"half_cosine": dot / both} if both > 0 else {}
        return {"pseudo_gradient_norm": norm**0.5, "update_norm": change} | cosine
