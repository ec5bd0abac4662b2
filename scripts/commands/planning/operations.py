"""Floating-point operations of a generation, at most: every answer at its full length, nothing shared but a group's prompt.

The count is that of `evotext/models/flops.py`: two for each weight and position forward, four backward.
"""

from dataclasses import dataclass

from .shape import Shape
from .work import Noise, Work


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of all devices together."""

    rollouts: int
    update: int


def operations(shape: Shape, work: Work) -> Operations:
    """Return the operations of one generation."""
    rollouts = work.rollouts
    prompts = rollouts.distinct or rollouts.rows
    written = min(rollouts.conversation, rollouts.turns * rollouts.answer)
    positions = prompts * rollouts.prompt + rollouts.rows * (rollouts.conversation - rollouts.prompt)
    head = shape.vocabulary * shape.hidden
    acting = 2 * (shape.trunk * positions + head * rollouts.rows * written) if work.plays else 0
    if work.noise is not None and work.family == "es":
        acting += noise_operations(shape, work.noise) * positions
    if work.family == "gradient":
        return Operations(
            rollouts=acting, update=3 * work.steps * 2 * (shape.trunk * positions + head * rollouts.rows * written)
        )
    assert work.noise is not None
    combining = 2 * work.noise.draws * shape.parameters * (1 if work.noise.kind == "full_rank" else work.noise.rank)
    if work.family == "es":
        return Operations(rollouts=acting, update=combining)
    scored = work.noise.members * (work.single_tokens or rollouts.conversation)
    predicted = work.noise.members * (work.single_tokens or written)
    scoring = 2 * (shape.trunk * scored + head * predicted) + noise_operations(shape, work.noise) * scored
    if work.single_tokens:  # the contexts, at most of all episodes
        scoring += 2 * rollouts.rows * (shape.trunk * rollouts.conversation + head * written)
    return Operations(rollouts=acting, update=work.steps * (scoring + combining))


def noise_operations(shape: Shape, noise: Noise) -> int:
    """Return what the noise of the trunk's matrices adds at each position."""
    if noise.kind == "full_rank":
        return 2 * shape.trunk
    return 2 * noise.rank * sum(o + i for o, i in shape.matrices)
