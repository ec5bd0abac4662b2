"""Bytes at the peak of a generation, part by part. Integers only; nothing is measured or fitted.

What stays all the time is added up; of what comes and goes, the phase that needs most counts: the rollouts, or the update.
Formulas follow the code and name it. Activations are those of a block with a gated feed-forward part and norms before it, as
Llama, Qwen, Mistral and their like have; other families are near it. Left out: what Python and libraries take, fragments that
an allocator keeps, episodes as text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from evotext.optimizers import guide, ownership, perturbations

from .rollouts import FLOAT, rollout_bytes
from .shape import Shape
from .sharded import gathered_for_rollouts, sharded_update, standing_shards
from .update import adapter_numbers, sampled_start, update_bytes
from .work import Noise, Work

# Positions and episodes that directions are found from.
SAMPLE, EPISODES = perturbations.basis.SAMPLE, guide.EPISODES


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Bytes of one device at the peak, by part."""

    parts: Mapping[str, int]
    """Of the phase that needs most."""
    phase: str
    """Which one that is."""
    phases: Mapping[str, int]
    """Bytes of each phase at its own peak."""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def forecast(shape: Shape, work: Work) -> Forecast:
    """Return what one device holds at the peak of a generation after the first, or of the look for directions in it."""
    stays = standing(shape, work)
    update = sharded_update(shape, work) if work.sharded else update_bytes(shape, work)
    gathered = gathered_for_rollouts(shape, work) if work.sharded else {}
    playing = {"rollouts": stays | gathered | rollout_bytes(shape, work)} if work.plays else {}
    phases = playing | {"update": stays | update}
    if work.noise is not None and work.noise.kind == "guided":
        phases["look"] = look_bytes(shape, work, stays)
    if work.evaluation is not None:
        plain = replace(work, noise=None, family="gradient", rollouts=work.evaluation, devices=work.devices)
        phases["evaluation"] = stays | gathered | rollout_bytes(shape, plain)
    phase = max(phases, key=lambda name: sum(phases[name].values()))
    return Forecast(
        parts={name: size for name, size in phases[phase].items() if size},
        phase=phase,
        phases={name: sum(parts.values()) for name, parts in phases.items()},
    )


def standing(shape: Shape, work: Work) -> dict[str, int]:
    """Return what is there from one generation to the next: weights, masters, moments and other copies."""
    if work.sharded:
        return standing_shards(shape, work)
    adapters = adapter_numbers(shape, work.adapter_rank)
    moved = adapters or shape.parameters
    weights = (shape.parameters + adapters) * work.element
    trunks = shape.parameters - sum(o * i for o, i in shape.embeddings[1:])  # a trunk has no output head of its own
    if work.own_critic:
        weights += trunks * work.element
        moved += trunks
    narrow = work.element < FLOAT and work.masters
    references = 0 if adapters else work.references  # without its adapter the network is what it was at the start
    small = small_space(shape, work.noise) if work.family == "scored" else 0
    sampled = 0 if work.family == "gradient" else sampled_start(shape, work)
    if work.shares_update:  # of parameters, which go whole, the device that has most
        most = ownership.most_owned(shape.tensors, work.devices)
        moved, sampled = (-(-size * most // sum(shape.tensors)) for size in (moved, sampled))
    return {
        "weights": weights,
        "copies of the start": (references * shape.parameters + (moved if work.anchored else 0)) * work.element,
        "float32 masters": moved * FLOAT if narrow else 0,
        "optimizer moments": work.moments * FLOAT * (small or moved),
        "coordinates of the step": small * FLOAT,
        "sample of the start": sampled,
    }


def small_space(shape: Shape, noise: Noise | None) -> int:
    """Numbers that scored ES moves: (O, k) of a layer and (S, D) of an embedding with guided noise, else all."""
    assert noise is not None
    vectors = sum(shape.vectors) if noise.vectors else 0
    if noise.kind != "guided":
        return shape.parameters - sum(shape.vectors) + vectors
    layers = sum(o * min(noise.directions, i) for o, i in shape.matrices)
    return layers + sum(min(noise.tokens, v) * d for v, d in shape.embeddings) + vectors


def look_bytes(shape: Shape, work: Work, stays: dict[str, int]) -> dict[str, int]:
    """Return what the first search for directions needs (optimizers/perturbations/basis.py).

    Inputs of all layers, and a decomposition. Until then scored ES has coordinates for every weight, and no moments.
    """
    assert work.noise is not None
    most = max(SAMPLE, 2 * work.noise.directions)
    sample = min(min(EPISODES, work.rollouts.rows) * work.rollouts.conversation, most)
    # Queries, keys and values read one input, as gate and up do.
    inputs = shape.layers * (2 * shape.hidden + shape.queries + shape.inner)
    widest = max(shape.inner, shape.hidden, shape.queries)
    least = min(sample, widest)
    # The sample of one layer put together, in float32, as LAPACK overwrites it, both factors, and what `gesdd` works in.
    narrow = work.element if work.element < FLOAT else 0
    decomposition = sample * widest * (narrow + 2 * FLOAT) + FLOAT * (least * (sample + widest) + 4 * least * least)
    first = (
        {"optimizer moments": 0, "coordinates of the step": FLOAT * shape.parameters} if work.family == "scored" else {}
    )
    return stays | first | {"inputs of the layers": inputs * sample * work.element, "decomposition": decomposition}
