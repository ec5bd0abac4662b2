"""The words of commands with settings but no Hydra configuration: `key=value`, `--help`, and further arguments."""

import argparse
from collections.abc import Sequence
from typing import NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.messages import one_line, shown, suggestion


class Settings(BaseModel):
    """The settings of a command, given as `key=value`. Pydantic turns the text into each field's type."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _listed(text: object) -> object:
    if not isinstance(text, str):
        return text
    return [part.strip() for part in text.removeprefix("[").removesuffix("]").split(",")]


Listed = BeforeValidator(_listed)
"""Annotates a list that is written `a,b` or `[a,b]`: `Annotated[list[int], Listed]`."""
S = TypeVar("S", bound=Settings)


def read(words: Sequence[str], kind: type[S], *, description: str | None) -> tuple[S, list[str]]:
    """Return the settings that the words make, and the words that are no settings. `--help` prints the description and exits.

    Raise ConfigError for a value that does not fit, and for a flag.
    """
    parser = argparse.ArgumentParser(
        description=description, usage=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{one_line(message)}; see --help")

    parser.error = refuse  # type: ignore[method-assign]
    arguments, flags = parser.parse_known_intermixed_args(words)
    keys = list(kind.model_fields)
    if flags:
        raise ConfigError(
            f"expected key=value, got {shown(flags[0])}{suggestion(flags[0].lstrip('-'), keys)}; see --help"
        )
    given, others = {}, []
    for word in arguments.words:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            others.append(word)
        elif not value:
            raise ConfigError(f"{key}: expected a value, got nothing")
        else:
            given[key] = value
    with configuration():
        return kind.model_validate_strings(given), others
