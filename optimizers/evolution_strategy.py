"""Evolution strategies on the weights of a language model: draw members, run them all, move along the pseudo-gradient.

Papers: Salimans et al. 2017 (OpenAI-ES), arXiv 1703.03864; Sarkar et al. 2025 (EGGROLL), arXiv 2511.16652. One class; what
tells the published algorithms apart is a choice of its parts, and each choice is a file in conf/algorithm/, where its
paper, its constants and its deviations stand: eggroll, openai_es, es_at_scale, mezo, lora_es.

Each generation draws Q task instances and unit noise E_n for N members (in mirrored pairs E, -E where antithetic). Every
member n answers every instance with the weights W + sigma E_n. (Or each block of members has Q instances of its own: then
more is seen of the task, and members are compared within their block.) With w_n the shaped fitness of its returns,

    g = 1 / (N sigma) sum_n w_n E_n        W <- optimizer step along g (we maximise)

Deviations from the papers, shared by all: noise is a function of its key (seed, generation, pair, parameter) and is drawn
again for the update where it is not kept; the stored weights are never perturbed; the pseudo-gradient goes into any
torch.optim optimizer; a generation in which every w is 0 changes nothing at all.

Shapes: P members, Q instances, B = P x Q rows; of G blocks P is a block's.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.noise import NoiseKey, Perturbation, UpdateNoise
from evotext.optimization.factory import OptimizerFactory, check_entry_by_entry, check_optimizer
from evotext.optimization.master_weights import NarrowWeights
from evotext.optimization.schedules import Schedule
from evotext.types import Cost, Outcome, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import MinP, NonNegativeFloat, PositiveFloat, PositiveInt, TopP, checked_record

from .ascent import Ascent
from .decay import Decay
from .guide import Guide
from .perturbations.full_rank import FullRank
from .perturbations.local import Local
from .perturbations.low_rank import LowRank
from .perturbed import PerturbedNetwork
from .population import fitness_metrics, member_credit, population_plan
from .preselection import preselected, preselection_plan
from .pseudo_gradient import PseudoGradient
from .racing import Racing, with_spread
from .resampling import Resampling
from .scales import check_spacing, own_scales
from .selection import excluding


@checked_record
class EvolutionStrategy:
    """Hyperparameters; conf/algorithm/eggroll.yaml says of each what it is and in which unit."""

    population: Annotated[int, Field(ge=2)]
    prompts: PositiveInt
    members_per_instance: Annotated[int, Field(ge=2)] | None
    sigma: PositiveFloat | Literal["auto"]
    sigma_share: PositiveFloat
    antithetic: bool
    temperature: NonNegativeFloat
    top_p: TopP
    min_p: MinP
    common_random_numbers: bool
    perturbation: Perturbation
    fitness_shaping: Callable[[Tensor], Tensor]
    exclude: list[str]
    select: Annotated[float, Field(gt=0, le=1)] | None
    needs_adapter: bool
    narrow_weights: NarrowWeights
    update: Literal["repeated", "shared"]
    optimizer: OptimizerFactory
    sigma_schedule: Schedule
    learning_rate_schedule: Schedule
    decay: Decay
    resampling: Resampling
    racing: Racing

    def __post_init__(self) -> None:
        if self.antithetic and self.population % 2:
            raise ValueError(f"population: expected an even number since antithetic=true, got {self.population}")
        if isinstance(self.perturbation, Local):
            raise ValueError("perturbation: expected low_rank, full_rank or guided with members that act, got local")
        block = self.members_per_instance or self.population
        if self.population % block:
            raise ValueError(
                f"members_per_instance: expected a divisor of population={self.population}, or null for all, got {block}"
            )
        if self.antithetic and block % 2:
            raise ValueError(
                f"members_per_instance: expected an even number since antithetic=true, got {block}; pairs stay together"
            )
        if self.common_random_numbers and not (self.antithetic and self.temperature):
            raise ValueError(
                "common_random_numbers: expected false without mirrored pairs (antithetic=true) that sample their answers "
                f"(temperature above 0), got true with antithetic={str(self.antithetic).lower()} and "
                f"temperature={self.temperature:g}"
            )
        if self.racing.pairs is not None and (self.blocks > 1 or self.resampling.every != 1):
            raise ValueError(
                "racing.pairs: expected null where blocks of members have instances of their own (members_per_instance) or "
                f"instances are used again (resampling.every other than 1), got {self.racing.pairs}"
            )
        _ = self.sampling  # refused now and not in the first generation
        check_optimizer(self.optimizer)

    @property
    def sampling(self) -> Sampling:
        """The decoding in training. Raise ValueError for greedy decoding that is to be truncated."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, min_p=self.min_p)

    @property
    def blocks(self) -> int:
        """The number of blocks of members, each with instances of its own."""
        return 1 if self.members_per_instance is None else self.population // self.members_per_instance

    def check_parts(self) -> None:
        """Raise ValueError for settings that need whole weights in each process (`TunesParts`)."""
        if not isinstance(self.perturbation, LowRank | FullRank):
            raise ValueError(
                "perturbation: expected low_rank or full_rank with model.parallel=tensor, got "
                f"{type(self.perturbation).__name__}, which reads whole layers"
            )
        if self.update == "shared":
            raise ValueError(
                "update: expected repeated with model.parallel=tensor, which divides it already, got shared"
            )
        if self.select is not None:
            raise ValueError(f"select: expected null with model.parallel=tensor, got {self.select:g}; use exclude")
        if self.narrow_weights == "stochastic":
            raise ValueError("narrow_weights: expected masters with model.parallel=tensor, got stochastic")
        check_entry_by_entry(self.optimizer)

    def start(self, model: LanguageModel, seed: int) -> "EvolutionStrategyLearner":
        """Find out how each parameter is perturbed. Raise ValueError for one that cannot be and is not excluded."""
        return EvolutionStrategyLearner(self, model, seed)


