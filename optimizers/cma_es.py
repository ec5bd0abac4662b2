"""CMA-ES on singular values: a searcher of another library joins the comparison in a small subspace of the weights.

Searcher: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, as the package `cma` has it (an optional
dependency). It learns the covariance of its own samples, which takes a square of the dimensions: a thousand are many.
So of every matrix W = U diag(s) V^T only the largest singular values move, each by a factor: with z the coordinates of a point,

    W(z) = W + U_R diag(s_R z) V_R^T,   R values a matrix

Members are points z_n; they share U_R and V_R, so a whole population runs as one batch (`optimizers/perturbations/
subspace.py`). The library minimises: it is told the negative mean return. The stored weights are those of the mean of its
distribution. Its random numbers come from our keys, and since it cannot be saved without pickle, a resumed run tells it all
returns so far again.
"""

import math
import time
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from evotext.keys.instances import train_instances
from evotext.keys.philox import Purpose, normal, stream_id
from evotext.library import optional
from evotext.models.language_model import LanguageModel
from evotext.models.perturbed import PerturbedNetwork
from evotext.types import Cost, RolloutPlan, Trajectories, UpdateReport
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from optimizers.masters import MasterWeights
from optimizers.members import fitness_metrics, population_plan
from optimizers.perturbations.subspace import Subspace

_plain_step = partial(torch.optim.SGD, lr=1.0)


class CMAES:
    """Hyperparameters: see conf/algorithm/cma_es.yaml. Raises ImportError if the package is not installed."""

    @checked
    def __init__(
        self,
        *,
        population: Annotated[int, Field(ge=4)],
        prompts: PositiveInt,
        sigma: PositiveFloat,
        values: PositiveInt,
        diagonal: bool,
        temperature: NonNegativeFloat,
        exclude: list[str],
    ) -> None:
        self._library = optional("cma", "cma")
        self.population, self.prompts, self.sigma, self.values = population, prompts, sigma, values
        self.diagonal, self.temperature, self.exclude = diagonal, temperature, exclude

    def start(self, model: LanguageModel, seed: int) -> None:
        """Decompose every matrix. Raises ValueError for one that cannot be perturbed and is not excluded."""
        self._seed = seed
        self._begin(0)
        self._network = PerturbedNetwork(model.network, exclude=self.exclude)
        parameters = dict(model.network.named_parameters())
        self._space = Subspace(self._network, parameters, values=self.values)
        moved = {name: parameters[name] for name in self._space.names}
        self._weights = MasterWeights(moved, _plain_step)
        self._told: list[Tensor] = []
        self._searcher = self._new_searcher()
        self._mean_D = np.zeros(self._space.dimensions)

    def ask(self, generation: int) -> RolloutPlan:
        """The searcher's points on the same Q instances, rows ordered by member."""
        self._begin(generation)
        self._point_PD = np.stack(self._searcher.ask())
        instances = train_instances(self._seed, generation, self.prompts)
        return population_plan(
            self._space.noise(torch.from_numpy(self._point_PD - self._mean_D)),
            instances,
            population=self.population,
            seed=self._seed,
            generation=generation,
            temperature=self.temperature,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Tell the searcher the returns and follow its mean; equal returns of all members change nothing."""
        begin = time.perf_counter()
        return_PQ = batch.return_B.view(self.population, self.prompts)
        fitness_P = return_PQ.mean(1)
        signal = bool((fitness_P != fitness_P[0]).any())
        change = 0.0
        if signal:
            self._told.append(torch.cat([torch.tensor([float(batch.plan.generation)]), fitness_P]).double())
            self._searcher.tell(list(self._point_PD), (-fitness_P).tolist())
            mean_D = np.asarray(self._searcher.mean)
            change = self._weights.ascend(self._space.matrices(torch.from_numpy(mean_D - self._mean_D)))
            self._mean_D = mean_D.copy()
        metrics = fitness_metrics(return_PQ) | {
            "sigma": float(self._searcher.sigma),
            "update_norm": change,
            "drift": self._weights.drift,
            "skipped": float(not signal),
        }
        flops = self._space.flops if signal else 0.0
        return UpdateReport(
            metrics=metrics, cost=Cost(update_seconds=time.perf_counter() - begin, updates=1, flops=flops)
        )

    def state_dict(self) -> dict[str, object]:
        """All returns so far, the mean, and of narrow weights the masters."""
        return {
            "told": list(self._told),
            "mean": torch.from_numpy(self._mean_D.copy()),
            "weights": self._weights.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`: the searcher asks and is told again what it was."""
        self._weights.load_state_dict(state["weights"])
        self._told, self._searcher = list(state["told"]), self._new_searcher()
        for record in self._told:
            self._begin(int(record[0]))
            self._searcher.tell(self._searcher.ask(), (-record[1:]).tolist())
        self._mean_D = state["mean"].numpy().copy()

    def _new_searcher(self) -> Any:
        options = {
            "popsize": self.population,
            "CMA_diagonal": self.diagonal,
            "randn": self._normals,
            "seed": np.nan,  # leave numpy's global generator alone
            "verbose": -9,
        }
        return self._library.CMAEvolutionStrategy([0.0] * self._space.dimensions, self.sigma, options)

    def _begin(self, generation: int) -> None:
        self._generation, self._draws = generation, 0

    def _normals(self, *shape: int) -> np.ndarray[Any, Any]:
        """Standard normals, a pure function of seed, generation and how often it was asked in this generation."""
        stream, draw = stream_id(Purpose.SEARCHER), torch.tensor([self._draws])
        self._draws += 1
        drawn = normal(self._seed, stream, self._generation, draw, math.prod(shape))
        return drawn[0].double().numpy().reshape(shape)
