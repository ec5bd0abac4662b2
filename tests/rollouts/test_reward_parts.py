"""Rewards of named parts: what an environment says of a reward reaches the records, and adds up."""

from pathlib import Path

import pytest
import torch

from evotext.models.language_model import LanguageModel
from evotext.rollouts.reward_parts import added, read_parts
from evotext.types import Ending
from tests.rollouts.chatter import chatter, collect, plan, with_frequent_ends
from tests.runner.small_runs import ended, lines_of, outcome_of, run_to_the_end, small_run, together
from tests.runner.test_resume import Stopped, StoppedAt
from tests.small_models import small_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return with_frequent_ends(small_model("llama"))


def test_parts_are_added_up_over_an_episode(model: LanguageModel) -> None:
    batch = collect(model, chatter("InParts"), plan())
    assert set(batch.reward_parts) == {"turn", "length", "never"}
    torch.testing.assert_close(sum(batch.reward_parts.values()), batch.return_B)
    turns_B = batch.turn_BT.amax(1)
    assert torch.equal(batch.reward_parts["turn"], 0.25 * turns_B) and len(turns_B.unique()) > 1
    assert not batch.reward_parts["never"].any()
    for transcript in batch.transcripts:
        assert sum(transcript.reward_parts.values()) == pytest.approx(transcript.episode_return)


def test_rewards_without_names_have_no_parts(model: LanguageModel) -> None:
    batch = collect(model, chatter(), plan())
    assert batch.reward_parts == {} and batch.transcripts[0].reward_parts == {}


def test_a_batchs_score_is_a_part_of_its_own(model: LanguageModel) -> None:
    batch = collect(model, chatter("JudgedInParts"), plan())
    assert set(batch.reward_parts) == {"step", "score_batch"}
    torch.testing.assert_close(sum(batch.reward_parts.values()), batch.return_B)


@pytest.mark.parametrize(
    ("fault", "ending", "words"),
    [
        ("parts_text", Ending.BAD_REPLY, "expected a number as info['reward_parts']['turn'], got '0.25'"),
        ("parts_list", Ending.BAD_REPLY, "expected a mapping"),
        ("parts_name", Ending.BAD_REPLY, "expected names of letters"),
        ("parts_nan", Ending.BAD_REWARD, "expected a finite number"),
    ],
)
def test_what_is_no_mapping_of_names_to_numbers_is_a_fault(
    model: LanguageModel, fault: str, ending: Ending, words: str
) -> None:
    batch = collect(model, chatter("InParts", fault=fault), plan())
    assert set(batch.ending_B.tolist()) == {ending} and words in batch.faults[0].error


def test_reading_and_adding() -> None:
    assert read_parts({"other": 1}) == read_parts(None) == {}
    assert read_parts({"reward_parts": {"a": 1, "b": True}}) == {"a": 1.0, "b": 1.0}
    assert added([{"a": 1.0}, {"b": 2.0}, {"a": 0.5}]) == {"a": 1.5, "b": 2.0}


def test_a_run_logs_the_mean_of_each_part(tmp_path: Path) -> None:
    small_run(tmp_path, task="InParts", generations=2, sample_every=1).train()
    lines = lines_of(tmp_path)
    for kind, prefix, whole in (("train", "reward/", "return_mean"), ("eval", "eval/reward/", "eval/return")):
        some = [line for line in lines if line["kind"] == kind]
        assert some
        for line in some:
            parts = {k: v for k, v in line.items() if k.startswith(prefix)}
            assert parts[f"{prefix}never"] == 0.0 and sum(parts.values()) == pytest.approx(line[whole])
    written = [line for line in lines_of(tmp_path, "episodes.jsonl") if line.get("split") == "train"]
    for line in written:
        assert sum(line["reward_parts"].values()) == pytest.approx(line["episode_return"])
        assert f"return {line['episode_return']:g} = " in line["text"]


@pytest.mark.slow
def test_several_processes_count_the_parts_of_all_rows(tmp_path: Path) -> None:
    """Two rows in a process: most never see every part."""
    options = {"generations": 1, "rows": 2, "task": "InParts"}
    assert ended(*together(2, run_to_the_end, tmp_path, "eggroll", False, options)) == [0, 0]
    (line,) = (line for line in lines_of(tmp_path) if line["kind"] == "train")
    parts = {name: value for name, value in line.items() if name.startswith("reward/")}
    assert len(parts) == 3 and sum(parts.values()) == pytest.approx(line["return_mean"])


def test_a_resumed_run_goes_on_from_measurements_with_parts(tmp_path: Path) -> None:
    small_run(tmp_path / "whole", task="InParts", generations=4).train()
    with pytest.raises(Stopped):
        small_run(
            tmp_path / "parts", task="InParts", generations=4, wrap=lambda one, _: StoppedAt(one, 3, "tell")
        ).train()
    rest = small_run(tmp_path / "parts", task="InParts", generations=4)
    rest.resume()
    rest.train()
    assert outcome_of(tmp_path / "parts") == outcome_of(tmp_path / "whole")
