"""Whatever Python value is given: the word for it means that value to Hydra."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from evotext.api.words import words_for
from evotext.cli.composing import compose
from evotext.cli.errors import ConfigError

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"))
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text)
values = st.recursive(
    plain, lambda below: st.lists(below) | st.dictionaries(st.sampled_from(["a", "b_c", "d9"]), below)
)


@settings(max_examples=40)
@given(value=st.one_of(plain, st.lists(values)))
def test_a_word_means_the_value(value: Any) -> None:
    (word,) = words_for("experiment_of_mine.key", value)
    override = OverridesParser.create().parse_override(word)
    assert override.value() == value and not override.is_sweep_override()


@pytest.mark.parametrize("text", ["'", "\\", "\\'", "a\\\\", "${seed}", "a=b", "x,y", "[1", "null", "1", " ", "é\"'\t"])
def test_hard_texts(text: str) -> None:
    (word,) = words_for("a", text)
    assert OverridesParser.create().parse_override(word).value() == text


@pytest.mark.parametrize(
    ("value", "meant"),
    [(np.float64(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), ((1, 2), [1, 2]), (Path("a/b"), "a/b")],
)
def test_what_stands_for_a_plain_value(value: object, meant: object) -> None:
    (word,) = words_for("a", value)
    read = OverridesParser.create().parse_override(word).value()
    assert read == meant and type(read) is type(meant)


def test_infinity_is_a_number() -> None:
    (word,) = words_for("a", -math.inf)
    assert OverridesParser.create().parse_override(word).value() == -math.inf


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("algorithm", "grpo", ["algorithm='grpo'"]),
        ("algorithm", {"name": "grpo", "prompts": 2}, ["algorithm='grpo'", "++algorithm.prompts=2"]),
        ("algorithm", {"prompts": 2}, ["++algorithm.prompts=2"]),
        ("algorithm", {"optimizer": {"lr": 0.1}}, ["++algorithm.optimizer.lr=0.1"]),
        (
            "algorithm",  # the default choice, eggroll, has this group within
            {"perturbation": {"name": "low_rank", "rank": 2}},
            ["algorithm/perturbation='low_rank'", "++algorithm.perturbation.rank=2"],
        ),
        ("algorithm", {"perturbation": {"rank": 2}}, ["++algorithm.perturbation.rank=2"]),
        (
            "algorithm",  # dapo is grpo with other values, and has its groups
            {"name": "dapo", "learning_rate_schedule": "cosine"},
            ["algorithm='dapo'", "algorithm/schedule@algorithm.learning_rate_schedule='cosine'"],
        ),
        ("evaluation", {"episodes": 3}, ["++evaluation.episodes=3"]),
        ("algorithm.sigma", 0.5, ["++algorithm.sigma=0.5"]),
        ("algorithm/perturbation", "guided", ["algorithm/perturbation='guided'"]),
        ("checkpoint", {}, ["++checkpoint={}"]),
    ],
)
def test_groups_and_what_is_below_them(key: str, value: object, words: list[str]) -> None:
    assert list(words_for(key, value)) == words
    compose("config", words)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "seed",
            object(),
            "seed: expected a number, a text, true or false, None, or a list or dict of them, got <object",
        ),
        ("algorithm", {"optimizer": {"lr": len}}, "algorithm.optimizer.lr: expected a number"),
        ("evaluation", {"a b": 3}, "expected keys of the configuration, got 'evaluation.a b'"),
        ("a", [{"b c": 1}], "a: expected keys that are names, got 'b c'"),
        ("algorithm", 3, "algorithm: expected the name of a configuration, got 3"),
        (
            "algorithm",
            {"perturbation": {"name": 3}},
            "algorithm.perturbation.name: expected the name of a configuration",
        ),
    ],
)
def test_what_no_word_means(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        list(words_for(key, value))
    assert str(error.value).startswith(message)
