"""The vocabulary: frozen records that cross the boundary between algorithm, rollout engine and runner.

Shape suffixes, here and everywhere: B rows (one row is one episode), T tokens, P population members, K rows a member,
O outputs and I inputs of a matrix, R rank, V vocabulary, H heads, D head size.
Sign: returns are maximised.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from itertools import accumulate
from typing import Literal

from torch import Tensor

from evotext.noise import PopulationNoise
from evotext.run_folder.cost import Cost as Cost  # kept without torch, so that reports know its names

Split = Literal["train", "validation", "test"]
"""Sets of instances that never meet, for an environment that keeps all three apart."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The decoding."""

    temperature: float
    """Divides the logits; 0 is greedy decoding."""
    top_p: float = 1.0
    """Nucleus sampling: the fewest most probable tokens of at least this probability together; 1 keeps all."""
    min_p: float = 0.0
    """Tokens of at least this share of the greatest probability; 0 keeps all."""

    def __post_init__(self) -> None:
        if not self.truncates:
            return
        name, value, neutral = ("top_p", self.top_p, 1) if self.top_p < 1.0 else ("min_p", self.min_p, 0)
        if self.temperature == 0.0:
            raise ValueError(f"{name}: expected {neutral} with temperature=0, which is greedy decoding, got {value:g}")

    @property
    def truncates(self) -> bool:
        """Whether some tokens can never be drawn."""
        return self.top_p < 1.0 or self.min_p > 0.0


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """The episodes to run; rows are independent of each other. All tuples have one entry a row.

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
    """Rows with the same number answer the same instance and are compared with each other. Numbered from 0."""
    sampling: Sampling
    """Decoding of every row."""
    split: Split = "train"
    """The one of disjoint sets of instances that the seeds index."""
    members: tuple[int, ...] | None = None
    """The population member that each row runs as, in ascending order; None without a population."""
    streams: tuple[int, ...] | None = None
    """Rows with the same number draw their tokens with the same random numbers; None: each row with its own."""
    noise: PopulationNoise | None = None
    """The population's perturbations; None runs every row with the stored weights."""
    logprobs: bool = False
    """Whether to record the sampler's log-probabilities of the tokens it drew."""
    last_observations: bool = False
    """Whether a row that a limit cut off ends with the environment's last observation, if the context has room for it."""
    tokens: bool = True
    """Whether tokens are read: each of several processes then gets those of all rows, and otherwise keeps its own."""
    groups_a_part: int = 0
    """The number of groups, in their order, that make a part. Where a budget has no room for the whole plan, its first
    parts are run alone, and `tell` gets a batch of fewer rows. 0: the plan is run as a whole or not at all."""
    generations_wanted: int = 0
    """A run of fewer generations is not worth much: whoever gave it too small a budget is told."""

    def __post_init__(self) -> None:
        assert len(self.groups) == len(self.instances), "one group a row"
        assert self.streams is None or len(self.streams) == len(self.instances), "one stream a row"
        assert not (self.logprobs and self.sampling.truncates), "a trainer's distribution is not truncated"
        assert (self.members is None) == (self.noise is None), "members and noise come together"
        if self.members is not None:
            assert len(self.members) == len(self.instances), "one member a row"
            assert list(self.members) == sorted(self.members), "rows are ordered by member"

    @property
    def smallest_part(self) -> int:
        """Rows of the first part: fewer cannot be run."""
        return self._rows_up_to()[0]

    def shortened(self, rows: float) -> "RolloutPlan":
        """Return its first parts, as many as have no more rows than this, but at least one."""
        fitting = [up_to for up_to in self._rows_up_to() if up_to <= rows]
        if not self.groups_a_part or len(self.instances) in fitting:
            return self
        groups = max(1, len(fitting)) * self.groups_a_part
        kept = [row for row, group in enumerate(self.groups) if group < groups]
        return replace(
            self,
            instances=tuple(self.instances[row] for row in kept),
            groups=tuple(self.groups[row] for row in kept),
            members=None if self.members is None else tuple(self.members[row] for row in kept),
            streams=None if self.streams is None else tuple(self.streams[row] for row in kept),
        )

    def _rows_up_to(self) -> list[int]:
        """Return the rows of the first part, of the first two, and so on."""
        if not self.groups_a_part or not self.groups:
            return [len(self.instances)]
        rows = Counter(group // self.groups_a_part for group in self.groups)
        return list(accumulate(rows[part] for part in range(max(rows) + 1)))


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A training episode that a demonstrator has played, as text."""

    turns: tuple[tuple[str, str], ...]
    """Pairs of observation and right answer."""
    instructions: str = ""
    """The task in plain language, as `reset` gives it."""
    played: int = 1
    """Episodes played to get it, discarded ones included: the budget is charged for these."""


class Ending(IntEnum):
    """How an episode ended: by the task, by a limit, or by a fault of the environment, which says nothing about the policy."""

    TASK = 0
    """The environment said `terminated`."""
    ENVIRONMENT_LIMIT = 1
    """The environment said `truncated`: a limit of its own."""
    TURN_LIMIT = 2
    """`env.max_turns` was reached."""
    CONTEXT = 3
    """The model's context has no room for one more answer."""
    RAISED = 4
    """Fault: `reset` or `step` raised an exception."""
    EXITED = 5
    """Fault: `reset` or `step` called `sys.exit`."""
    TIME_LIMIT = 6
    """Fault: `reset` or `step` took longer than `env.step_seconds`."""
    BAD_REPLY = 7
    """Fault: `reset` or `step` returned something other than Gymnasium's tuple with a text in it."""
    BAD_REWARD = 8
    """Fault: a reward that is not a finite number in float32's range."""

    @property
    def label(self) -> str:
        """The name in metrics and summaries."""
        return self.name.lower()


FIRST_FAULT = Ending.RAISED
FAULTS = tuple(ending for ending in Ending if ending >= FIRST_FAULT)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure of an environment that ended an episode."""

    kind: Ending
    """One of `FAULTS`."""
    call: Literal["reset", "step", "score_batch"]
    """The call that failed."""
    instance: int
    """The episode's environment seed."""
    error: str
    """The exception, or what was expected and what came."""
    traceback: str = field(repr=False)
    """The traceback from our call down to the line that raised; empty if nothing was raised."""

    def __str__(self) -> str:
        """Return it in words, without the instance."""
        verb = {Ending.RAISED: "raised ", Ending.EXITED: "called sys.exit: ", Ending.TIME_LIMIT: "took "}
        return f"the environment's {self.call} {verb.get(self.kind, 'returned what it may not: ')}{self.error}"


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One episode as text, for people to read."""

    row: int
    """Its row in the plan."""
    instance: int
    """The environment seed."""
    turns: tuple[tuple[str, str], ...]
    """Pairs of observation and the policy's answer."""
    episode_return: float
    """Sum of the episode's rewards."""
    ending: Ending
    """The way in which it ended."""
    fault: Fault | None = None
    """The environment's fault, if one ended the episode."""
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    """Sums of the named parts that its rewards are made of; empty if they have no names."""


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Finished episodes, one a row, in the plan's order. Tensors are on the CPU and padded on the right."""

    plan: RolloutPlan
    """The plan that was run."""
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
    """Sum of each episode's rewards (float64), finite; of an episode that a fault ended, what was paid before."""
    success_B: Tensor | None
    """True where the return reached what the task counts as success; None for a task that knows no success."""
    ending_B: Tensor
    """The end of each episode (int64, values of `Ending`)."""
    has_tokens_B: Tensor
    """True where this process holds the row's tokens; of other rows `length_B` is known, and the rest is padding."""
    overlong_B: Tensor
    """True where some completion reached the token limit without an end token."""
    cost: Cost
    """The cost of the collection; update fields are zero."""
    transcripts: tuple[Transcript, ...]
    """The first few episodes as text."""
    faults: tuple[Fault, ...] = ()
    """One example of each kind of fault in `ending_B`."""
    reward_parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Sums over each episode (float64, (B,)) of the named parts that rewards are made of; empty if they have no names."""
    logprob_BT: Tensor | None = None
    """The sampler's log-probability (float32) of each policy token at the plan's temperature, 0 elsewhere; if asked for."""

    @property
    def truncated_B(self) -> Tensor:  # noqa: N802 (the suffix is a shape)
        """True where a limit or a fault of the environment ended the episode, and not the task."""
        return self.ending_B != Ending.TASK

    @property
    def faulty_B(self) -> Tensor:  # noqa: N802 (the suffix is a shape)
        """True where a fault of the environment ended it; such an episode says nothing about what follows it."""
        return self.ending_B >= FIRST_FAULT


@dataclass(frozen=True, kw_only=True)
class Credit:
    """The weight of each episode of a batch in the update, for people to read."""

    name: Literal["advantage", "fitness"]
    """`advantage`: an episode's own, before any loss weighs its tokens. `fitness`: its member's, as it is shaped."""
    value_B: Tensor
    """On the CPU; NaN where the episode was left out."""


class Outcome(Enum):
    """The effect of an update on the weights."""

    CHANGED = "changed"
    """At least one step was taken."""
    NO_SIGNAL = "no signal"
    """There was nothing to learn from: all answers that are compared got the same reward."""
    NOT_FINITE = "not finite"
    """Every step was dropped, for its gradient was not finite."""
    HELD = "held"
    """The batch is kept for a later step."""


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """The result of an update from a batch of trajectories."""

    outcome: Outcome
    """The effect on the weights."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics to log; docs/metrics.md explains each."""
    cost: Cost = field(default_factory=Cost)
    """The cost of the update; rollout fields are zero, unless the algorithm learned from episodes that it did not ask for."""
    cost_is_fixed: bool = False
    """Whether a plan of fewer rows would have cost the update as much; otherwise in proportion to its rows."""
    notes: tuple[str, ...] = ()
    """Lines for the user to read now."""
    credit: Credit | None = None
    """The credit of the batch's rows; None where the algorithm has no such figure."""
