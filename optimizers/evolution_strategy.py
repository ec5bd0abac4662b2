"""Evolution strategies on the weights of a language model: draw members, run them all, move along the pseudo-gradient.

Papers: Salimans et al. 2017 (OpenAI-ES), arXiv 1703.03864; Sarkar et al. 2025 (EGGROLL), arXiv 2511.16652. One class; what
tells the published algorithms apart is a choice of its parts, and each choice is a file in conf/algorithm/, where its
paper, its constants and its deviations stand: eggroll, openai_es, es_at_scale, mezo, lora_es.

Each generation draws Q task instances and unit noise E_n for N members (in mirrored pairs E, -E where antithetic). Every
member n answers every instance with the weights W + sigma E_n. With w_n the shaped fitness of its returns,

    g = 1 / (N sigma) sum_n w_n E_n        W <- optimizer step along g (we maximise)

Deviations from the papers, shared by all: noise is a function of its key (seed, generation, pair, parameter) and is drawn
again for the update where it is not kept; the stored weights are never perturbed; the pseudo-gradient goes into any
torch.optim optimizer; a generation in which every w is 0 changes nothing at all.

Shapes: P members, Q instances, B = P x Q rows.
"""

import time
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.models.perturbed import PerturbedNetwork
from evotext.noise import NoiseKey, ParameterSpec, Perturbation, UpdateNoise
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.optimization.master_weights import NarrowWeights
from evotext.types import Cost, Outcome, RolloutPlan, Trajectories, UpdateReport
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt, checked_record

from .ascent import Ascent
from .decay import Decay
from .guide import Guide
from .population import fitness_metrics, population_plan
from .pseudo_gradient import PseudoGradient
from .resampling import Resampling


@checked_record
class EvolutionStrategy:
    """Hyperparameters; conf/algorithm/eggroll.yaml says of each what it is and in which unit."""

    population: Annotated[int, Field(ge=2)]
    prompts: PositiveInt
    sigma: PositiveFloat
    antithetic: bool
    temperature: NonNegativeFloat
    perturbation: Perturbation
    fitness_shaping: Callable[[Tensor], Tensor]
    exclude: list[str]
    needs_adapter: bool
    narrow_weights: NarrowWeights
    optimizer: OptimizerFactory
    sigma_schedule: Callable[[int], float]
    learning_rate_schedule: Callable[[int], float]
    decay: Decay
    resampling: Resampling

    def __post_init__(self) -> None:
        if self.antithetic and self.population % 2:
            raise ValueError(f"population: expected an even number since antithetic=true, got {self.population}")
        check_optimizer(self.optimizer)

    def start(self, model: LanguageModel, seed: int) -> "EvolutionStrategyLearner":
        """Find out how each parameter is perturbed. Raise ValueError for one that cannot be and is not excluded."""
        return EvolutionStrategyLearner(self, model, seed)


class EvolutionStrategyLearner:
    """The weights on their way; all else follows from the hyperparameters, seed and generation."""

    def __init__(self, hyper: EvolutionStrategy, model: LanguageModel, seed: int) -> None:
        if hyper.needs_adapter and model.adapter is None:
            raise ValueError(
                "needs_adapter: expected a model with adapters, got one without; use adapter=lora, or set it to false"
            )
        self._hyper, self._seed = hyper, seed
        self._network = PerturbedNetwork(model.network, exclude=hyper.exclude)
        self._guide = Guide(network=self._network, perturbation=hyper.perturbation)
        specs = {name: spec for name, spec in self._network.parameters.items() if hyper.perturbation.moves(spec)}
        for name, spec in specs.items():
            _check_spacing(name, spec, hyper.sigma)
        self._ascent = Ascent(
            {name: parameter for name, parameter in model.network.named_parameters() if name in specs},
            hyper.optimizer,
            schedule=hyper.learning_rate_schedule,
            decay=hyper.decay,
            narrow=hyper.narrow_weights,
            seed=seed,
        )

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan of every member on the same Q instances, rows ordered by member."""
        hyper = self._hyper
        key = NoiseKey(
            seed=self._seed,
            generation=generation,
            population=hyper.population,
            antithetic=hyper.antithetic,
            sigma=self._sigma(generation),
        )
        return population_plan(
            self._guide.draw(key),
            hyper.resampling.instances(self._seed, generation, hyper.prompts),
            population=hyper.population,
            seed=self._seed,
            generation=generation,
            temperature=hyper.temperature,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Move the weights along the pseudo-gradient; a generation without signal changes nothing."""
        begin = time.perf_counter()
        noise, generation = batch.plan.noise, batch.plan.generation
        assert noise is not None, "a plan of `ask` has noise"
        self._ascent.learning_rate.follow(generation)
        sigma = self._sigma(generation)
        return_PQ = batch.return_B.view(self._hyper.population, self._hyper.prompts)
        weight_P = self._hyper.fitness_shaping(return_PQ)
        metrics = fitness_metrics(return_PQ)
        metrics |= {"learning_rate": self._ascent.learning_rate.now, "sigma": sigma}
        signal = bool((weight_P != 0).any())
        if signal:
            metrics |= self._move(noise, weight_P, sigma)
        metrics["drift"] = self._ascent.drift
        flops = (noise.combine_flops if signal else 0.0) + self._guide.look(batch)
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=int(signal), flops=flops)
        outcome = Outcome.CHANGED if signal else Outcome.NO_SIGNAL
        return UpdateReport(outcome=outcome, metrics=metrics, cost=cost)

    def state_dict(self) -> dict[str, object]:
        """Return the optimizer's state and the masters, and what guided noise is guided by."""
        return self._ascent.state_dict() | {"guide": self._guide.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._ascent.load_state_dict(state)
        self._guide.load_state_dict(state["guide"])  # type: ignore[arg-type]

    def _sigma(self, generation: int) -> float:
        return self._hyper.sigma * self._hyper.sigma_schedule(generation)

    def _move(self, noise: UpdateNoise, weight_P: Tensor, sigma: float) -> dict[str, float]:
        """Take one optimizer step."""
        gradient = PseudoGradient(noise.combine, weight_P, 1.0 / (len(weight_P) * sigma))
        change = self._ascent.step((name, self._network.in_stored_layout(name, whole)) for name, whole in gradient)
        return gradient.figures | {"update_norm": change}


def _check_spacing(name: str, spec: ParameterSpec, sigma: float) -> None:
    """Raise ValueError if noise on a norm or bias would be rounded off: the update would take noise that never acted."""
    spacing = torch.finfo(spec.dtype).eps
    if spec.kind == "vector" and sigma < spacing:
        raise ValueError(
            f"sigma: expected at least {spacing:g}, which is what {spec.dtype} numbers near 1 are apart, "
            f"since noise on vectors like {name} is rounded off, got {sigma:g}; "
            "set perturbation.vectors=frozen or model.dtype=float32"
        )
