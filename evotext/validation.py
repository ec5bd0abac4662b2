"""Hyperparameter types. A constructor decorated with `checked`, or a class of fields with `checked_record`, rejects wrong
types and values out of range.

The command line turns the resulting `pydantic.ValidationError` into one line (`evotext.cli.command`).
Strict: a string is never taken for a number, nor a boolean for an integer; an integer is accepted as a float.
"""

from typing import Annotated, TypeVar, cast, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field, validate_call

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
MinP = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
_Record = TypeVar("_Record")

checked = validate_call(config=_STRICT)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def checked_record(fields: type[_Record]) -> type[_Record]:
    """Make a class of annotated fields a frozen record, made by keywords, that checks their values.

    A check of several fields goes into `__post_init__`, which may raise ValueError.
    """
    return cast(type[_Record], pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_STRICT)(fields))
