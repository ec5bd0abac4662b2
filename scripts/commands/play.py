"""Play a task: `evotext play env=NAME [server=URL model=NAME] [episodes=5]`.

Without a server you answer yourself, a line each time; Ctrl-D ends it.

server=http://127.0.0.1:8000/v1   an OpenAI-compatible address whose model plays; a key is read from OPENAI_API_KEY
model=NAME                        the model's name there
episodes=5                        held-out instances, the same first ones that `evotext evaluate` measures
temperature=0                     of the server's decoding
timeout=60                        seconds that an answer may take
out=plays/TIME.jsonl              the transcripts, a line an episode

Every other argument is of the configuration: env.digits=6 env.max_new_tokens=256 (the longest answer of a server, in tokens).
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TextIO

from evotext.cli import settings
from evotext.cli.composing import compose_checked
from evotext.cli.errors import FAILED, INTERRUPTED, ConfigError, configuration
from evotext.cli.messages import near, one_line
from evotext.cli.targets import build
from evotext.keys.instances import held_out_instances
from evotext.rollouts.task import TextTask, single
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt

from .playing.episode import Played, Player, play
from .playing.person import Person
from .playing.score import score
from .playing.server import Server, ServerError

NAME = "plays/%Y-%m-%d_%H-%M-%S-%f.jsonl"


class Settings(settings.Settings):
    """The settings of a play."""

    server: str | None = None
    model: str | None = None
    episodes: PositiveInt = 5
    temperature: NonNegativeFloat = 0.0
    timeout: PositiveFloat = 60.0
    out: Path | None = None


def main(words: list[str]) -> int:
    """Play, write transcripts, print the score; return the exit status. Raise ConfigError for what the user should change."""
    told, others = settings.read(words, Settings, description=__doc__)
    for word in others:
        if "=" not in word:
            raise ConfigError(f"expected key=value, got {word!r}{near(word, Settings.model_fields)}; see --help")
    if (told.server is None) != (told.model is None):
        raise ConfigError("server: expected an address and the model's name together: server=URL model=NAME")
    with configuration():
        task = single(build(compose_checked("play", others).config, "env"))
    player: Player = Person()
    if told.server is not None and told.model is not None:
        player = Server(
            told.server,
            told.model,
            temperature=told.temperature,
            max_tokens=task.max_new_tokens,
            timeout=told.timeout,
        )
    out = told.out or Path(datetime.now().strftime(NAME))
    with configuration():
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            file = out.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(
                f"out: expected a file that can be written, got {str(out)!r}: {error.strerror}"
            ) from error
    played: list[Played] = []
    with file:
        status = episodes(task, player, told.episodes, {"env": task.name, "model": told.model}, file, played)
    for line in score(played):
        print(line)
    if played:
        print(out)
    else:
        out.unlink()
    return status


def episodes(
    task: TextTask, player: Player, count: int, names: dict[str, str | None], file: TextIO, played: list[Played]
) -> int:
    """Play the episodes, write each down as it ends, and return the exit status. Say what ended them too early."""
    env = task.environments(1)[0]
    for number, instance in enumerate(held_out_instances(count), start=1):
        try:
            episode = play(task, env, player, instance)
        except EOFError:  # the person has had enough
            print()
            return 0
        except KeyboardInterrupt:
            print()
            return INTERRUPTED
        except ServerError as error:
            print(f"error: {error}", file=sys.stderr)
            return FAILED
        except Exception as error:  # whatever an environment raises
            line = f"the environment raised {type(error).__name__}: {error} (environment seed {instance})"
            print(f"error: {one_line(line)}", file=sys.stderr)
            return FAILED
        played.append(episode)
        file.write(json.dumps({**names, **episode.to_json()}) + "\n")
        if not isinstance(player, Person):
            print(f"episode {number} of {count}: return {episode.episode_return:g}", flush=True)
    return 0
