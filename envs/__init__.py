"""Gymnasium text environments, one task a file. Importing the package registers them as `evotext/<Name>-v<N>`.

>>> env = gymnasium.make("envs:evotext/Sort-v0", digits=5)
>>> observation, info = env.reset(seed=0, options={"split": "train"})
>>> observation, reward, terminated, truncated, info = env.step("12579")
"""

import importlib
import pkgutil

from .demonstrator import task_demonstrations
from .registration import native_ids, registered
from .text_env import TextEnv
from .warm_up import demonstrations

__all__ = ["TextEnv", "demonstrations", "native_ids", "registered", "task_demonstrations"]

# A task registers itself, so that adding one is adding a file.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
