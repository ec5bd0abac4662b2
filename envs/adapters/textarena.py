"""The single-player games of the TextArena package (Guertler et al. 2025)."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import gymnasium

from evotext.cli.messages import suggestion
from evotext.library import optional
from evotext.validation import checked

from ..spaces import FreeText
from ..text_env import RenderMode, chosen_split

# A game's variant without wrappers, which would repeat the whole conversation in every observation; `-train` is the same
# game in other wrappers.
PLAIN, WRAPPED = "-raw", "-train"
# Python's global generator is one environment's at a time, whatever `env.workers`.
_GLOBAL_GENERATOR = threading.Lock()


@final
class TextArena(gymnasium.Env[str, str]):
    """Description:
        One game of TextArena, played alone.

    Observation Space:
        `FreeText`. What the game has said since the last answer, a message a line; the answers themselves are left out.

    Action Space:
        `FreeText`. The answer in the form that the game asks for, mostly with brackets: `[guess]`.

    Rewards:
        At the end: 1 if the game's own reward is 1 and else 0 with `strict_reward`; without it, the game's own reward,
        which can be negative or a share of the way.

    Episode End:
        Terminates when the game does.

    Arguments:
        `game`: an id of TextArena, e.g. `GuessTheNumber-v0`.
        `strict_reward`: see Rewards.
        Others go to the game.
        Raises ImportError without TextArena, and ValueError for an unknown game, for settings that it does not take, and
        for a game that does not begin with one player.

    Instances:
        The games draw from Python's global generator. The adapter gives every environment a state of that generator of its
        own, seeded from seed and split, and puts the global one back after each call. Games have few instances; the two
        splits are different seeds, and can share instances.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    @checked
    def __init__(
        self, *, game: str, strict_reward: bool = True, render_mode: RenderMode = None, **settings: Any
    ) -> None:
        library = optional("textarena", "textarena")
        known = optional("textarena.envs.registration", "textarena").ENV_REGISTRY
        if game not in known:
            raise ValueError(f"game: expected a game of TextArena, got {game!r}{suggestion(game, known)}")
        self._random = random.Random(0).getstate()  # noqa: S311
        try:
            plain = game.removesuffix(WRAPPED) + PLAIN
            with self._own_randomness():
                self._game = library.make(plain if plain in known else game, **settings)
                self._game.reset(num_players=1, seed=0)
        except Exception as error:  # a game can raise anything: missing files and data, an API key, more players
            raise ValueError(f"game: {game} cannot be played here: {type(error).__name__}: {error}") from error
        self.observation_space = self.action_space = FreeText()
        self.render_mode = render_mode
        self._strict = strict_reward
        self._messages = library.ObservationType
        self._said = "no episode has begun"
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin a game; the same seed and split give the same one."""
        super().reset(seed=seed)
        split = chosen_split(options)
        # An odd number for a test game and an even one for a training game.
        instance = 2 * int(self.np_random.integers(2**62)) + (split == "test")
        with self._own_randomness():
            random.seed(instance)
            self._game.reset(num_players=1, seed=instance)
        self._running = True
        return self._listen(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pass the answer on."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("expected a running episode: call reset() first")
        with self._own_randomness():
            done, _ = self._game.step(action=action)
        if not done:
            return self._listen(), 0.0, False, False, {}
        self._running = False
        rewards = self._game.state.rewards or {}
        reward = float(rewards.get(0, 0.0))
        return "", float(reward >= 1) if self._strict else reward, True, False, {}

    def render(self) -> str | None:
        """Return the game's last message, with `render_mode="ansi"`."""
        return None if self.render_mode is None else self._said

    def _listen(self) -> str:
        _, observation = self._game.get_observation()
        if not isinstance(observation, str):
            # Some games pass on an answer with the player's number in its place, and no kind: an answer all the same.
            heard = [
                text
                for _, text, kind in observation
                if isinstance(text, str) and kind is not self._messages.PLAYER_ACTION
            ]
            observation = "\n".join(heard)
        self._said = observation
        return observation

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Make Python's global generator this environment's own within the block."""
        with _GLOBAL_GENERATOR:
            theirs = random.getstate()
            random.setstate(self._random)
            try:
                yield
            finally:
                self._random = random.getstate()
                random.setstate(theirs)
