"""The arguments of `tune` sorted: words of the command line, and objects that no word can name."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from omegaconf import open_dict, read_write
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evotext.api import environments
from evotext.api.words import NAME, choices_of, words_for
from evotext.cli.assembly import Given
from evotext.cli.composing import Composed
from evotext.cli.errors import ConfigError
from evotext.cli.messages import near, shown, suggestion
from evotext.models.given import GivenModel
from evotext.protocols import Algorithm

_ID = re.compile(r".*(:|/|-v\d+$)")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a caller of `tune` wants."""

    words: tuple[str, ...]
    given: Given
    env: EnvSpec | None
    """Of environments that are given; the words name its id, under which it has to be registered."""

    @property
    def objects(self) -> list[str]:
        """The keys that objects take the place of."""
        found = {"algorithm": self.given.algorithm, "env": self.env, "model": self.given.model}
        return [key for key, value in found.items() if value is not None]

    def describe_objects(self, composed: Composed) -> None:
        """Write into a configuration, for its readers, what stands in the place of its values."""
        config, choices = composed.config, composed.hydra.hydra.runtime.choices
        with open_dict(config), read_write(choices), open_dict(choices):
            if self.given.algorithm is not None:
                kind = type(self.given.algorithm)
                config.algorithm = _described(self.given.algorithm)
                choices.algorithm = kind.__name__
            if self.given.model is not None:
                config.model = {"name": self.given.model.name}
                choices.model = "given"
            if self.env is not None:
                choices.env = self.env.name


def sort_arguments(
    *, model: Any, tokenizer: Any, env: Any, prompts: Any, algorithm: Any, overrides: Mapping[str, Any]
) -> Arguments:
    """Return the words and the objects of these arguments, None for those that are left out. Raise ConfigError."""
    words: list[str] = []
    network, model = _object_in(model)
    if isinstance(network, PreTrainedModel):
        _refuse_settings("model", model, overrides)
        source = _given_model(network, tokenizer)
    else:
        if tokenizer is not None:
            raise ConfigError("tokenizer: expected only beside a model object, whose tokenizer it is; leave it out")
        source = None
        words += _model_words(network, model)

    made, algorithm = _object_in(algorithm)
    if made is None or isinstance(made, str):
        found = None
        words += words_for("algorithm", algorithm) if algorithm is not None else []
    elif isinstance(made, Algorithm) and not isinstance(made, type):
        _refuse_settings("algorithm", algorithm, overrides)
        found = made
    else:
        raise ConfigError(
            f"algorithm: expected one of {', '.join(choices_of('algorithm'))} or an object with start(model, seed), "
            f"got {shown(made)}"
        )

    spec, env_words = _env(*_object_in(env), prompts)
    words += env_words
    for key, value in overrides.items():
        words += words_for(key, value)
    return Arguments(words=tuple(words), given=Given(algorithm=found, model=source), env=spec)


def _object_in(value: Any) -> tuple[Any, Any]:
    """Return what an argument chooses, a mapping by its name, and the argument as it is."""
    return (value.get(NAME) if isinstance(value, Mapping) else value), value


def _refuse_settings(key: str, value: Any, overrides: Mapping[str, Any]) -> None:
    """Raise ConfigError for settings beside an object, which has its own."""
    below = [f"{key}.{name}" for name in value if name != NAME] if isinstance(value, Mapping) else []
    below += [name for name in overrides if name == key or name.startswith((f"{key}.", f"{key}/"))]
    if below:
        raise ConfigError(f"{below[0]}: expected no setting beside an object, which has its own, got one; leave it out")


def _given_model(network: PreTrainedModel, tokenizer: Any) -> GivenModel:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(
            f"tokenizer: expected the tokenizer of the model object, as AutoTokenizer gives it, got {shown(tokenizer)}"
        )
    return GivenModel(network, tokenizer)


def _model_words(name: Any, value: Any) -> list[str]:
    """Return the words for a name of conf/model, or for a path."""
    if value is None:
        return []
    if name is None or (isinstance(name, str) and name in choices_of("model")):
        return list(words_for("model", value))
    if not isinstance(name, str | Path):
        raise ConfigError(
            f"model: expected one of {', '.join(choices_of('model'))}, a hub name, a folder or a transformers model, "
            f"got {shown(name)}"
        )
    close = suggestion(name, choices_of("model")) if "/" not in str(name) and not Path(name).exists() else ""
    if close:
        raise ConfigError(
            f"model: expected one of {', '.join(choices_of('model'))}, a hub name or a folder, got {shown(name)}{close}"
        )
    others = {key: own for key, own in value.items() if key != NAME} if isinstance(value, Mapping) else {}
    return list(words_for("model", {NAME: "hf", "path": str(name), **others}))


def _env(name: Any, value: Any, prompts: Sequence[str] | None) -> tuple[EnvSpec | None, list[str]]:
    """Return the specification of environments that are objects, and the words for these or for a name or id."""
    spec: EnvSpec | None = None
    settings = {key: own for key, own in value.items() if key != NAME} if isinstance(value, Mapping) else {}
    known = choices_of("env")
    if prompts is not None and (not callable(name) or isinstance(name, type)):
        raise ConfigError(f"prompts: expected only beside a reward function as env, got env={shown(name)}")
    if isinstance(name, gymnasium.Env):
        spec = environments.of_instance(name)
    elif isinstance(name, type) and issubclass(name, gymnasium.Env):
        spec = environments.of_class(name)
    elif callable(name) and not isinstance(name, type):
        if prompts is None:
            raise ConfigError(
                "prompts: expected a list of prompts beside a reward function as env, got none; add prompts=[...]"
            )
        spec = environments.of_reward(name, prompts)
        settings = {"max_turns": 1, **settings}
    elif name is not None and not isinstance(name, str | list | tuple):
        raise ConfigError(
            f"env: expected one of {', '.join(known)} or a list of them, an id of Gymnasium's, an environment, its class or a "
            f"reward function, got {shown(name)}"
        )
    if spec is not None:
        # The key `name` of the task itself, for which a mapping has no room beside that of the file.
        return spec, [
            *words_for("env", {NAME: "gym", "id": spec.id, **settings}),
            *words_for("env.name", spec.name),
        ]
    if isinstance(name, list | tuple):
        for one in name:
            if one not in known:
                raise ConfigError(f"env: expected names of tasks in a list, got {shown(one)}{near(str(one), known)}")
        return None, [
            f"env=[{','.join(name)}]",
            *(w for key, own in settings.items() for w in words_for(f"env.{key}", own)),
        ]
    if name is None or name in known:
        return None, list(words_for("env", value)) if value is not None else []
    if not _ID.match(name) and name not in gymnasium.registry:
        raise ConfigError(
            f"env: expected the name of a task or an id of Gymnasium's, got {shown(name)}{near(name, known)}"
        )
    return None, list(words_for("env", {NAME: "gym", "id": name, **settings}))


def _described(algorithm: Any) -> dict[str, Any]:
    """Return an algorithm's class and its plain hyperparameters."""
    kind = type(algorithm)
    record: dict[str, Any] = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    if dataclasses.is_dataclass(algorithm):
        for field in dataclasses.fields(algorithm):
            value = getattr(algorithm, field.name)
            record[field.name] = (
                value if value is None or isinstance(value, bool | int | float | str) else str(type(value))
            )
    return record
