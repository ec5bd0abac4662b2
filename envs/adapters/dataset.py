"""Rows of a dataset, one question an episode, with a checker by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, final

import gymnasium

from evotext.library import optional
from evotext.validation import checked

from ..checkers import CHECKERS
from ..spaces import FreeText
from ..text_env import RenderMode, chosen_split
from .rows import Row, rows_of, shared_out

CheckerName = Literal["exact", "number", "choice", "contains", "regex", "math"]
_FIELD = re.compile(r"\{(\w+)\}")


@final
class Dataset(gymnasium.Env[str, str]):
    """Description:
        One row of a dataset: a question, answered once and compared with the row's answer.

    Observation Space:
        `FreeText`. The question, or the prompt template with the row's columns put in.

    Action Space:
        `FreeText`. The answer, in the form that the checker reads (`envs.checkers`).

    Rewards:
        1 if the checker accepts the answer, else 0.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `path`: a .jsonl, .csv or .parquet file, or a name on the Hugging Face Hub.
        `subset`, `split`: of a dataset on the Hub.
        `test_split`: the dataset's split whose rows are held out; with a local file, another file. Null holds out a
        fifth of the questions.
        `question`, `answer`: names of columns.
        `prompt`: a template with columns in braces, e.g. `{question} Think first.`; null: the question alone.
        `checker`: `exact`, `number`, `choice`, `contains`, `regex` or `math`.
        `instructions`: how to answer; null: what the checker says of it.
        Raises ValueError for rows without question or answer, with their number, and for too few rows.

    Instances:
        A seed draws a row of its split, with replacement. Rows that ask the same are in one split. By a hash, a fifth of
        the questions is held out, a tenth is for validation (`options={"split": "validation"}`), and the rest is trained
        on. With `test_split`, that split's rows are held out, training rows that ask the same are left out, and a tenth
        of the other questions is for validation.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["ansi"],
        "render_fps": 1,
        "splits": ("train", "validation", "test"),
    }
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    @checked
    def __init__(
        self,
        *,
        path: str,
        checker: CheckerName,
        subset: str | None = None,
        split: str = "train",
        test_split: str | None = None,
        question: str = "question",
        answer: str = "answer",
        prompt: str | None = None,
        instructions: str | None = None,
        render_mode: RenderMode = None,
    ) -> None:
        if checker == "math":
            optional("math_verify", "math")
        columns = Columns(question=question, answer=answer, prompt=prompt, checker=checker)
        rows = rows_of(path, subset, split)
        held_out = None
        if test_split is not None:
            local = path.endswith((".jsonl", ".csv", ".parquet"))
            held_out = rows_of(test_split, None, split) if local else rows_of(path, subset, test_split)
        self._splits = _shared_out(_Rows(rows), held_out if held_out is None else _Rows(held_out), columns)
        self.observation_space = self.action_space = FreeText()
        self.render_mode = render_mode
        self._checker = CHECKERS[checker]
        self._instructions = self._checker.instructions if instructions is None else instructions
        self._item: Item | None = None
        self._answer: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Ask; the same seed and split give the same row."""
        super().reset(seed=seed)
        validation = bool(options) and options == {"split": "validation"}
        items = self._splits["validation" if validation else chosen_split(options)]
        self._item, self._answer = items[int(self.np_random.integers(len(items)))], None
        return self._item.prompt, {"instructions": self._instructions}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Check the answer."""
        if self._item is None or self._answer is not None:
            raise gymnasium.error.ResetNeeded("expected a running episode: call reset() first")
        self._answer = action
        return "", float(self._checker.right(action, self._item.said)), True, False, {}

    def render(self) -> str | None:
        """Return question and answer, with `render_mode="ansi"`."""
        if self.render_mode is None:
            return None
        asked = self._item.prompt if self._item else "no episode has begun"
        return asked if self._answer is None else f"{asked}\n> {self._answer!r}"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Turns a row into an item."""

    question: str
    answer: str
    prompt: str | None
    checker: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """A row that is ready to be asked."""

    question: str
    """What makes two rows the same."""
    prompt: str
    """The observation."""
    said: Any
    """The answer as the checker has read it."""


class _Rows:
    """Rows as a key of a cache: they are the same as themselves alone."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rows) and self.rows is other.rows

    def __hash__(self) -> int:
        return id(self.rows)


@lru_cache(maxsize=16)
def _shared_out(rows: _Rows, held_out: _Rows | None, columns: Columns) -> Mapping[str, Sequence[Item]]:
    """Return the items of each split; made once for all environments of a task."""
    items = [_item(number, row, columns, "") for number, row in enumerate(rows.rows, 1)]
    test = [_item(n, row, columns, " of the test split") for n, row in enumerate(held_out.rows if held_out else (), 1)]
    return shared_out(items, test if held_out else None, lambda item: item.question, "path")


def _item(number: int, row: Row, columns: Columns, where: str) -> Item:
    """Return the row as an item. Raise ValueError with the row's number if something is missing."""

    def cell(column: str, key: str) -> str:
        value = row.get(column)
        text = "" if value is None else str(value).strip()
        if text and text.encode(errors="replace").decode() == text:
            return text
        what = (
            "one with half a character"
            if text
            else "an empty one"
            if column in row
            else f"the columns {', '.join(map(str, row)) or 'of nothing'}"
        )
        raise ValueError(f"{key}: row {number}{where}: expected the column {column!r} with a text, got {what}")

    question, reference = cell(columns.question, "question"), cell(columns.answer, "answer")
    said = CHECKERS[columns.checker].read(reference)
    if said is None:
        raise ValueError(
            f"answer: row {number}{where}: expected {CHECKERS[columns.checker].wants} for checker={columns.checker}, "
            f"got {reference[:60]!r}; correct the row or choose another checker"
        )
    prompt = question
    if columns.prompt is not None:
        prompt = _FIELD.sub(lambda field: cell(field[1], "prompt"), columns.prompt)
    return Item(question=question, prompt=prompt, said=said)
