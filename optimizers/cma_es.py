"""CMA-ES on singular values: a searcher of another library joins the comparison in a small subspace of the weights.

Searcher: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, as the package `cma` has it (an optional
dependency). It learns the covariance of its own samples, which takes a square of the dimensions: a thousand are many.
Therefore only the largest singular values of every matrix W = U diag(s) V^T move, each by a factor. At a point z,

    W(z) = W + U_R diag(s_R z) V_R^T,   R values a matrix

Members are points z_n; they share U_R and V_R, so a whole population runs as one batch (`optimizers/perturbations/
subspace.py`). The library minimises: it is told the negative mean return. The stored weights are those of the mean of its
distribution. Its random numbers come from our keys, and since it cannot be saved without pickle, a resumed run tells it all
past returns again.

Shapes: P members, Q instances, D coordinates.
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
from evotext.types import Cost, Outcome, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import MinP, NonNegativeFloat, PositiveFloat, PositiveInt, TopP, checked_record

from .ascent import Ascent
from .perturbations.subspace import Subspace, SubspaceNoise
from .perturbed import PerturbedNetwork
from .population import fitness_metrics, member_credit, population_plan

_plain_step = partial(torch.optim.SGD, lr=1.0)


@checked_record
class CMAES:
    """Hyperparameters; conf/algorithm/cma_es.yaml says of each what it is.

    Raises ImportError if the package is not installed.
    """

    population: Annotated[int, Field(ge=4)]
    prompts: PositiveInt
    sigma: PositiveFloat
    values: PositiveInt
    diagonal: bool
    temperature: NonNegativeFloat
    top_p: TopP
    min_p: MinP
    exclude: list[str]

    def __post_init__(self) -> None:
        optional("cma", "cma")
        _ = self.sampling  # refused now and not in the first generation

    @property
    def sampling(self) -> Sampling:
        """The decoding in training. Raise ValueError for greedy decoding that is to be truncated."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, min_p=self.min_p)

    def start(self, model: LanguageModel, seed: int) -> "CMAESLearner":
        """Decompose every matrix. Raise ValueError for one that cannot be perturbed and is not excluded."""
        return CMAESLearner(self, model, seed)


class CMAESLearner:
    """The library's searcher, what it was told, and the weights at its mean."""

    def __init__(self, hyper: CMAES, model: LanguageModel, seed: int) -> None:
        self._hyper, self._seed = hyper, seed
        parameters = dict(model.network.named_parameters())
        network = PerturbedNetwork(model.network, exclude=hyper.exclude)
        self._space = Subspace(network, parameters, values=hyper.values)
        self._ascent = Ascent({name: parameters[name] for name in self._space.names}, _plain_step)
        self._normals = SearcherNormals(seed)
        self._searcher = self._new_searcher()
        self._told: list[Tensor] = []
        self._mean_D = torch.zeros(self._space.dimensions, dtype=torch.float64)

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan of the searcher's points on the same Q instances, rows ordered by member."""
        self._normals.begin(generation)
        point_PD = torch.from_numpy(np.stack(self._searcher.ask()))
        return population_plan(
            self._space.noise(point_PD, stored_D=self._mean_D),
            train_instances(self._seed, generation, self._hyper.prompts),
            population=self._hyper.population,
            seed=self._seed,
            generation=generation,
            sampling=self._hyper.sampling,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Tell the searcher the returns and follow its mean; equal returns of all members change nothing."""
        begin = time.perf_counter()
        noise = batch.plan.noise
        assert isinstance(noise, SubspaceNoise), "a plan of `ask` has points"
        return_PQ = batch.return_B.view(self._hyper.population, -1)
        fitness_P = return_PQ.mean(1)
        signal = bool((fitness_P != fitness_P[0]).any())
        change = 0.0
        if signal:
            self._told.append(torch.cat([torch.tensor([float(batch.plan.generation)]), fitness_P]).double())
            self._searcher.tell(list(noise.point_PD.numpy()), (-fitness_P).tolist())
            mean_D = torch.tensor(self._searcher.mean, dtype=torch.float64)
            change = self._ascent.step(self._space.matrices(mean_D - self._mean_D))
            self._mean_D = mean_D
        metrics = fitness_metrics(return_PQ) | {
            "sigma": float(self._searcher.sigma),
            "update_norm": change,
            "drift": self._ascent.drift,
        }
        flops = self._space.flops if signal else 0.0
        return UpdateReport(
            outcome=Outcome.CHANGED if signal else Outcome.NO_SIGNAL,
            metrics=metrics,
            cost=Cost(update_seconds=time.perf_counter() - begin, updates=int(signal), flops=flops),
            cost_is_fixed=True,
            credit=member_credit(fitness_P, batch.plan),
        )

    def state_dict(self) -> dict[str, object]:
        """Return all past returns, the mean, and the masters of narrow weights."""
        return {"told": list(self._told), "mean": self._mean_D.clone(), "weights": self._ascent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`: the searcher asks and is told again what it was."""
        self._ascent.load_state_dict(state["weights"])
        self._told, self._searcher = list(state["told"]), self._new_searcher()
        for record in self._told:
            self._normals.begin(int(record[0]))
            self._searcher.tell(self._searcher.ask(), (-record[1:]).tolist())
        self._mean_D = state["mean"].clone()

    def _new_searcher(self) -> Any:
        options = {
            "popsize": self._hyper.population,
            "CMA_diagonal": self._hyper.diagonal,
            "randn": self._normals,
            "seed": np.nan,  # leave numpy's global generator alone
            "verbose": -9,
        }
        start = [0.0] * self._space.dimensions
        return optional("cma", "cma").CMAEvolutionStrategy(start, self._hyper.sigma, options)


class SearcherNormals:
    """Standard normals, a pure function of seed, generation and how often it was asked in this generation."""

    def __init__(self, seed: int) -> None:
        self._seed, self._generation, self._draws = seed, 0, 0

    def begin(self, generation: int) -> None:
        """Take the numbers of this generation from here on."""
        self._generation, self._draws = generation, 0

    def __call__(self, *shape: int) -> np.ndarray[Any, Any]:
        """Return the next ones, float64."""
        stream, draw = stream_id(Purpose.SEARCHER), torch.tensor([self._draws])
        self._draws += 1
        drawn = normal(self._seed, stream, self._generation, draw, math.prod(shape))
        return drawn[0].double().numpy().reshape(shape)
