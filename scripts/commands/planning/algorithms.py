"""From a configured algorithm to what its forecast needs to know."""

from collections.abc import Mapping
from typing import Any, Literal

from .work import Noise, Rollouts, Work

# Numbers that torch's optimizers keep for each one that they move.
MOMENTS = {"Adam": 2, "AdamW": 2, "NAdam": 2, "RAdam": 2, "RMSprop": 1, "Adagrad": 1}
KINDS: dict[str, Literal["low_rank", "full_rank", "guided"]] = {
    "LowRank": "low_rank",
    "FullRank": "full_rank",
    "Guided": "guided",
    "Local": "low_rank",  # as many numbers, of which half are read and not drawn
}
KNOWN = ("EvolutionStrategy", "ScoredES", "GRPO", "PPO", "SFT")


def work_of(
    algorithm: Mapping[str, Any],
    *,
    element: Literal[2, 4],
    at_once: int,
    prompt: int,
    answer: int,
    turns: int,
    context: int,
    leaving: bool = True,
    devices: int = 1,
    tensor: int = 1,
    adapter_rank: int = 0,
    fused: bool = False,
    sharded: Literal["layers", "whole"] | None = None,
    evaluation: Rollouts | None = None,
) -> Work:
    """Return a generation of the algorithm that these keys configure. Raise ValueError for one that there is no forecast of."""
    name = str(algorithm["_target_"]).rpartition(".")[2]
    if name not in KNOWN:
        raise ValueError(
            f"algorithm: expected one built on {', '.join(KNOWN)}, which a forecast is made for, got one on {name}"
        )

    def rollouts(rows: int, sampled: bool, distinct: int) -> Rollouts:
        return Rollouts(
            rows=rows,
            at_once=at_once,
            prompt=prompt,
            answer=answer,
            turns=turns,
            sampled=sampled,
            distinct=distinct,
            leaving=leaving,
            context=context,
        )

    shared: dict[str, Any] = {
        "element": element,
        "moments": moments(algorithm["optimizer"]),
        "devices": devices,
        "tensor": tensor,
        "adapter_rank": adapter_rank,
        "evaluation": evaluation,
    }
    if name == "EvolutionStrategy":
        population, prompts = algorithm["population"], algorithm["prompts"]
        return Work(
            family="es",
            rollouts=rollouts(population * prompts, algorithm["temperature"] > 0, 0),
            masters=algorithm["narrow_weights"] == "masters",
            noise=noise(algorithm),
            anchored=str(algorithm["decay"]["_target_"]).endswith("Anchored"),
            shares_update=algorithm["update"] == "shared",
            **shared,
        )
    if name == "ScoredES":
        prompts = algorithm["prompts"]
        return Work(
            family="scored",
            rollouts=rollouts(prompts * algorithm["group_size"], True, prompts),
            masters=algorithm["narrow_weights"] == "masters",
            noise=noise(algorithm),
            micro_rows=algorithm["micro_rows"],
            steps=algorithm["steps"],
            single_tokens=algorithm["scored_tokens"] if algorithm["context"] == "shared" else 0,
            **shared,
        )
    ppo, grouped = name == "PPO", name == "GRPO"
    rows = algorithm["prompts"] * algorithm["group_size"] if grouped else algorithm["episodes"]
    return Work(
        family="gradient",
        rollouts=rollouts(rows, True, algorithm["prompts"] if grouped else 0),
        plays=name != "SFT",
        references=int(algorithm.get("kl_coefficient", 0) > 0),
        own_critic=ppo and algorithm["value_trunk"] == "own",
        critic=ppo,
        step_rows=-(-rows // algorithm["minibatches"]),
        micro_rows=algorithm["micro_rows"],
        checkpointing=algorithm["gradient_checkpointing"],
        steps=algorithm["epochs"],
        fused=fused,
        sharded=sharded,
        **shared,
    )


def moments(optimizer: Mapping[str, Any]) -> int:
    """Return how many numbers the optimizer keeps for each one that it moves."""
    name = str(optimizer["_target_"]).rpartition(".")[2]
    extra = 1 if optimizer.get("amsgrad") or (name in ("SGD", "RMSprop") and optimizer.get("momentum")) else 0
    return MOMENTS.get(name, 0) + extra


def noise(algorithm: Mapping[str, Any]) -> Noise:
    """Return what is drawn for a population."""
    perturbation = algorithm["perturbation"]
    return Noise(
        kind=KINDS[str(perturbation["_target_"]).rpartition(".")[2]],
        members=algorithm["population"],
        antithetic=algorithm["antithetic"],
        rank=perturbation.get("rank", 1),
        vectors=perturbation.get("vectors") == "full",
        directions=perturbation.get("directions", 0),
        tokens=perturbation.get("tokens", 0),
    )