class EvolutionStrategyLearner:
    """The weights on their way, and the instances that a race has chosen; all else follows from seed and generation."""

    def __init__(self, hyper: EvolutionStrategy, model: LanguageModel, seed: int) -> None:
        if hyper.needs_adapter and model.adapter is None:
            raise ValueError(
                "needs_adapter: expected a model with adapters, got one without; use adapter=lora, or set it to false"
            )
        self._hyper, self._model, self._seed, self._spent = hyper, model, seed, 0.0
        self._chosen: tuple[int, ...] | None = None
        self._perturb(None)
        specs = {name: spec for name, spec in self._network.parameters.items() if hyper.perturbation.moves(spec)}
        moved = {name: parameter for name, parameter in model.network.named_parameters() if name in specs}
        self._largest = hyper.sigma_share if hyper.sigma == "auto" else hyper.sigma
        # Copied from the weights that a run starts with: a resumed run starts with them, too.
        self._scales = own_scales(moved, model.parts) if hyper.sigma == "auto" else {}
        for name, spec in specs.items():
            check_spacing(name, spec, self._largest * self._scales.get(name, 1.0))
        self._ascent = Ascent(
            moved,
            hyper.optimizer,
            schedule=hyper.learning_rate_schedule,
            decay=hyper.decay,
            narrow=hyper.narrow_weights,
            seed=seed,
            shared=hyper.update == "shared",
            parts=model.parts,
        )

    def _perturb(self, selected: list[str] | None) -> None:
        """Draw noise on these parameters from here on, on all that may move if None."""
        names = [name for name, _ in self._model.network.named_parameters()]
        exclude = self._hyper.exclude if selected is None else [*self._hyper.exclude, *excluding(names, selected)]
        self._selected = selected
        self._network = PerturbedNetwork(self._model.network, exclude=exclude, parts=self._model.parts)
        self._guide = Guide(network=self._network, perturbation=self._hyper.perturbation)

    def follow(self, spent: float) -> None:
        """Take note of the share of the budget that is spent."""
        self._spent = spent

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan of every member on the Q instances of its block, rows ordered by member."""
        hyper = self._hyper
        if hyper.select is not None and self._selected is None:
            return preselection_plan(self._seed, generation)
        if self._race_is_due:
            candidates = train_instances(self._seed, generation, hyper.prompts * hyper.racing.candidates)
            return replace(self._plan(generation, candidates, hyper.racing.members), groups_a_part=0)
        drawn = self._chosen or hyper.resampling.instances(self._seed, generation, hyper.prompts * hyper.blocks)
        return self._plan(generation, drawn, hyper.population)

    def _plan(self, generation: int, instances: tuple[int, ...], population: int) -> RolloutPlan:
        hyper = self._hyper
        key = NoiseKey(
            seed=self._seed,
            generation=generation,
            population=population,
            antithetic=hyper.antithetic,
            sigma=self._sigma(generation),
            scales=self._scales,
        )
        return population_plan(
            self._guide.draw(key),
            instances,
            population=population,
            seed=self._seed,
            generation=generation,
            sampling=hyper.sampling,
            block=hyper.members_per_instance,
            common_random_numbers=hyper.common_random_numbers,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Move the weights along the pseudo-gradient; a generation without signal changes nothing."""
        begin = time.perf_counter()
        noise, generation = batch.plan.noise, batch.plan.generation
        if noise is None:
            assert self._hyper.select is not None, "all other plans of `ask` have noise"
            selected, report = preselected(self._guide, batch, self._hyper.select)
            self._perturb(selected)
            return report
        if self._race_is_due:
            return self._choose(batch)
        self._chosen = None
        self._ascent.learning_rate.follow(generation, self._spent)
        returns, sigma = self._by_member(batch), self._sigma(generation)
        weight_P = self._hyper.fitness_shaping(returns).flatten()
        metrics = fitness_metrics(returns) | {"learning_rate": self._ascent.learning_rate.now, "sigma": sigma}
        signal = bool((weight_P != 0).any())
        if signal:
            metrics |= self._move(noise, weight_P, sigma)
        metrics["drift"] = self._ascent.drift
        flops = (noise.combine_flops * self._ascent.share if signal else 0.0) + self._guide.look(batch)
        return UpdateReport(
            outcome=Outcome.CHANGED if signal else Outcome.NO_SIGNAL,
            metrics=metrics,
            cost=Cost(update_seconds=time.perf_counter() - begin, updates=int(signal), flops=flops),
            cost_is_fixed=True,
            credit=member_credit(weight_P, batch.plan),
        )

    def state_dict(self) -> dict[str, object]:
        """Return the optimizer's state, the masters, guided noise's basis, and what a race and `select` have chosen."""
        return self._ascent.state_dict() | {
            "guide": self._guide.state_dict(),
            "chosen": self._chosen and list(self._chosen),
            "selected": self._selected,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        if state.get("selected") != self._selected:
            self._perturb(state["selected"])  # type: ignore[arg-type]
        self._ascent.load_state_dict(state)
        self._guide.load_state_dict(state["guide"])  # type: ignore[arg-type]
        self._chosen = tuple(state.get("chosen") or ()) or None  # type: ignore[arg-type]

    @property
    def _race_is_due(self) -> bool:
        return self._hyper.racing.pairs is not None and self._chosen is None

    def _choose(self, race: Trajectories) -> UpdateReport:
        """Keep what the race has found for the next generation; the weights stay."""
        return_PC = race.return_B.view(self._hyper.racing.members, -1)
        self._chosen, share = with_spread(return_PC, race.plan.instances[: return_PC.shape[1]], self._hyper.prompts)
        return UpdateReport(outcome=Outcome.HELD, metrics={"racing/informative": share})

    def _sigma(self, generation: int) -> float:
        return self._largest * self._hyper.sigma_schedule(generation, self._spent)

    def _by_member(self, batch: Trajectories) -> Tensor:
        """Return returns (P, Q), or (G, P, Q) of the blocks with instances of their own that the budget had room for."""
        block = self._hyper.members_per_instance
        if block is None:
            return batch.return_B.view(self._hyper.population, -1)
        return batch.return_B.view(-1, block, self._hyper.prompts)

    def _move(self, noise: UpdateNoise, weight_P: Tensor, sigma: float) -> dict[str, float]:
        """Take one optimizer step. weight_P: of the members that ran, the first of the population."""
        weight_all_P = torch.nn.functional.pad(weight_P, (0, self._hyper.population - len(weight_P)))
        gradient = PseudoGradient(
            lambda weight_P: map(self._in_weights, noise.combine(weight_P, self._ascent.own)),
            weight_all_P,
            1.0 / (len(weight_P) * sigma),
            totals=self._ascent.totals,
        )
        # Maps and no generator expressions, which would hold each direction until the next one has been made.
        change = self._ascent.step(map(self._as_stored, gradient))
        return gradient.figures | {"update_norm": change}

    def _as_stored(self, direction: tuple[str, Tensor]) -> tuple[str, Tensor]:
        return direction[0], self._network.in_stored_layout(*direction)

    def _in_weights(self, unit: tuple[str, Tensor]) -> tuple[str, Tensor]:
        """Divide a sum of unit noise by its parameter's scale, in place: times 1 / sigma it is a slope by the weights."""
        name, total = unit
        return name, total.div_(self._scales[name]) if self._scales else total
