"""The contract that an environment of text must keep to be trained on, as checks that run on anybody's environment.

Each check takes a function that makes an environment, and the greatest number of turns; it returns what is wrong, in
one line, or an empty text. `evotext check-env` runs them all.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import product

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from evotext.rollouts.environment_calls import scored_alone
from evotext.rollouts.reward_parts import KEY, read_parts

from .spaces import FreeText

Env = gymnasium.Env[str, str]
Make = Callable[[], Env]
Step = tuple[str, float, bool]
"""Observation, reward, whether the episode is over."""

SEEDS = range(20)
GARBAGE = ("", " ", "\n", "0", "0123456789", "9876543210", "1234567890" * 50, "x", "?", "ok", "\x00", "½²٣", "🙂" * 100)
# Answers that make an episode show what its seed has hidden in it.
PROBES = ["x", "250", "[10]", "e"]
HUGE = ("9" * 10**6, "(" * 10**6, " " * 10**6, "\ud800" * 1000)


def text_spaces(make: Make, turns: int) -> str:
    """Check that observations and actions are texts of any length and alphabet."""
    env = make()
    for name, space in (("observation_space", env.observation_space), ("action_space", env.action_space)):
        if not all(space.contains(text) for text in ("", "a b", "a\nb", "é中🙂", "x" * 10_000)):
            return f"expected {name} to contain every text, got {space}; envs.spaces.FreeText does"
    return ""


def gymnasiums_check(make: Make, turns: int) -> str:
    """Check that Gymnasium's own check_env finds nothing to say."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            check_env(make().unwrapped, skip_render_check=True)
        except Exception as error:  # it raises what it finds, in many types
            return _line(error)
    return "; ".join(_line(warning.message) for warning in said if "gymnasium" in warning.filename)


def plain_types(make: Make, turns: int) -> str:
    """Check that texts, numbers, booleans and dictionaries are Python's own."""
    env = make()
    observation, info = env.reset(seed=0)
    if type(observation) is not str or type(info) is not dict:
        return f"expected (str, dict) from reset, got ({type(observation).__name__}, {type(info).__name__})"
    got = env.step("x")
    kinds = [type(value).__name__ for value in got]
    if kinds not in (["str", kind, "bool", "bool", "dict"] for kind in ("float", "int")):
        return f"expected (str, float, bool, bool, dict) from step, got ({', '.join(kinds)})"
    return ""


def ends(make: Make, turns: int) -> str:
    """Check that an episode is over within the limit of turns, whatever is said."""
    for text in ("", "x"):
        if len(list(episode(make(), 0, [text], turns))) > 1 + turns:
            return (
                f"expected an end within env.max_turns={turns} turns of {text!r}; raise the limit if episodes are long"
            )
    return ""


def seeds_decide(make: Make, turns: int) -> str:
    """Check that the same seed and answers give the same episode, also when other environments run in between."""
    alone = [list(episode(make(), seed, PROBES, turns)) for seed in SEEDS]
    running = [episode(make(), seed, PROBES, turns) for seed in SEEDS]
    together: list[list[Step]] = [[] for _ in SEEDS]
    for _ in range(turns + 2):
        for i, steps in enumerate(running):
            together[i] += [step for step in [next(steps, None)] if step]
    for seed, one, other in zip(SEEDS, alone, together, strict=True):
        if one != other:
            return f"seed {seed} gave two different episodes: draw from self.np_random alone, and share nothing"
    return ""


def seeds_differ(make: Make, turns: int) -> str:
    """Check that different seeds give different episodes."""
    env = make()
    seen = {tuple(episode(env, seed, PROBES, turns)) for seed in SEEDS}
    return (
        ""
        if len(seen) > 1
        else f"{len(SEEDS)} seeds gave the same episode: call super().reset(seed=seed) and draw from it"
    )


def splits_differ(make: Make, turns: int) -> str:
    """Check that the same seed gives another episode in the other split. That they never meet is up to the author."""
    env = make()
    for seed in SEEDS:
        one, other = ([*opening, *episode(env, None, PROBES, turns)] for opening in _openings(env, seed))
        if one != other:
            return ""
    return "both splits gave the same episodes: draw training and test instances apart by options['split']"


def garbage_is_not_paid(make: Make, turns: int) -> str:
    """Check that neither garbage nor the prompt earns anything, where none of it can be a right answer."""
    env = make()
    for seed in SEEDS:
        observation, info = env.reset(seed=seed)
        for text in (*GARBAGE, observation, str(info.get("instructions", ""))):
            if (paid := sum(reward for _, reward, _ in episode(env, seed, [text], turns))) > 0:
                return f"seed {seed} paid {paid:g} for {text[:60]!r}; no fault if that is a right answer here"
    return ""


def every_text_is_answered(make: Make, turns: int) -> str:
    """Check that no answer raises, however long or strange."""
    env, rng = make(), np.random.default_rng(0)
    space = FreeText(seed=0)
    for seed in SEEDS:
        for text in (*HUGE, *(space.sample() for _ in range(20))):
            try:
                rewards = [reward for _, reward, _ in episode(env, seed, [text, str(rng.integers(100))], turns)]
            except Exception as error:  # whatever it is
                return f"{type(error).__name__} at the answer {text[:40]!r}: {_line(error)}"
            if not np.isfinite(rewards).all():
                return f"a reward of {rewards} at the answer {text[:40]!r}"
    return ""


def parts_add_up(make: Make, turns: int) -> str:
    """Check that `info["reward_parts"]`, where some step has it, names every reward in full."""
    env = make()
    paid = []
    for seed, answer in product(SEEDS, (None, *PROBES)):
        said, _ = env.reset(seed=seed)
        for _ in range(turns):
            said, reward, terminated, truncated, info = env.step(said if answer is None else answer)
            paid.append((seed, float(reward), read_parts(info), KEY in info))
            if terminated or truncated:
                break
    if not any(named for *_, named in paid):
        return ""
    for seed, reward, parts, _ in paid:
        if abs(sum(parts.values()) - reward) > 1e-6 * max(1.0, abs(reward)):
            return f"seed {seed} paid {reward:g}, and info[{KEY!r}] comes to {sum(parts.values()):g}: {parts}"
    return ""


CHECKS: Mapping[str, Callable[[Make, int], str]] = {
    check.__name__.replace("_", " "): check
    for check in (
        text_spaces,
        gymnasiums_check,
        plain_types,
        ends,
        seeds_decide,
        seeds_differ,
        splits_differ,
        garbage_is_not_paid,
        every_text_is_answered,
        parts_add_up,
    )
}


def episode(env: Env, seed: int | None, answers: list[str], turns: int) -> Iterator[Step]:
    """Play an episode by these answers in turn, at most one turn longer than it may be; None: the one that has begun."""
    if seed is not None:
        yield env.reset(seed=seed)[0], 0.0, False
    for turn in range(turns + 1):
        observation, reward, terminated, truncated, _ = env.step(answers[turn % len(answers)])
        paid = float(reward) + scored_alone(env)
        yield observation, paid, terminated or truncated
        if terminated or truncated:
            return


def _openings(env: Env, seed: int) -> Iterator[list[str]]:
    for split in ("train", "test"):
        yield [env.reset(seed=seed, options={"split": split})[0]]


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
