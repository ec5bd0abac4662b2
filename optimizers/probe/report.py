"""One probe: everything measured of a model and a task, as a record."""

import time
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from evotext.keys.instances import validation_instances
from evotext.models.language_model import LanguageModel
from evotext.models.out_of_memory import is_out_of_memory, make_room
from evotext.policy.actions import Actions, actions_of
from evotext.policy.advantages import Baseline
from evotext.rollouts.collector import Collector
from evotext.types import Trajectories
from evotext.validation import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, checked_record

from ..guide import Guide
from ..perturbations import Guided, Local, LowRank
from ..perturbed import PerturbedNetwork
from ..sampled_groups import advantages, sampled_groups
from ..scoring import Scoring
from ..selection import choose, energies_of, excluding, policy_gradient
from ..shared_context import reads_contexts
from .differences import energies_by_differences
from .forecast import forecast
from .gradient import Estimate, Estimators, by_group, grouped
from .returns import SigmaFigures, sweep


@checked_record
class Settings:
    """The settings of a probe; conf/probe.yaml explains each."""

    prompts: PositiveInt
    group_size: Annotated[int, Field(ge=2)]
    temperature: PositiveFloat
    baseline: Baseline
    members: Annotated[int, Field(ge=2)]
    drawn_tokens: Annotated[int, Field(ge=2)]
    draws: PositiveInt
    sigma: PositiveFloat
    sigmas: list[PositiveFloat]
    sweep_members: Annotated[int, Field(ge=4, multiple_of=2)]
    sweep_instances: Annotated[int, Field(ge=2)]
    step: PositiveFloat
    generations: PositiveInt
    directions: PositiveInt
    tokens: PositiveInt
    whitening: Fraction
    share: Fraction
    energy: Literal["auto", "backward", "differences"]
    energy_draws: Annotated[int, Field(ge=2)]
    exclude: list[str]
    seed: NonNegativeInt


def probe(model: LanguageModel, collector: Collector, settings: Settings, *, words: tuple[str, ...]) -> dict[str, Any]:
    """Measure. words: what chooses the model and the task on a command line."""
    begin = time.perf_counter()
    network = PerturbedNetwork(model.network, exclude=settings.exclude)
    batch = collector.collect(
        sampled_groups(
            validation_instances(settings.prompts),
            group_size=settings.group_size,
            temperature=settings.temperature,
            seed=settings.seed,
            generation=0,
        )
    )
    assert batch.success_B is not None, "the task of a probe knows success"
    advantage_B = advantages(batch, settings.baseline)
    scored = int((advantage_B != 0).sum())
    record: dict[str, Any] = {
        "success_sampled": float(batch.success_B.double().mean()),
        "return_sampled": float(batch.return_B.mean()),
        "cut_off": float(batch.truncated_B.double().mean()),
        "episodes": len(advantage_B),
        "episodes_with_signal": scored,
        "energy": {},
        "estimates": [],
        "gain_of_the_gradient": 0.0,
    }
    estimates: list[Estimate] = []
    exclude: list[str] = []
    if scored:
        actions = actions_of(batch, model.device)
        scoring = Scoring(model.network, rows=collector.rows)
        gradient = _gradient(model, actions, advantage_B, settings)
        if gradient is None:
            record["energy"] = _by_differences(scoring, network, actions, advantage_B, settings)
        else:
            record["energy"] = _by_gradient(network, batch, gradient, settings)
            estimators = Estimators(
                scoring,
                batch,
                actions,
                advantage_B,
                gradient,
                temperature=settings.temperature,
                members=settings.members,
                tokens=settings.drawn_tokens,
                sigma=settings.sigma,
                draws=settings.draws,
                seed=settings.seed,
            )
            isotropic, guided = LowRank(rank=1, vectors="frozen"), _guided(settings)
            estimates = [
                *([estimators.of("local", Local(), exclude=settings.exclude)] if reads_contexts(model.network) else []),
                estimators.of("low rank", isotropic, exclude=settings.exclude),
                estimators.of("guided", guided, exclude=settings.exclude),
                estimators.of(f"selected {settings.share:g}", guided, exclude=settings.exclude, share=settings.share),
            ]
            energies = energies_of(gradient, network, isotropic, None)
            exclude = [*settings.exclude, *excluding(list(network.parameters), choose(energies, settings.share))]
            record["estimates"] = [asdict(estimate) for estimate in estimates]
            record["gain_of_the_gradient"] = estimators.exact()
    sigmas = _sweep(collector, network, settings)
    record["sigmas"] = [asdict(figures) for figures in sigmas]
    record["forecast"] = asdict(
        forecast(
            estimates,
            sigmas,
            success=record["success_sampled"],
            scored=scored,
            generations=settings.generations,
            members=settings.sweep_members,
            exclude=exclude,
            words=words,
        )
    )
    record["seconds"] = time.perf_counter() - begin
    return record


def _gradient(
    model: LanguageModel, actions: Actions, advantage_B: Tensor, settings: Settings
) -> dict[str, Tensor] | None:
    """Return the gradient, None where it is not wanted or the memory does not hold it."""
    if settings.energy == "differences":
        return None
    try:
        return policy_gradient(model.network, actions, advantage_B, temperature=settings.temperature)[0]
    except (MemoryError, RuntimeError) as error:
        if settings.energy == "backward" or not is_out_of_memory(error):
            raise
    make_room(model.device)
    return None


def _guided(settings: Settings) -> Guided:
    return Guided(
        rank=1,
        directions=settings.directions,
        tokens=settings.tokens,
        whitening=settings.whitening,
        refresh=1,
        vectors="frozen",
    )


def _by_gradient(
    network: PerturbedNetwork, batch: Trajectories, gradient: dict[str, Tensor], settings: Settings
) -> dict[str, Any]:
    """Return each group's share of the gradient's energy, and of it within guided directions."""
    whole = by_group(energies_of(gradient, network, LowRank(rank=1, vectors="full"), None))
    guide = Guide(network=network, perturbation=_guided(settings))
    guide.look(batch)
    within = by_group(energies_of(gradient, network, guide.perturbation, guide.basis))
    total = sum(entry.energy for entry in whole.values())
    return {
        name: {
            "share": entry.energy / total,
            "parameters": entry.dimensions,
            "guided_share": within[name].energy / total if name in within else 0.0,
            "guided_dimensions": within[name].dimensions if name in within else 0,
        }
        for name, entry in whole.items()
    }


def _by_differences(
    scoring: Scoring, network: PerturbedNetwork, actions: Actions, advantage_B: Tensor, settings: Settings
) -> dict[str, Any]:
    """Return each group's share by forward passes; nothing is known of guided directions."""
    found = energies_by_differences(
        scoring,
        network,
        grouped(network.parameters),
        actions,
        advantage_B,
        temperature=settings.temperature,
        sigma=settings.sigma,
        draws=settings.energy_draws,
        seed=settings.seed,
    )
    total = sum(entry.energy for entry in found.values())
    return {
        name: {
            "share": entry.energy / total,
            "error": entry.error / total,
            "parameters": entry.dimensions,
        }
        for name, entry in found.items()
    }


def _sweep(collector: Collector, network: PerturbedNetwork, settings: Settings) -> list[SigmaFigures]:
    return sweep(
        collector,
        network,
        LowRank(rank=1, vectors="frozen"),
        sigmas=settings.sigmas,
        members=settings.sweep_members,
        instances=settings.sweep_instances,
        step=settings.step,
        seed=settings.seed,
    )
