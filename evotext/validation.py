"""Hyperparameter types. A constructor decorated with `checked` rejects wrong types and values out of range.

The command line turns the resulting `pydantic.ValidationError` into one line (`evotext.cli.command`).
Strict: a string is never taken for a number, nor a boolean for an integer; an integer is accepted as a float.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, validate_call

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

checked = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))
