"""The vocabulary: frozen records that cross the boundary between algorithm, rollout engine and runner.

Shape suffixes, here and everywhere: B rows (one row is one episode), T tokens, P population members, K rows a member,
O outputs and I inputs of a matrix, R rank, V vocabulary, H heads, D head size.
Sign: returns are maximised.
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from evotext.noise import PopulationNoise
from evotext.run_folder.cost import Cost as Cost  # kept without torch, so that reports know its names

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float
    """Divides the logits; 0 is greedy decoding."""


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """Which episodes to run; rows are independent of each other. All tuples have one entry a row.

    No rows at all: a generation without rollouts, for an algorithm that learns from something else. It is told of an
    empty batch and charges what it uses by its report.
    """

    seed: int
    """The run's seed: with the generation and the row it keys the sampling of tokens."""
    generation: int
    """Counts from 0."""
    instances: tuple[int, ...]
    """The environment seed of each row's task instance."""
    groups: tuple[int, ...]
    """Rows with the same number answer the same instance and are compared with each other."""
    sampling: Sampling
    """Decoding of every row."""
    split: Split = "train"
    """Which of the two disjoint sets of instances the seeds index."""
    members: tuple[int, ...] | None = None
    """The population member that each row runs as, in ascending order; None without a population."""
    noise: PopulationNoise | None = None
    """The population's perturbations; None runs every row with the stored weights."""
    logprobs: bool = False
    """Whether to record the sampler's log-probabilities of the tokens it drew."""

    def __post_init__(self) -> None:
        assert len(self.groups) == len(self.instances), "one group a row"
        assert (self.members is None) == (self.noise is None), "members and noise come together"
        if self.members is not None:
            assert len(self.members) == len(self.instances), "one member a row"
            assert list(self.members) == sorted(self.members), "rows are ordered by member"


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A training episode that somebody else has played, as text."""

    turns: tuple[tuple[str, str], ...]
    """Pairs of what the environment said and what is to be answered."""
    instructions: str = ""
    """The task in plain language, as `reset` gives it."""
    played: int = 1
    """Episodes that it took to get it, those that were thrown away included: what a budget is charged with."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One episode as text, for people to read."""

    instance: int
    """The environment seed."""
    turns: tuple[tuple[str, str], ...]
    """Pairs of what the environment said and what the policy answered."""
    episode_return: float
    """Sum of the episode's rewards."""
    note: str = ""
    """Why the episode ended, where that needs saying (a limit reached, an environment's fault)."""


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Finished episodes, one a row, in the plan's order. Tensors are on the CPU and padded on the right."""

    plan: RolloutPlan
    """What was asked."""
    tokens_BT: Tensor
    """Token ids (int64) of the whole conversation: prompt, completions and the environment's replies."""
    length_B: Tensor
    """Number of real tokens in each row (int64); the rest is padding."""
    policy_mask_BT: Tensor
    """True where the policy wrote the token; the rest (prompt, environment, padding) is never trained on."""
    turn_BT: Tensor
    """Turn that a token belongs to, counted from 0 (int64); a turn is an observation and the answer to it. -1 on padding."""
    reward_BT: Tensor
    """Rewards (float32), each at the last policy token of the turn that the environment paid for."""
    return_B: Tensor
    """Sum of each episode's rewards (float64)."""
    success_B: Tensor
    """True where the return reached the greatest that the task can pay."""
    terminated_B: Tensor
    """True where the task ended the episode."""
    truncated_B: Tensor
    """True where a limit (turns, context, time) cut the episode off."""
    overlong_B: Tensor
    """True where some completion reached the token limit without an end token."""
    cost: Cost
    """What the collection took; update fields are zero."""
    transcripts: tuple[Transcript, ...]
    """The first few episodes as text."""
    logprob_BT: Tensor | None = None
    """The sampler's log-probability (float32) of each policy token at the plan's temperature, 0 elsewhere; if asked for."""


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What an algorithm did with a batch of trajectories."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Figures to log; each is explained in docs/metrics.md."""
    cost: Cost = field(default_factory=Cost)
    """What the update took; rollout fields are zero, unless the algorithm learned from episodes that it did not ask for."""
    notes: tuple[str, ...] = ()
    """What the user should read now, a line each."""
