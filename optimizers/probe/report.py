"""One probe: everything measured of a model and a task, as a record."""

import time
from dataclasses import asdict
from typing import Annotated, Any

import torch
from pydantic import Field

from evotext.keys.instances import validation_instances
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import actions_of
from evotext.policy.advantages import Baseline, group_advantages
from evotext.rollouts.collector import Collector
from evotext.types import RolloutPlan, Sampling
from evotext.validation import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, checked_record

from ..guide import Guide
from ..perturbations import Guided, LowRank
from ..perturbed import PerturbedNetwork
from ..scoring import Scoring
from ..selection import energies_of, policy_gradient
from .forecast import forecast
from .gradient import Estimate, Estimators, by_group
from .returns import SigmaFigures, sweep


@checked_record
class Settings:
    """The settings of a probe; conf/probe.yaml explains each."""

    prompts: PositiveInt
    group_size: Annotated[int, Field(ge=2)]
    temperature: PositiveFloat
    baseline: Baseline
    members: Annotated[int, Field(ge=2)]
    draws: PositiveInt
    sigma: PositiveFloat
    sigmas: list[PositiveFloat]
    sweep_members: Annotated[int, Field(ge=2)]
    sweep_instances: Annotated[int, Field(ge=2)]
    directions: PositiveInt
    tokens: PositiveInt
    whitening: Fraction
    share: Fraction
    exclude: list[str]
    seed: NonNegativeInt


def probe(model: LanguageModel, collector: Collector, settings: Settings, *, words: tuple[str, str]) -> dict[str, Any]:
    """Measure. words: what chooses the model and the task on a command line."""
    begin = time.perf_counter()
    network = PerturbedNetwork(model.network, exclude=settings.exclude)
    plan = _plan(settings)
    batch = collector.collect(plan)
    assert batch.success_B is not None, "the task of a probe knows success"
    compared_B = ~batch.truncated_B
    advantage_B = torch.zeros(len(plan.groups), dtype=torch.float64)
    advantage_B[compared_B] = group_advantages(
        batch.return_B[compared_B], torch.tensor(plan.groups)[compared_B], settings.baseline
    ).nan_to_num(0.0, 0.0, 0.0)
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
    if scored:
        actions = actions_of(batch, model.device)
        gradient, _ = policy_gradient(model.network, actions, advantage_B, temperature=settings.temperature)
        guided = Guided(
            rank=1,
            directions=settings.directions,
            tokens=settings.tokens,
            whitening=settings.whitening,
            refresh=1,
            vectors="frozen",
        )
        isotropic = LowRank(rank=1, vectors="frozen")
        whole = energies_of(gradient, network, LowRank(rank=1, vectors="full"), None)
        guide = Guide(network=network, perturbation=guided)
        guide.look(batch)
        within = by_group(energies_of(gradient, network, guided, guide.basis))
        total = sum(entry.energy for entry in whole.values())
        record["energy"] = {
            name: {
                "share": entry.energy / total,
                "parameters": entry.dimensions,
                "guided_share": within[name].energy / total if name in within else 0.0,
                "guided_dimensions": within[name].dimensions if name in within else 0,
            }
            for name, entry in by_group(whole).items()
        }
        estimators = Estimators(
            Scoring(model.network, rows=collector.rows),
            batch,
            actions,
            advantage_B,
            gradient,
            temperature=settings.temperature,
            members=settings.members,
            sigma=settings.sigma,
            draws=settings.draws,
            seed=settings.seed,
        )
        estimates = [
            estimators.of("scored", isotropic, exclude=settings.exclude),
            estimators.of("guided", guided, exclude=settings.exclude),
            estimators.of(f"selected {settings.share:g}", guided, exclude=settings.exclude, share=settings.share),
        ]
        record["estimates"] = [asdict(estimate) for estimate in estimates]
        record["gain_of_the_gradient"] = estimators.exact()
    sigmas = _sweep(collector, network, settings)
    record["sigmas"] = [asdict(figures) for figures in sigmas]
    record["forecast"] = asdict(
        forecast(estimates, sigmas, success=record["success_sampled"], scored=scored, words=words)
    )
    record["seconds"] = time.perf_counter() - begin
    return record


def _plan(settings: Settings) -> RolloutPlan:
    instances = validation_instances(settings.prompts)
    return RolloutPlan(
        seed=settings.seed,
        generation=0,
        instances=tuple(instance for instance in instances for _ in range(settings.group_size)),
        groups=tuple(group for group in range(settings.prompts) for _ in range(settings.group_size)),
        sampling=Sampling(temperature=settings.temperature),
        logprobs=True,
    )


def _sweep(collector: Collector, network: PerturbedNetwork, settings: Settings) -> list[SigmaFigures]:
    return sweep(
        collector,
        network,
        LowRank(rank=1, vectors="frozen"),
        sigmas=settings.sigmas,
        members=settings.sweep_members,
        instances=settings.sweep_instances,
        seed=settings.seed,
    )
