"""Evolution strategies on standard functions beside CMA-ES, with equal evaluations: `python scripts/standard_functions.py`.

An independent check: the estimators, shapings and noise of this package against another library's searcher, on problems
whose answers are known. The parts are those of the algorithms (optimizers/evolution_strategy.py); only the model is missing.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
from omegaconf import DictConfig
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from evotext.cli.checks import check_values
from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.library import optional
from evotext.noise import NoiseKey, ParameterSpec, Perturbation
from evotext.optimization.schedules import Cosine
from evotext.runner.preflight import prepare_torch
from evotext.validation import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from optimizers.ascent import Ascent
from optimizers.fitness_shaping import centered_ranks, z_score
from optimizers.perturbations import FullRank, LowRank

Function = Callable[[Tensor], Tensor]
"""Values (B,) of points (B, D), to be minimised; the least is 0."""


def sphere(x_BD: Tensor) -> Tensor:
    """Return the sphere function, least at 0."""
    return x_BD.square().sum(1)


def rosenbrock(x_BD: Tensor) -> Tensor:
    """Return Rosenbrock's curved valley; least at 1."""
    return (100 * (x_BD[:, 1:] - x_BD[:, :-1].square()).square() + (1 - x_BD[:, :-1]).square()).sum(1)


def rastrigin(x_BD: Tensor) -> Tensor:
    """Return Rastrigin's bowl full of local minima; least at 0."""
    return (x_BD.square() - 10 * torch.cos(2 * math.pi * x_BD) + 10).sum(1)


# The search begins here, in every coordinate.
FUNCTIONS: dict[str, tuple[Function, float]] = {
    "sphere": (sphere, 1.0),
    "Rosenbrock": (rosenbrock, 0.0),
    "Rastrigin": (rastrigin, 2.5),
}


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """An algorithm of this package by its parts."""

    perturbation: Perturbation
    antithetic: bool
    shaping: Callable[[Tensor], Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]


STRATEGIES = {
    "EGGROLL, rank 1": Strategy(
        perturbation=LowRank(rank=1, vectors="full"), antithetic=True, shaping=z_score, optimizer=torch.optim.Adam
    ),
    "EGGROLL, rank 4": Strategy(
        perturbation=LowRank(rank=4, vectors="full"), antithetic=True, shaping=z_score, optimizer=torch.optim.Adam
    ),
    "OpenAI-ES": Strategy(
        perturbation=FullRank(vectors="full"), antithetic=True, shaping=centered_ranks, optimizer=torch.optim.Adam
    ),
    "ES at scale": Strategy(
        perturbation=FullRank(vectors="full"), antithetic=False, shaping=z_score, optimizer=torch.optim.SGD
    ),
}


class _Matrix:
    """A network of one parameter to draw noise for, without layers that could be run."""

    together: Sequence[tuple[str, ...]] = ()

    def __init__(self, shape: tuple[int, int]) -> None:
        device = torch.device("cpu")
        self.parameters = {"x": ParameterSpec(kind="matrix", shape=shape, index=0, dtype=torch.float64, device=device)}


def strategy_run(
    strategy: Strategy, function: Function, begin: float, seed: int, rate: float, config: DictConfig
) -> float:
    """Return the function at the mean after all evaluations but one, which is this."""
    shape, population = tuple(config.shape), config.population
    x = nn.Parameter(torch.full(shape, begin, dtype=torch.float64))
    identity = torch.eye(shape[1], dtype=torch.float64).expand(population, -1, -1)
    generations = (config.evaluations - 1) // population
    fall = Cosine(generations=generations, end=config.end, warm_up=0)
    ascent = Ascent({"x": x}, partial(strategy.optimizer, lr=rate), schedule=fall)
    for generation in range(generations):
        sigma = config.sigma * fall(generation, generation / generations)
        ascent.learning_rate.follow(generation, generation / generations)
        antithetic = strategy.antithetic
        key = NoiseKey(seed=seed, generation=generation, population=population, antithetic=antithetic, sigma=sigma)
        noise = strategy.perturbation.draw(_Matrix(shape), key)  # type: ignore[arg-type]
        moved_PIO = noise.for_members(range(population)).linear("x", identity)
        points = x.detach() + moved_PIO.transpose(1, 2)
        weight_P = strategy.shaping(-function(points.flatten(1))[:, None])
        scale = 1.0 / (population * sigma)
        ascent.step((name, direction * scale) for name, direction in noise.combine(weight_P))
    return float(function(x.detach().flatten()[None]))


def cma_run(function: Function, begin: float, seed: int, config: DictConfig) -> float:
    """Return the function at CMA-ES's mean after as many evaluations."""
    rng = np.random.default_rng(seed)
    options = {"verbose": -9, "seed": np.nan, "randn": lambda *shape: rng.standard_normal(shape)}
    search = optional("cma", "cma").CMAEvolutionStrategy([begin] * math.prod(config.shape), config.sigma, options)
    for _ in range((config.evaluations - 1) // search.popsize):
        points = search.ask()
        search.tell(points, function(torch.from_numpy(np.stack(points))).tolist())
    return float(function(torch.from_numpy(np.asarray(search.mean))[None]))


def tuned(strategy: Strategy, function: Function, begin: float, config: DictConfig) -> float:
    """Return the learning rate with the least median on the tuning seeds."""

    def outcome(rate: float) -> float:
        values = [strategy_run(strategy, function, begin, seed, rate, config) for seed in config.tuning_seeds]
        return median(value if math.isfinite(value) else math.inf for value in values)

    return float(min(config.learning_rates, key=outcome))


_CHECKS: Mapping[str, Any] = {
    "shape": Annotated[list[PositiveInt], Field(min_length=2, max_length=2)],
    "evaluations": PositiveInt,
    "population": Annotated[int, Field(ge=2, multiple_of=2)],  # of mirrored pairs
    "sigma": PositiveFloat,
    "end": NonNegativeFloat,
    "seeds": Annotated[list[NonNegativeInt], Field(min_length=1)],
    "tuning_seeds": Annotated[list[NonNegativeInt], Field(min_length=1)],
    "learning_rates": Annotated[list[PositiveFloat], Field(min_length=1)],
}


def main(config: DictConfig) -> None:
    """Run all algorithms on all functions, from configuration to table and Markdown."""
    with configuration():
        prepare_torch(config.threads)
        check_values(config, _CHECKS)
        if set(config.seeds) & set(config.tuning_seeds):
            raise ValueError("tuning_seeds: expected seeds that are not reported, got some of seeds")
        if config.evaluations <= config.population:
            raise ValueError(
                f"evaluations: expected more than population={config.population}, got {config.evaluations}"
            )
    rows: list[list[str]] = []
    for name, strategy in STRATEGIES.items():
        row = [name]
        for function, begin in FUNCTIONS.values():
            rate = tuned(strategy, function, begin, config)
            values = [strategy_run(strategy, function, begin, seed, rate, config) for seed in config.seeds]
            row.append(f"{_spread(values)}, lr {rate:g}")
        rows.append(row)
    rows.append(["CMA-ES", *(_spread([cma_run(f, b, s, config) for s in config.seeds]) for f, b in FUNCTIONS.values())])
    columns = ["", *FUNCTIONS]
    table = Table(title="value at the mean: median (lowest to highest) over seeds", title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
    if config.out:
        lines = [columns, ["---"] * len(columns), *rows]
        Path(config.out).write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2g} ({min(values):.2g} to {max(values):.2g})"


if __name__ == "__main__":
    run_hydra(main, sys.argv[1:], config_name="standard_functions")
