"""One episode of a task, answered by anyone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import gymnasium

from evotext.rollouts.collector import ROUNDING
from evotext.rollouts.environment_calls import scored_alone
from evotext.rollouts.task import TextTask
from evotext.types import Ending, Split

SPLIT: Split = "test"
Turn = tuple[str, str]
"""Pairs of what the environment said and what was answered."""


class Player(Protocol):
    """Whoever answers."""

    def answer(self, instructions: str, turns: Sequence[Turn], observation: str) -> str:
        """Return the answer to the observation. turns: those of the episode before it."""

    def watch(self, turns: Sequence[Turn], episode_return: float) -> None:
        """Hear how the episode ended."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """An episode that has ended."""

    instance: int
    """The environment seed."""
    instructions: str
    turns: tuple[Turn, ...]
    episode_return: float
    success: bool | None
    """None for a task that knows no success."""
    ending: Ending

    def to_json(self) -> dict[str, object]:
        """Return the transcript as a line of a file has it."""
        return {
            "instance": self.instance,
            "return": self.episode_return,
            "success": self.success,
            "ending": self.ending.label,
            "instructions": self.instructions,
            "turns": [{"observation": said, "answer": answered} for said, answered in self.turns],
        }


def play(task: TextTask, env: gymnasium.Env[str, str], player: Player, instance: int) -> Played:
    """Return the held-out episode of this seed, once the player has played it. Raise what environment and player raise."""
    observation, info = env.reset(seed=instance, options={"split": SPLIT})
    instructions = str(info.get("instructions", ""))
    turns: list[Turn] = []
    total, ending = 0.0, Ending.TURN_LIMIT
    while len(turns) < task.max_turns and ending is Ending.TURN_LIMIT:
        answer = player.answer(instructions, turns, observation)
        turns.append((observation, answer))
        observation, reward, terminated, truncated, _ = env.step(answer)
        total += float(reward) + scored_alone(env)
        if terminated or truncated:
            ending = Ending.TASK if terminated else Ending.ENVIRONMENT_LIMIT
    player.watch(turns, total)
    goal = task.success_return
    return Played(
        instance=instance,
        instructions=instructions,
        turns=tuple(turns),
        episode_return=total,
        success=None if goal is None else total >= goal - ROUNDING,
        ending=ending,
    )
