"""A list of prompts as a task: its parts never meet."""

from typing import Any

import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from envs.prompts import Prompts, divided
from evotext.keys.instances import held_out_instances, train_instances, validation_instances

SPLITS = ("train", "validation", "test")


@given(
    prompts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=3).filter(lambda p: len(set(p)) >= 3)
)
def test_every_prompt_is_in_one_split_and_none_is_empty(prompts: list[str]) -> None:
    splits = divided(prompts)
    assert set(splits) == set(SPLITS) and all(splits.values())
    assert sorted(prompt for split in splits.values() for prompt in split) == sorted(set(prompts))
    assert divided(prompts[::-1] + prompts) == splits


def test_most_are_trained_on() -> None:
    splits = divided([f"prompt {i}" for i in range(1000)])
    assert {split: len(splits[split]) for split in SPLITS} == {"train": 700, "validation": 100, "test": 200}


@pytest.mark.parametrize(
    ("prompts", "got"), [(["a", "a", "b"], "got 2"), ([], "got 0"), (["a", "b", 3], "texts, got int")]
)
def test_too_few_prompts_and_what_is_no_text(prompts: list[Any], got: str) -> None:
    with pytest.raises(ValueError, match=f"prompts: expected .*{got}"):
        divided(prompts)


def test_an_episode_is_one_answer_paid_by_the_function() -> None:
    splits = divided([f"prompt {i}" for i in range(50)])
    env = Prompts(splits, lambda prompt, answer: float(prompt.endswith(answer)))
    check_env(env, skip_render_check=True)
    prompt, _ = env.reset(seed=3, options={"split": "train"})
    assert prompt in splits["train"] and prompt == env.reset(seed=3)[0]
    assert env.step(prompt[-1]) == ("", 1.0, True, False, {})
    with pytest.raises(ResetNeeded):
        env.step("x")
    with pytest.raises(ValueError, match="one of test, validation, train, got 'tset'"):
        env.reset(seed=3, options={"split": "tset"})


def test_seeds_of_a_run_reach_every_prompt_of_their_split_and_no_other() -> None:
    splits = divided([f"prompt {i}" for i in range(50)])
    env = Prompts(splits, lambda prompt, answer: 0.0)
    seeds = {
        "train": train_instances(0, 0, 500),
        "validation": validation_instances(500),
        "test": held_out_instances(500),
    }
    seen = {split: {env.reset(seed=s, options={"split": split})[0] for s in seeds[split]} for split in SPLITS}
    assert {split: sorted(prompts) for split, prompts in seen.items()} == {s: sorted(splits[s]) for s in SPLITS}
