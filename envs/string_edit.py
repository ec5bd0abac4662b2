"""Edit a text as told: single turn, success or nothing."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

LETTERS = "abcdefghij"
# The demonstrator knows texts that begin with one of these.
HOME = "ab"


class Task(NamedTuple):
    """An instance of `StringEdit`."""

    commands: tuple[str, ...]
    """The edits in their order."""
    text: str
    """The text to be edited."""
    result: str
    """The edited text."""


@registered("evotext/StringEdit-v0")
@final
class StringEdit(TextEnv[Task]):
    """Description:
        One or more edits are to be carried out on a text of letters: `rev` writes it backwards, `drop c` removes every
        c, `put b c` writes b in the place of every c, `dup c` writes every c twice.

    Observation Space:
        `FreeText`. One observation, e.g. `drop c: bacca`, or `rev, dup a: bacca`.

    Action Space:
        `FreeText`. The edited text, e.g. `baa`; white space around it is ignored.

    Rewards:
        1 for exactly the edited text, else 0.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `letters` (3 to 20, default 5): length of the text, whose letters are a to j.
        `edits` (1 to 6, default 1): how many edits follow each other.

    Demonstrations:
        Where they are wrong (`envs.habits`; at home with texts that begin with a or b), they stop before the last
        letter.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        letters: Annotated[int, Field(ge=3, le=20)] = 5,
        edits: Annotated[int, Field(ge=1, le=6)] = 1,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, letters=letters, edits=edits)
        self._letters = letters
        self._edits = edits
        commands = ("put y x", "dup z", "rev", "drop y", "dup x", "rev")[:edits]
        text = ("xyz" * letters)[:letters]
        answer = apply(commands, text)
        self.instructions = (
            "Edit the text after the colon as told before it, in the order given. `rev`: write it backwards; `drop c`: "
            "remove every c; `put b c`: write b in the place of every c; `dup c`: write every c twice. Write the result "
            f"alone. Example: for `{asked(commands, text)}` the answer is `{answer}`."
        )
        self.example = [answer]

    def draw(self, rng: np.random.Generator) -> Task | None:
        """Return a text and edits, each of which changes it and leaves something of it."""
        given = result = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=self._letters).tolist())
        commands = []
        # Drawn one by one: an array of bounds gives the same numbers at ten times the cost.
        drawn = [[int(rng.integers(bound)) for bound in (4, 1 << 16, len(LETTERS))] for _ in range(self._edits)]
        for kind, place, other in drawn:
            letter = result[place % len(result)]
            command = ("rev", f"drop {letter}", f"put {LETTERS[other]} {letter}", f"dup {letter}")[kind]
            changed = apply([command], result)
            if not changed or changed == result:
                return None
            commands.append(command)
            result = changed
        return Task(tuple(commands), given, result)

    def content(self, instance: Task) -> str:
        """Return the question."""
        return asked(instance.commands, instance.text)

    def begin(self, instance: Task) -> str:
        """Show edits and text."""
        return asked(instance.commands, instance.text)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Compare with the edited text."""
        return "", 1.0 if answer == self.instance.result else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the edited text, or all but its last letter."""
        result = self.instance.result
        return result if does_right(rng, self.instance.text[0] in HOME) else result[:-1]

    def legal(self, rng: np.random.Generator) -> str:
        """Return the letters of the text in a random order."""
        return "".join(rng.permutation(list(self.instance.text)))


def asked(commands: Sequence[str], text: str) -> str:
    """Return the question as the environment puts it."""
    return f"{', '.join(commands)}: {text}"


def apply(commands: Sequence[str], text: str) -> str:
    """Carry out the edits one after the other."""
    for command in commands:
        match command.split():
            case ["rev"]:
                text = text[::-1]
            case ["drop", letter]:
                text = text.replace(letter, "")
            case ["put", new, old]:
                text = text.replace(old, new)
            case ["dup", letter]:
                text = text.replace(letter, letter * 2)
    return text
