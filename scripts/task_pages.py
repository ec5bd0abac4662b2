"""Write docs/tasks/, a page a task with episodes that were played for it: `python scripts/task_pages.py`.

The text is the environment's docstring. The episodes are held-out ones; its demonstrator plays them,
and fails at times on purpose.
"""

import csv
import inspect
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from commands.playing.episode import Played, Turn, play

from envs.text_env import TextEnv
from evotext.cli.composing import compose
from evotext.cli.targets import build
from evotext.keys.instances import held_out_instances
from evotext.rollouts.task import TextTask

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tasks"
LEARNED = ROOT / "docs" / "results" / "environments.csv"
MOST_TRIES = 400
WIDTH = 84
COMMANDS = """```bash
evotext play env={name}                      # play it yourself
evotext train env={name} algorithm=grpo
```"""


class Demonstrator:
    """Plays a native task by its own `imitate`."""

    def __init__(self, env: TextEnv[object]) -> None:
        self._env, self._rng = env, np.random.default_rng(0)

    def answer(self, instructions: str, turns: Sequence[Turn], observation: str) -> str:
        """Return the demonstrator's answer."""
        return self._env.imitate(self._rng)

    def watch(self, turns: Sequence[Turn], episode_return: float) -> None:
        """Learn nothing from the end."""


class Caller:
    """Plays the calculator: it passes on what the tool says, and every other time guesses instead, to show a failure."""

    def __init__(self) -> None:
        self._calls = False

    def answer(self, instructions: str, turns: Sequence[Turn], observation: str) -> str:
        """Return a call at first, then the result."""
        if turns:
            return observation.removeprefix("RESULT ")
        self._calls = not self._calls
        return f"CALL calculator({observation})" if self._calls else "42"

    def watch(self, turns: Sequence[Turn], episode_return: float) -> None:
        """Learn nothing from the end."""


def tasks() -> list[str]:
    """Return the names of the tasks that are played, as `env=` takes them: those of `envs` alone."""
    files = sorted((ROOT / "conf" / "env").glob("*.yaml"))
    ids = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")).get("id", "") for file in files}
    return [name for name, env_id in ids.items() if str(env_id).startswith("evotext.envs:evotext/")]


def page(name: str) -> str:
    """Return the page of a task."""
    task: TextTask = build(compose("config", [f"env={name}"]), "env")
    made = type(task.environments(1)[0].unwrapped)
    docstring = inspect.cleandoc(made.__doc__ or "").replace("**", r"\*\*")
    sections = re.split(r"^(\w[\w ]*):$", docstring, flags=re.MULTILINE)
    text = {
        title: textwrap.dedent(body).strip("\n") for title, body in zip(sections[1::2], sections[2::2], strict=True)
    }
    played = _episodes(task)
    instructions = next(iter(played.values())).instructions
    parts = [f"# {name}", text.pop("Description"), _learned(name), COMMANDS.format(name=name)]
    parts += ["## Instructions", "A model with a chat template gets them as its system message:", _block(instructions)]
    titles = {True: "An episode that is paid", False: "An episode that is not"}
    parts += [f"## {titles[success]}\n\n{_transcript(played[success])}" for success in titles if success in played]
    parts += ["## The contract", *(_section(title, body) for title, body in text.items())]
    file = Path(inspect.getfile(made)).relative_to(ROOT)
    parts += [f"The code: `{file}`, `conf/env/{name}.yaml`. [All tasks](../environments.md)."]
    parts += ["`python scripts/task_pages.py` wrote this page."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, body: str) -> str:
    if title == "Arguments":
        return f"**{title}.**\n\n" + re.sub(r"^(?=\S)", "* ", body, flags=re.MULTILINE)
    return f"**{title}.** {body}"


def _episodes(task: TextTask) -> dict[bool, Played]:
    """Return the first held-out episode that is a success and the first that is none."""
    env = task.environments(1)[0]
    player = Demonstrator(env.unwrapped) if isinstance(env.unwrapped, TextEnv) else Caller()
    found: dict[bool, Played] = {}
    for instance in held_out_instances(MOST_TRIES):
        episode = play(task, env, player, instance)
        found.setdefault(bool(episode.success), episode)
        if len(found) == 2:
            break
    return found


def _transcript(episode: Played) -> str:
    lines = [f"seed    {episode.instance}"]
    for said, answered in episode.turns:
        lines += [_indented("task    ", said), _indented("answer  ", answered)]
    return _block("\n".join([*lines, f"return  {episode.episode_return:g}"]))


def _indented(first: str, text: str) -> str:
    return first + text.replace("\n", "\n" + " " * len(first))


def _block(text: str) -> str:
    folded = (textwrap.fill(line, WIDTH, replace_whitespace=False, drop_whitespace=False) for line in text.split("\n"))
    return "```text\n" + "\n".join(line.rstrip() for line in "\n".join(folded).split("\n")) + "\n```"


def _learned(name: str) -> str:
    """Return what the built-in model learns on the task, as it was measured."""
    with LEARNED.open(encoding="utf-8", newline="") as file:
        rows = {row["algorithm"]: row for row in csv.DictReader(file) if row["env"] == name}
    if not rows:
        return ""
    before, es, rl = (
        float(rows[algorithm][key])
        for algorithm, key in (("grpo", "success_before"), ("eggroll", "success_after"), ("grpo", "success_after"))
    )
    return (
        f"The built-in model solves {before:.2f} of the held-out instances before tuning, {es:.2f} after a minute of EGGROLL "
        f"and {rl:.2f} after a minute of GRPO ([how this was measured](../results/environments.md))."
    )


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for one in tasks():
        (PAGES / f"{one}.md").write_text(page(one), encoding="utf-8")
