"""Adapters to other people's tasks: datasets, reasoning-gym, TextArena, OpenEnv servers, verifiers, discrete environments.

Each library is an optional extra: it is imported when an environment is made, with a message that says what to install.

>>> env = gymnasium.make("envs.adapters:evotext/ReasoningGym-v0", task="leg_counting")
>>> env = gymnasium.make("envs.adapters:evotext/TextArena-v0", game="GuessTheNumber-v0")
>>> env = gymnasium.make("envs.adapters:evotext/Dataset-v0", path="my.jsonl", checker="number")
"""

import gymnasium

from .discrete import as_text

__all__ = ["as_text"]

for _name, _entry, _greatest in (
    ("ReasoningGym", "reasoning_gym:ReasoningGym", 1.0),
    ("TextArena", "textarena:TextArena", 1.0),
    ("Dataset", "dataset:Dataset", 1.0),
    ("OpenEnv", "openenv:OpenEnv", None),
    ("Verifiers", "verifiers:Verifiers", None),
):
    gymnasium.register(
        id=f"evotext/{_name}-v0",
        entry_point=f"{__name__}.{_entry}",
        reward_threshold=_greatest,
        order_enforce=False,
        disable_env_checker=True,
    )
