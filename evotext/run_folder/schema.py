"""The schema of `summary.json` and of the lines of `metrics.jsonl` and `episodes.jsonl`.

Any field may be absent: older runs did not write all of them. Unknown fields are let pass: newer runs may write more.
Validation is strict, so that writing and reading agree. With a list as pydantic's `context` it forgives instead: a wrong
value is left out and described in that list.

    Summary.model_validate(record)                      raises pydantic.ValidationError
    Summary.model_validate(record, context=problems)    raises it for what is no mapping alone
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from evotext.run_folder.older import newer
from evotext.run_folder.text import clean

Status = Literal["completed", "interrupted", "pruned", "failed"]
"""The end of a run."""
Phase = Literal["reporting", "tuning"]
"""The purpose of a run: to be compared, or to choose hyperparameters, in which case no comparison shows it."""
Keep = Literal["last", "best"]
"""The weights that become a run's `model/`."""
EvaluationSplit = Literal["test", "validation"]
"""The instances that were measured: held-out ones, or those that hyperparameters are chosen by."""
INSTANCES: Mapping[EvaluationSplit, str] = {"test": "held-out", "validation": "validation"}
"""A split in words."""


def _finite(value: float) -> float:
    try:
        if math.isfinite(float(value)):
            return value
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise ValueError("expected a finite number")


# Integers stay integers, so that counts are written as such.
Number = Annotated[int | float, AfterValidator(_finite)]
Amount = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A record that is strict, or forgiving if the context is a list of problems."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @field_validator("*", mode="wrap")
    @classmethod
    def _forgiven(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if info.context is None:
                raise
            assert info.field_name is not None
            field = cls.model_fields[info.field_name]
            wrong = {place["loc"][0] for place in error.errors() if place["loc"]}
            if isinstance(value, dict) and wrong & value.keys():  # of a mapping the rest stays
                for key in (key for key in value if key in wrong):
                    info.context.append(_complaint(key, value[key]))
                return handler({key: item for key, item in value.items() if key not in wrong})
            info.context.append(_complaint(field.alias or info.field_name, value))
            return field.get_default(call_default_factory=True)


def _complaint(name: object, value: object) -> str:
    return f"{clean(name)} is {clean(value) or type(value).__name__}, which it cannot be"


class BudgetRecord(Record):
    """The budget of a run."""

    unit: str | None = None
    limit: Amount | None = None
    spent: Amount | None = None
    """More than the limit if the last generation's episodes were longer than those before."""


class TaskRecord(Record):
    """Scores on a task before training and at the end; null where there was none, or where the task knows no success."""

    return_before: Number | None = None
    return_after: Number | None = None
    success_before: Share | None = None
    success_after: Share | None = None


class EvaluationRecord(TaskRecord):
    """All measurements of a run."""

    return_best: Number | None = None
    success_best: Share | None = None
    """Success of the best measurement: the greatest of several, and so too good where they chose what was saved."""
    best_generation: Count | None = None
    episodes: Count | None = None
    decoding: str | None = None
    """`greedy`, or `temperature T` and how it is truncated: `, top-p P`, `, min-p P`."""
    split: EvaluationSplit | None = None
    samples: Count | None = None
    """Further answers to each instance, for pass@k."""
    pass_at_before: dict[Annotated[int, Strict(False), Field(gt=0)], Share] = Field(default_factory=dict)
    """Shares by k, which JSON writes as text."""
    pass_at_after: dict[Annotated[int, Strict(False), Field(gt=0)], Share] = Field(default_factory=dict)
    sampled_return_before: Number | None = None
    sampled_return_after: Number | None = None
    by_task: dict[str, TaskRecord] = Field(default_factory=dict)
    """Scores of each task of a mixture, and of further tasks that were measured, by their names."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_run(cls, record: Any) -> Any:
        return newer(record) if isinstance(record, dict) else record


class Summary(Record):
    """`summary.json`: what a run was, how it ended and what it cost."""

    algorithm: str | None = None
    env: str | None = None
    model: str | None = None
    seed: int | None = None
    phase: Phase | None = None
    status: Status | None = None
    reason: str | None = None
    """Why it ended before its budget was spent."""
    budget: BudgetRecord = Field(default_factory=BudgetRecord)
    eval: EvaluationRecord = Field(default_factory=EvaluationRecord)
    cost: dict[str, Amount] = Field(default_factory=dict)
    """Totals by the names of `evotext.run_folder.cost.COSTS`."""
    evaluation_cost: dict[str, Amount] = Field(default_factory=dict)
    """Totals by the names of `AXES`."""
    faults: dict[str, Count] = Field(default_factory=dict)
    """Training episodes that a fault of the environment ended, by kind."""
    evaluation_faults: dict[str, Count] = Field(default_factory=dict)
    """The same of measured episodes."""
    saved_generation: Count | None = None
    """The generation whose weights are in `model/`: the last, or that of the best measurement (`keep=best`)."""
    dropped_generations: Count | None = None
    resumes: Count | None = None
    notes: list[str] = Field(default_factory=list)
    """Lines that the user was told and that bear on the result."""
    processes: Count | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    device: str | None = None


class Line(Record):
    """A line of `metrics.jsonl`: a generation, or a measurement. Whatever else is in it is a figure under its own name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    kind: str | None = None
    """`train` or `eval`."""
    generation: Count | None = None
    """Generations finished."""
    updates: Count | None = None
    """Changes of the weights until then."""
    episodes: Amount | None = None
    generated_tokens: Amount | None = None
    seconds: Amount | None = None
    flops: Amount | None = None
    success: Share | None = Field(default=None, alias="eval/success")
    mean_return: Number | None = Field(default=None, alias="eval/return")
    spent: Amount | None = Field(default=None, alias="eval/spent")
    """Share of the budget."""


class EpisodesLine(Record):
    """A line of `episodes.jsonl`."""

    generation: Count | None = None
    texts: list[str] = Field(default_factory=list)


class TrainingEpisode(Record):
    """A line of `episodes.jsonl` with an episode of training."""

    split: Literal["train"] = "train"
    """Distinguishes it from an `EpisodesLine`."""
    generation: Count | None = None
    """Generations finished with the one that it is of."""
    instance: Count | None = None
    """The environment seed."""
    group: Count | None = None
    """Episodes with the same number answer the same instance."""
    member: Count | None = None
    """The member of the population that it ran as; null without one."""
    episode_return: Number | None = None
    reward_parts: dict[str, Number] = Field(default_factory=dict)
    """The named parts of its return; empty if they have no names."""
    advantage: Number | None = None
    """The weight of the episode in the update; null where it was left out, or where an ES is trained."""
    fitness: Number | None = None
    """The weight of its member in the update, after shaping; null where the algorithm is no ES."""
    text: str = ""
    """The dialogue and the figures, for people to read."""
