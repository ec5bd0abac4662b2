"""Arithmetic that is too large for a model's head, to be done by a tool (`envs.tools`)."""

from typing import Annotated, Any, final

import gymnasium
from pydantic import Field

from evotext.validation import checked

from . import expressions
from .spaces import FreeText
from .text_env import MOST_DRAWS, WHITE_SPACE, RenderMode, chosen_split, split_of

OPERATORS = "+-*"


@final
class Calculator(gymnasium.Env[str, str]):
    """Description:
        Arithmetic with large numbers, e.g. `4821 * 7390 - 5512 * 3301`. Alone it takes a good head; in
        `conf/env/calculator.yaml` the wrapper `envs.tools.ToolCalls` gives it a calculator. It is no native task: the
        built-in model has no demonstrations of it.

    Observation Space:
        `FreeText`. The expression, with the usual order of operations.

    Action Space:
        `FreeText`. The value, in digits; white space around it is ignored.

    Rewards:
        1 for the value and else 0.

    Episode End:
        Terminates after the first answer; calls of the tool are none.

    Arguments:
        `numbers` (2 to 8, default 4): how many numbers.
        `digits` (1 to 4, default 4): of each number.

    Instances:
        A seed draws numbers and operators, of which at least one multiplies. A hash of the expression decides its split.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    @checked
    def __init__(
        self,
        *,
        numbers: Annotated[int, Field(ge=2, le=8)] = 4,
        digits: Annotated[int, Field(ge=1, le=expressions.LONGEST_NUMBER)] = 4,
        render_mode: RenderMode = None,
    ) -> None:
        self.observation_space = self.action_space = FreeText()
        self.render_mode = render_mode
        self._numbers, self._least, self._above = numbers, 10 ** (digits - 1), 10**digits
        self._question = self._value = ""
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Ask; the same seed and split give the same expression."""
        super().reset(seed=seed)
        split = chosen_split(options)
        for _ in range(MOST_DRAWS):
            question = self._drawn()
            if "*" in question and split_of(question) == split:
                break
        else:
            raise ValueError(f"expected expressions in the {split} split, found none in {MOST_DRAWS} draws")
        result = expressions.evaluate(question)
        assert result is not None, "what is drawn is well-formed"
        self._question, self._value, self._running = question, str(result.value), True
        return question, {"instructions": "Write the value of the expression as an integer in digits, nothing else."}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Compare the answer with the value."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("expected a running episode: call reset() first")
        self._running = False
        return "", float(action.strip(WHITE_SPACE) == self._value), True, False, {}

    def render(self) -> str | None:
        """Return the question, with `render_mode="ansi"`."""
        return None if self.render_mode is None else self._question or "no episode has begun"

    def _drawn(self) -> str:
        numbers = self.np_random.integers(self._least, self._above, size=self._numbers).tolist()
        operators = self.np_random.integers(len(OPERATORS), size=self._numbers - 1).tolist()
        parts = [f"{OPERATORS[o]} {n}" for o, n in zip(operators, numbers[1:], strict=True)]
        return " ".join([str(numbers[0]), *parts])


gymnasium.register(
    id="evotext/Calculator-v0",
    entry_point=f"{__name__}:Calculator",
    reward_threshold=1.0,
    order_enforce=False,
    disable_env_checker=True,
)
