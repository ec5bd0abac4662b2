"""Answer correctly in as few characters as possible: single turn, success or nothing.

After the conciseness task of Qiu et al. (arXiv 2509.24372), where the reward falls with the distance of an answer's
length from the shortest correct one. Here it is sparse: the shortest correct answer is paid and no other.
"""

import re
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, Reward, TextEnv

QUESTIONS = (
    "what follows {n}?",
    "which is next after {n}?",
    "{n}, and then?",
    "count on from {n}",
    "one more than {n}?",
)
WORDY = ("it is {c}", "I get {c}", "it must be {c}", "that makes {c}")
# The demonstrator knows the first way of asking.
HOME = 0

# A number with its sign, in digits of any script: none may stand beside the right number.
_NUMBER = re.compile(r"[-−]?\d+")


class Question(NamedTuple):
    """An instance of `Conciseness`."""

    way: int
    """The place in `QUESTIONS`."""
    number: int
    """The number whose successor is asked for."""


@registered("evotext/Conciseness-v0")
@final
class Conciseness(TextEnv[Question]):
    """Description:
        A simple question is to be answered correctly and as briefly as possible. Whole sentences are correct, but only
        the shortest answer is paid.

    Observation Space:
        `FreeText`. One observation, e.g. `what follows 437?`.

    Action Space:
        `FreeText`. An answer, which is correct if one number stands in it and that is the right one. White space around
        the answer is ignored.

    Rewards:
        1 for a correct answer that is at most `slack` characters longer than the shortest one, else 0. With
        `wordy_reward` in two parts: `correct`, that much for a correct answer of any length, and `brief`, the rest.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `largest` (99 to 99999, default 999): the number in the question is 1 to this.
        `slack` (0 to 40, default 0): by how many characters an answer may exceed the shortest one.
        `wordy_reward` (0 to 0.5, default 0): paid for a correct answer, however long.

    Demonstrations:
        All are correct. Where they are wrong (`envs.habits`; at home with questions that begin with `what`),
        they are sentences.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        largest: Annotated[int, Field(ge=99, le=99_999)] = 999,
        slack: Annotated[int, Field(ge=0, le=40)] = 0,
        wordy_reward: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, largest=largest, slack=slack, wordy_reward=wordy_reward)
        self._wordy_reward = wordy_reward
        self._largest = largest
        self._slack = slack
        allowed = f"at most {slack} characters longer than" if slack else "as short as"
        self.instructions = (
            f"Answer the question correctly in as few characters as you can: an answer counts if it is {allowed} the "
            "shortest correct one. Example: for `what is before 2?` the best answer is `1`."
        )
        self.example = ["1"]

    def draw(self, rng: np.random.Generator) -> Question:
        """Return a way of asking and a number."""
        way, number = rng.integers((len(QUESTIONS), self._largest)).tolist()
        return Question(way, number + 1)

    def content(self, instance: Question) -> str:
        """Return the number, however the next one is asked for."""
        return str(instance.number)

    def begin(self, instance: Question) -> str:
        """Ask."""
        self._right = str(instance.number + 1)
        return QUESTIONS[instance.way].format(n=instance.number)

    def respond(self, answer: str) -> tuple[str, Reward, bool]:
        """Pay for the right number in few enough characters."""
        brief = len(answer) <= len(self._right) + self._slack
        if not (brief or self._wordy_reward):  # nothing to look for in it
            return "", 0.0, True
        right = _NUMBER.findall(answer) == [self._right]
        if not self._wordy_reward:
            return "", float(right), True
        return "", {"correct": self._wordy_reward * right, "brief": (1 - self._wordy_reward) * (right and brief)}, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the number alone, or a sentence with it."""
        if does_right(rng, self.instance.way == HOME):
            return self._right
        return WORDY[rng.integers(len(WORDY))].format(c=self._right)

    def legal(self, rng: np.random.Generator) -> str:
        """Return a number that can be right."""
        return str(rng.integers(2, self._largest + 2))
