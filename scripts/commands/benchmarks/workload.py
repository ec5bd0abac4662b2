"""A task that is all work and no meaning: letters in, anything out."""

import time
import zlib
from typing import Any, Literal

import gymnasium

from evotext.envs import spaces
from evotext.rollouts.task import TextTask

ID = "evotext/Workload-v0"
SHORTEST, LONGEST = 8, 24
Pays = Literal["checksum", "vowels"]


class Workload(gymnasium.Env[str, str]):
    """One turn. `uneven` prompts are 8 to 24 letters long, others 16.

    pays: `checksum` pays one answer in four, whatever it says; `vowels` pays their share, which can be learned.
    wait: seconds that a step sleeps, as one does that asks a server.
    """

    def __init__(self, *, uneven: bool, pays: Pays = "checksum", wait: float = 0.0) -> None:
        self.uneven, self.pays, self.wait = uneven, pays, wait
        self.observation_space = spaces.FreeText()
        self.action_space = spaces.FreeText()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Return random letters."""
        super().reset(seed=seed)
        count = int(self.np_random.integers(SHORTEST, LONGEST + 1)) if self.uneven else (SHORTEST + LONGEST) // 2
        return "".join(chr(ord("a") + k) for k in self.np_random.integers(26, size=count)), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pay the answer and end."""
        if self.wait:
            time.sleep(self.wait)
        if self.pays == "vowels":
            return "", sum(c in "aeiouAEIOU" for c in action) / max(1, len(action)), True, False, {}
        return "", float(zlib.crc32(action.encode()) % 4 == 0), True, False, {}


gymnasium.register(id=ID, entry_point=f"{__name__}:Workload", reward_threshold=1.0)


def workload(
    new_tokens: int, *, uneven: bool = False, pays: Pays = "checksum", wait: float = 0.0, workers: int = 0
) -> TextTask:
    """Return the task, with answers of at most this many tokens. workers: environments that step at the same time."""
    return TextTask(
        name="workload",
        id=ID,
        max_new_tokens=new_tokens,
        max_turns=1,
        success_return=None,
        strict=True,
        step_seconds=60.0,
        workers=workers,
        uneven=uneven,
        pays=pays,
        wait=wait,
    )
