"""Environments that an OpenEnv server holds (Meta and Hugging Face 2025), by its own client."""

import json
from collections.abc import Mapping
from typing import Any, final

import gymnasium

from evotext.library import optional
from evotext.validation import checked

from ..spaces import FreeText
from ..text_env import RenderMode, chosen_split

# Below 2**31, which every server's generator takes.
INSTANCES = 2**30


@final
class OpenEnv(gymnasium.Env[str, str]):
    """Description:
        A session of an environment on a server that speaks OpenEnv's protocol.

    Observation Space:
        `FreeText`. The field `observation` of what the server observes, or all of its fields as JSON.

    Action Space:
        `FreeText`. The answer, sent as the field `action` of the server's action.

    Rewards:
        Those of the server; none counts as 0.

    Episode End:
        Terminates when the server says `done`.

    Arguments:
        `url`: of the server, e.g. `http://127.0.0.1:8000`.
        `action`: the field of its action that holds the text; `further` its other fields, which stay as they are.
        `observation`: the field that is shown; null shows all fields as JSON.
        `instructions`: what the model is told; the protocol has none.
        Raises ImportError without openenv-core, and ValueError for a server that cannot be reached.

    Instances:
        `reset` is sent a seed, even for training and odd for held-out episodes. Whether it decides the instance is up to
        the server.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    @checked
    def __init__(
        self,
        *,
        url: str,
        action: str = "message",
        observation: str | None = None,
        further: Mapping[str, Any] | None = None,
        instructions: str = "",
        render_mode: RenderMode = None,
    ) -> None:
        self._client = optional("openenv.core", "openenv").GenericEnvClient(base_url=url).sync()
        try:
            self._client.connect()
        except (OSError, ValueError) as error:
            self._client.close()
            line = " ".join(str(error).split())[:200]
            raise ValueError(f"url: expected an OpenEnv server that answers, got {url!r}: {line}") from error
        self.observation_space = self.action_space = FreeText()
        self.render_mode = render_mode
        self._action, self._shown, self._further = action, observation, dict(further or {})
        self._instructions = instructions
        self._said = "no episode has begun"
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode on the server."""
        super().reset(seed=seed)
        split = chosen_split(options)
        instance = 2 * int(self.np_random.integers(INSTANCES)) + (split == "test")
        reply = self._client.reset(seed=instance)
        self._running = True
        self._said = self._text(reply.observation)
        return self._said, {"instructions": self._instructions}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Send the answer."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("expected a running episode: call reset() first")
        sent = action.encode(errors="replace").decode()  # lone surrogates are no JSON for a server
        reply = self._client.step({**self._further, self._action: sent})
        self._running = not reply.done
        self._said = self._text(reply.observation)
        return self._said, float(reply.reward or 0.0), bool(reply.done), False, {}

    def render(self) -> str | None:
        """Return what the server said last, with `render_mode="ansi"`."""
        return None if self.render_mode is None else self._said

    def close(self) -> None:
        """End the session."""
        self._running = False
        self._client.close()

    def _text(self, observation: Mapping[str, Any]) -> str:
        if self._shown is None:
            return json.dumps(observation, ensure_ascii=False)
        if self._shown not in observation:
            raise ValueError(
                f"observation: expected the field {self._shown!r}, got {', '.join(observation)}; choose one, or null for all"
            )
        value = observation[self._shown]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
