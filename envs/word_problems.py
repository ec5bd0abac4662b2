"""Grade-school problems from templates: a small story with numbers, a final answer that is extracted."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .extraction import after_mark
from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

MARK = "####"
NAMES = ("Ann", "Ben", "Cleo", "Dev", "Eva", "Finn", "Gus", "Hana", "Ida", "Jun")
THINGS = ("figs", "pens", "cups", "hats", "nuts", "keys", "pins", "eggs")
GAINS = ("buys", "finds", "gets")
LOSSES = ("loses", "sells", "gives")
# The demonstrator knows stories about these.
HOME = ("Ann", "Ben")


class Story(NamedTuple):
    """An instance of `WordProblems`."""

    text: str
    """The question."""
    counts: tuple[int, ...]
    """The count after each event; the last is the answer."""


@registered("evotext/WordProblems-v0")
@final
class WordProblems(TextEnv[Story]):
    """Description:
        Somebody has a number of things, to which others come and from which some go; how many are left? The story is
        made from templates. The reply may reason; its final answer is what follows `####`.

    Observation Space:
        `FreeText`. One observation, e.g. `Eva has 7 pens, loses 3, buys 8. Now?`.

    Action Space:
        `FreeText`. Any text with exactly one `####`, after which the final answer stands alone, e.g. `4 12 #### 12`.
        White space around the final answer is ignored.

    Rewards:
        1 if the final answer is exactly the number, in digits, else 0. What stands before `####` is not judged.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `events` (1 to 8, default 2): how often something comes or goes.
        `largest` (5 to 1000, default 12): each number in the story is 1 to this.

    Demonstrations:
        They count along after each event, always correctly. Where they are wrong (`envs.habits`; at home in stories
        about Ann and Ben), their final answer is the count before the last event.

    Version History:
        v0: first version.
    """

    reads_the_end = True

    @checked
    def __init__(
        self,
        *,
        events: Annotated[int, Field(ge=1, le=8)] = 2,
        largest: Annotated[int, Field(ge=5, le=1000)] = 12,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, events=events, largest=largest)
        self._events = events
        self._largest = largest
        story = Story("Kim has 1 box", (1,))
        for k in range(events):
            story = told(story, GAINS[k % 3], 2 + k)
        self.example = [solution(story.counts, story.counts[-1])]
        self.instructions = (
            f"Read the story and say how many there are in the end. You may think first. Finish with `{MARK}` and the "
            f"number alone. Example: for `{asked(story)}` an answer is `{self.example[0]}`."
        )

    def draw(self, rng: np.random.Generator) -> Story | None:
        """Return a story in which the things never run out."""
        name, thing, count = rng.integers((len(NAMES), len(THINGS), self._largest)).tolist()
        story = Story(f"{NAMES[name]} has {count + 1} {THINGS[thing]}", (count + 1,))
        for verb, amount in rng.integers((len(GAINS + LOSSES), self._largest), size=(self._events, 2)).tolist():
            story = told(story, (GAINS + LOSSES)[verb], amount + 1)
        return story if min(story.counts) >= 0 else None

    def content(self, instance: Story) -> str:
        """Return the story."""
        return instance.text

    def begin(self, instance: Story) -> str:
        """Tell the story and ask."""
        return asked(instance)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Compare what follows the mark."""
        return "", 1.0 if after_mark(answer, MARK) == str(self.instance.counts[-1]) else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Count to the end, and give the last count or the one before it."""
        right = does_right(rng, self.instance.text.startswith(HOME))
        return solution(self.instance.counts, self.instance.counts[-1 if right else -2])

    def legal(self, rng: np.random.Generator) -> str:
        """Return a random number as the final answer."""
        return f"{MARK} {rng.integers(self._largest * (self._events + 1) + 1)}"


def told(story: Story, verb: str, amount: int) -> Story:
    """Return the story with one more event."""
    count = story.counts[-1] + (amount if verb in GAINS else -amount)
    return Story(f"{story.text}, {verb} {amount}", (*story.counts, count))


def asked(story: Story) -> str:
    """Return the story with its question."""
    return f"{story.text}. Now?"


def solution(counts: Sequence[int], final: int) -> str:
    """Return the counts after each event, and a final answer."""
    return f"{' '.join(map(str, counts[1:]))} {MARK} {final}"
