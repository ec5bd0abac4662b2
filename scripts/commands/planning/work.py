"""A generation in numbers: all that a forecast has to know of an algorithm and a task."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Episodes of a generation, on all devices together."""

    rows: int
    """Episodes."""
    at_once: int
    """Rows of a batch at most."""
    prompt: int
    """Tokens before the first answer."""
    answer: int
    """Tokens of an answer at most."""
    turns: int = 1
    sampled: bool = False
    """Whether tokens are drawn with their log-probabilities, rather than taken greedily."""
    distinct: int = 0
    """Different prompts among a batch's rows that share their computation; 0: none do."""
    leaving: bool = True
    """Whether rows end before others, so that the rest moves to a smaller cache while the larger one is still there."""
    context: int = 1 << 62
    """Longest conversation of the model."""

    @property
    def conversation(self) -> int:
        """Tokens of the longest conversation: each turn is taken to say as much as the first one does."""
        return min(self.context, self.turns * (self.prompt + self.answer))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A population's perturbations."""

    kind: Literal["low_rank", "full_rank", "guided"]
    members: int
    antithetic: bool
    rank: int = 1
    vectors: bool = True
    """Whether biases and the scales of norms are perturbed."""
    directions: int = 0
    """Of guided noise."""
    tokens: int = 0
    """Of guided noise: rows of an embedding."""

    @property
    def draws(self) -> int:
        """Mirrored pairs, or members."""
        return self.members // 2 if self.antithetic else self.members


@dataclass(frozen=True, kw_only=True)
class Work:
    """A generation of one algorithm on one device out of `devices`."""

    family: Literal["es", "scored", "gradient"]
    """Members act; members score shared episodes; backpropagation."""
    rollouts: Rollouts
    element: Literal[2, 4]
    """Bytes of a stored weight."""
    moments: int
    """Numbers of the optimizer's state for each number that it moves: 0 of a plain step, 1 with momentum, 2 of Adam."""
    masters: bool = True
    """Whether weights stored in less than float32 have float32 copies."""
    noise: Noise | None = None
    anchored: bool = False
    """Whether decay keeps a copy of the starting weights."""
    references: int = 0
    """Further copies of the weights: a frozen reference, not needed where there are adapters. A critic's own trunk, which is
    trained (`own_critic`), is not counted here."""
    own_critic: bool = False
    critic: bool = False
    step_rows: int = 0
    """Rows of an optimizer step (gradient)."""
    micro_rows: int = 0
    """Rows that are computed at once in training or scoring."""
    checkpointing: bool = False
    steps: int = 1
    """Passes over each row in training (gradient), or members' passes (scored)."""
    single_tokens: int = 0
    """Tokens that each member scores in contexts which all share (scored); 0: members run whole episodes."""
    adapter_rank: int = 0
    """Of LoRA, beside frozen weights; 0: the weights themselves move."""
    plays: bool = True
    """Whether the policy runs episodes; otherwise it learns from given ones, as many as `rollouts.rows`."""
    devices: int = 1
    tensor: int = 1
    """So many of the devices hold a model together (`model.parallel=tensor`) and run the same rows; the shape is that of one's
    part then."""
    shares_update: bool = False
    """Whether each device steps some parameters and keeps the state of those alone."""
    sharded: Literal["layers", "whole"] | None = None
    """Whether the devices divide weights, gradients and optimizer state (`model.parallel=fsdp`), and what rollouts gather."""
    evaluation: Rollouts | None = None
    """Of the stored weights on held-out instances."""
    fused: bool = False
    """Whether the optimizer steps all parameters at once, as torch does on a GPU: its temporaries are then as large as they."""

    @property
    def shares(self) -> int:
        """Devices, or groups of them, that the rows are shared by."""
        return self.devices // self.tensor
