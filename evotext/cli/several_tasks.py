"""Several tasks by their names: words of ours become Hydra's, which bring in the file of each task with all its keys.

`env=[sort,recall]` becomes `env=mixture +env@env.tasks.sort=sort +env@env.tasks.recall=recall`, and so does `env=mixture
env.tasks={sort:0.7,recall:0.3}`, with `env.shares={sort:0.7,recall:0.3}` besides. Names of one's own come with the task that
they are of, `env.tasks={near:recall,far:recall}`. `evaluation.also` takes the same lists and names.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from evotext.cli.errors import ConfigError
from evotext.cli.messages import shown
from evotext.cli.words import quoted

TASKS = "env.tasks"
PLACES = {"env": TASKS, TASKS: TASKS, "evaluation.also": "evaluation.also"}


def _largest(group: Any, key: str) -> int:
    """Return the greatest value of a key of the groups within a group. For configurations: `${largest:${.tasks},key}`."""
    parts = group.values() if isinstance(group, DictConfig) else ()
    return max((int(part.get(key, 1)) for part in parts if isinstance(part, DictConfig)), default=1)


OmegaConf.register_new_resolver("largest", _largest, replace=True)


def expand_tasks(words: Sequence[str]) -> list[str]:
    """Replace lists and mappings of tasks. Raise ConfigError for those of anything but names of tasks, or shares."""
    return [new for word in words for new in _expanded(word)]


def _expanded(word: str) -> Iterator[str]:
    key, equals, text = word.partition("=")
    place = PLACES.get(key.lstrip("+"))
    value = _listed(word) if place and equals and text[:1] in ("[", "{") else None
    if place is None or value is None:
        yield word
        return
    shares = isinstance(value, dict) and place == TASKS and not any(isinstance(own, str) for own in value.values())
    named = value if isinstance(value, dict) and not shares else dict(zip(value, value, strict=True))
    for name, task in named.items():
        if not (isinstance(name, str) and name.isidentifier() and isinstance(task, str)):
            raise ConfigError(f"{key}: expected names of tasks, got {shown(task if isinstance(name, str) else name)}")
    if key == "env":
        yield "env=mixture"
    yield from (f"+env@{place}.{name}={quoted(task)}" for name, task in named.items())
    if shares:
        yield f"env.shares={text}"


def _listed(word: str) -> list[Any] | dict[Any, Any] | None:
    """Return the list or mapping that a word gives, None if it gives something else."""
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:  # which Hydra will say
        return None
    return value if isinstance(value, list | dict) else None
