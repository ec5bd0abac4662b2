"""The tasks of the reasoning-gym package (Stojanovski et al. 2025), one question an episode."""

from typing import Any, final

import gymnasium

from evotext.cli.messages import suggestion
from evotext.library import optional
from evotext.validation import checked

from ..spaces import FreeText
from ..text_env import WHITE_SPACE, RenderMode, chosen_split, split_of

# Their scorers hand the model's text to Python's eval, or to sympy's parse_expr, which calls it.
EVALUATED = frozenset(
    {
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
# Its scorer compares the truth values of two texts, so that anything at all is paid.
TAKES_ANYTHING = "game_of_life_halting"
MOST_DRAWS = 1000
ITEMS = 2**31


@final
class ReasoningGym(gymnasium.Env[str, str]):
    """Description:
        One question of a reasoning-gym task, answered once and scored by reasoning-gym.

    Observation Space:
        `FreeText`. The question as reasoning-gym words it.

    Action Space:
        `FreeText`. The answer; white space around it is ignored.

    Rewards:
        1 for a score of 1 and else 0 with `strict_reward`; without it, reasoning-gym's score, which pays for a right
        answer within a longer text and in some tasks for any answer at all.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `task`: a name from `reasoning_gym.factory.DATASETS`.
        `strict_reward`: see Rewards.
        Others go to the task's own configuration, e.g. `max_animals=5`.
        Raises ImportError without reasoning-gym, and ValueError for an unknown task, for settings that it does not take,
        and for a task whose scorer would evaluate the model's text.

    Instances:
        A seed decides the number of an item, spread over 2**31, since reasoning-gym's neighbouring seeds share nearly all
        items. A hash of the question decides its split, so that training and test questions never meet.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    @checked
    def __init__(
        self, *, task: str, strict_reward: bool = True, render_mode: RenderMode = None, **settings: Any
    ) -> None:
        library = optional("reasoning_gym", "reasoning-gym")
        known = optional("reasoning_gym.factory", "reasoning-gym").DATASETS
        if task in EVALUATED:
            raise ValueError(
                f"task: expected a task whose scorer only reads answers, got {task!r}, whose scorer passes them to "
                "Python's eval; choose another task"
            )
        if task == TAKES_ANYTHING and strict_reward:
            raise ValueError(
                f"task: expected a task that tells answers apart, got {task!r}, which pays for every text; "
                "choose another task, or strict_reward=false to have it all the same"
            )
        if task not in known:
            raise ValueError(
                f"task: expected one of reasoning-gym's {len(known)} tasks, got {task!r}{suggestion(task, known)}"
            )
        try:
            self._items = library.create_dataset(task, seed=0, **settings)
        except (TypeError, AssertionError) as error:
            raise ValueError(f"env: reasoning-gym's {task} does not accept these settings: {error}") from error
        self.observation_space = self.action_space = FreeText()
        self.render_mode = render_mode
        self._strict = strict_reward
        self._item: dict[str, Any] | None = None
        self._answer: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Ask; the same seed and split give the same question."""
        super().reset(seed=seed)
        split = chosen_split(options)
        for _ in range(MOST_DRAWS):
            self._item, self._answer = self._drawn(int(self.np_random.integers(ITEMS))), None
            if split_of(self._item["question"]) == split:
                return self._item["question"], {}
        raise ValueError(
            f"expected questions in the {split} split, found none in {MOST_DRAWS} draws: choose other settings"
        )

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score the answer."""
        if self._item is None or self._answer is not None:
            raise gymnasium.error.ResetNeeded("expected a running episode: call reset() first")
        self._answer = action
        score = float(self._items.score_answer(action.strip(WHITE_SPACE), self._item))
        return "", float(score >= 1) if self._strict else score, True, False, {}

    def render(self) -> str | None:
        """Return question and answer, with `render_mode="ansi"`."""
        if self.render_mode is None:
            return None
        question = self._item["question"] if self._item else "no episode has begun"
        return question if self._answer is None else f"{question}\n> {self._answer!r}"

    def _drawn(self, number: int) -> dict[str, Any]:
        """Return an item; of a task with a fixed list, the item at this place of the list repeated."""
        try:
            item: dict[str, Any] = self._items[number]
        except IndexError:
            item = self._items[number % len(self._items)]
        return item
