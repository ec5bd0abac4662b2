"""Adapters to other libraries' tasks: reasoning-gym, TextArena, and Gymnasium environments with discrete spaces.

Each is an optional extra: its library is imported when an environment is made, with a message that says what to install.

>>> env = gymnasium.make("envs.adapters:evotext/ReasoningGym-v0", task="leg_counting")
>>> env = gymnasium.make("envs.adapters:evotext/TextArena-v0", game="GuessTheNumber-v0")
"""

import gymnasium

from .discrete import as_text

__all__ = ["as_text"]

for _name, _entry in (("ReasoningGym", "reasoning_gym:ReasoningGym"), ("TextArena", "textarena:TextArena")):
    gymnasium.register(
        id=f"evotext/{_name}-v0",
        entry_point=f"{__name__}.{_entry}",
        reward_threshold=1.0,
        order_enforce=False,
        disable_env_checker=True,
    )
