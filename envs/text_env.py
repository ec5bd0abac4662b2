"""The base of the native tasks: seeding, disjoint splits, turns, rendering and demonstrations in one place.

A task is a final subclass in a file of its own: its constructor's options, `instructions`, `example`, `draw`,
`content`, `begin`, `respond`, `imitate` and `legal`, and the decorator `registered` of `envs.registration`.

Splits. A stable hash of an instance's content says whether it is a training or a test instance (about 1 in 4), and
instances are drawn until one is of the wanted split, so no seed of one split can ever meet an instance of the other.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from evotext.rollouts.reward_parts import KEY

from .spaces import FreeText

Instance = TypeVar("Instance", bound=Hashable)
RenderMode = Literal["ansi"] | None
Turn = tuple[str, str]
"""The turns so far: observation and answer."""

Reward = float | Mapping[str, float]
"""A number, or named parts that add up to it."""

SPLITS = ("train", "test")
TEST_SHARE = 64  # of the 256 values of the hash's byte
MOST_DRAWS = 10_000
WHITE_SPACE = " \t\r\n"
LONGEST_LINE = 200

# A seeded instance is a pure function of (task, difficulty, split, seed), and a population runs the same one many times
# over. Kept with the generator's state after drawing it, so that a hit leaves `np_random` exactly as a miss does, at a
# tenth of the cost of seeding a generator.
_known: dict[tuple[Hashable, ...], tuple[Any, Mapping[str, Any]]] = {}
MOST_KNOWN = 4096


class TextEnv(gymnasium.Env[str, str], ABC, Generic[Instance]):
    """A Gymnasium environment of texts: it gives a text and takes a text, for one or more turns.

    `reset` takes `options={"split": "train" | "test"}` (default: train); its `info["instructions"]` holds the task in
    plain language for a model that reads: rules, answer format and an example. Observations are terse. White space
    around an answer is ignored, nothing else. The return of an episode is at most the registered `reward_threshold`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    practice: int = 1
    """Demonstrations of the task in each round of the warm-up: more for a skill that takes more."""
    reads_the_end: bool = False
    """Whether the answer is looked for at the end of a longer text, so that what stands before it is free."""
    instructions: str
    """Rules, answer format and a worked example, for any instance of these options. The subclass's constructor sets it."""
    example: Sequence[str]
    """The answers of that example, turn by turn. No instance is drawn that would pay for them. Set likewise."""
    instance: Instance
    """The running episode's instance."""
    turn: int
    """Answers that the running episode has had."""

    def __init__(self, render_mode: RenderMode, **difficulty: Hashable) -> None:
        """Take the options that decide which instances there are; environments with equal options have equal ones."""
        self.render_mode = render_mode
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._difficulty = tuple(difficulty.items())
        self._running = False
        self._observations: list[str] = []
        self._answers: list[str] = []
        self._return = 0.0

    # The subclass's part: the task itself.

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Instance | None:
        """Draw one immutable instance, from `rng` alone; None asks for another draw."""

    @abstractmethod
    def content(self, instance: Instance) -> str:
        """Return what makes two instances the same. Instances of equal content fall into the same split."""

    @abstractmethod
    def begin(self, instance: Instance) -> str:
        """Start an episode on `instance` and return the first observation."""

    @abstractmethod
    def respond(self, answer: str) -> tuple[str, Reward, bool]:
        """Return the next observation, the reward and whether the task has ended. Total and linear in `answer`, any text."""

    @abstractmethod
    def imitate(self, rng: np.random.Generator) -> str:
        """Return the demonstrator's answer in the running episode's current turn (`demonstrate`)."""

    @abstractmethod
    def legal(self, rng: np.random.Generator) -> str:
        """Return a random answer in the form that the current turn asks for: the floor of a policy that knows the rules."""

    # The part that all tasks share.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode; the same seed and split give the same instance.

        Raise ValueError for an unknown option or split, and when the difficulty leaves the split without instances.
        """
        split = chosen_split(options)
        if seed is None:
            instance = self._draw(self.np_random, split)
        else:
            instance = self._seeded(seed, split)
        return self._start(instance), {"instructions": self.instructions}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer the last observation. The observation after an episode's last answer is empty."""
        if not self._running:
            raise ResetNeeded("expected a running episode, but none has begun or it has ended: call reset() first")
        if not isinstance(action, str):
            raise TypeError(f"expected a str as the answer, got {type(action).__name__}: decode token ids first")
        observation, paid, terminated = self.respond(action.strip(WHITE_SPACE))
        reward, info = total(paid)
        self.turn += 1
        self._answers.append(action)
        self._observations.append(observation)
        self._return += reward
        self._running = not terminated
        return observation, reward, terminated, False, info

    def render(self) -> str | None:
        """Return the episode so far as lines for a terminal (with `render_mode="ansi"`), control characters escaped."""
        if self.render_mode is None:
            return None
        lines = [type(self).__name__ + "".join(f"  {name}={value}" for name, value in self._difficulty)]
        for i, observation in enumerate(self._observations):
            if observation:
                first, *rest = map(_printable, observation.split("\n"))
                lines += [f"  task  | {first}", *(f"        | {line}" for line in rest)]
            if i < len(self._answers):
                lines.append(f"  model | {_printable(self._answers[i])}")
        if not self._observations:
            lines.append("  no episode has begun")
        elif not self._running:
            lines.append(f"  ended after turn {self.turn} with return {self._return:g}")
        return "\n".join(lines)

    def demonstrate(self, rng: np.random.Generator) -> list[Turn]:
        """Play one episode of a training instance by `imitate` and return its turns.

        Demonstrations teach a small model the formats and the skill, but not the habit: they mix behaviours, so that a
        perfect imitator succeeds in 0.1 to 0.3 of the episodes, both when it samples at temperature 1 and when it
        takes the likeliest token each time. The episode is the environment's running one, and has ended.
        """
        observation = self._start(self._draw(rng, "train"))
        turns = []
        while self._running:
            answer = self.imitate(rng)
            turns.append((observation, answer))
            observation = self.step(answer)[0]
        return turns

    def _seeded(self, seed: int, split: str) -> Instance:
        """Return the instance of this seed; leave `np_random` as `super().reset(seed=seed)` and the draws do."""
        key = (type(self), self._difficulty, split, seed)
        known = _known.get(key) if type(seed) is int else None
        # A generator that was set from outside (its seed then reads -1) may have other users: never rewind that one.
        if known is None or self._np_random is None or self._np_random_seed == -1:
            super().reset(seed=seed)
            instance = self._draw(self.np_random, split)
            assert self._np_random is not None, "super().reset(seed=...) has made it"
            if len(_known) >= MOST_KNOWN:
                _known.clear()
            _known[key] = instance, self._np_random.bit_generator.state
            return instance
        instance, state = known
        self._np_random.bit_generator.state = state
        self._np_random_seed = seed
        return instance

    def _draw(self, rng: np.random.Generator, split: str) -> Instance:
        """Draw until an instance falls into the split and does not pay for the example's answers."""
        for _ in range(MOST_DRAWS):
            instance = self.draw(rng)
            if instance is None or split_of(self.content(instance)) != split:
                continue
            if self.score(instance, self.example) <= 0:
                return instance
        difficulty = ", ".join(f"{name}={value!r}" for name, value in self._difficulty)
        raise ValueError(
            f"expected instances in the {split} split of {type(self).__name__}, found none in {MOST_DRAWS} draws with "
            f"{difficulty}: choose options that allow more instances"
        )

    def score(self, instance: Instance, answers: Sequence[str]) -> float:
        """Return the return of `instance` for these answers, turn by turn; 0 for turns without one. Ends a running episode."""
        self._running = False
        self.instance, self.turn = instance, 0
        self.begin(instance)
        earned = 0.0
        for answer in answers:
            _, paid, terminated = self.respond(answer.strip(WHITE_SPACE))
            self.turn += 1
            earned += total(paid)[0]
            if terminated:
                break
        return earned

    def _start(self, instance: Instance) -> str:
        self.instance, self.turn = instance, 0
        observation = self.begin(instance)
        self._running = True
        self._observations = [observation]
        self._answers = []
        self._return = 0.0
        return observation


def total(paid: Reward) -> tuple[float, dict[str, Any]]:
    """Return the reward and, if it is made of parts, the `info` that names them."""
    return (sum(paid.values()), {KEY: dict(paid)}) if isinstance(paid, Mapping) else (paid, {})


def split_of(content: str) -> str:
    """Return the split that an instance of this content belongs to, on every machine and in every version."""
    return "test" if hashlib.blake2b(content.encode(), digest_size=1).digest()[0] < TEST_SHARE else "train"


def chosen_split(options: dict[str, Any] | None) -> str:
    """Return the split that these options of `reset` ask for. Raise ValueError for unknown options and splits."""
    if not options:
        return "train"
    if unknown := set(options) - {"split"}:
        raise ValueError(f"expected no reset option but 'split', got {sorted(map(str, unknown))}: leave them out")
    split = options.get("split", "train")
    if split not in SPLITS:
        raise ValueError(f"expected the reset option 'split' to be 'train' or 'test', got {split!r}: use one of them")
    return str(split)


def _printable(text: str) -> str:
    """Return one line, short enough for a terminal, with a model's control sequences shown and not obeyed."""
    start = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST_LINE])
    return start if len(text) <= LONGEST_LINE else f"{start}... ({len(text)} characters)"
