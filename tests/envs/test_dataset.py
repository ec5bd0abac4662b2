"""Datasets as tasks: rows, splits, mistakes, and a run of it on a local file."""

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.adapters.dataset import Dataset
from envs.contract import CHECKS
from evotext.keys.instances import train_instances
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.runner.evaluation import Evaluator
from evotext.types import RolloutPlan, Sampling
from tests.envs.test_adversarial import HUGE, TEXTS
from tests.small_models import small_model

SPLITS = ("train", "validation", "test")
needs_datasets = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="an optional extra")


def sums(count: int) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {i} + {i}?", "answer": f"{i}+{i}={2 * i} #### {2 * i}"}
        for i in range(1000, 1000 + count)
    ]


def jsonl(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def asked(env: Any, split: str, seeds: range = range(400)) -> set[str]:
    return {env.reset(seed=seed, options={"split": split})[0] for seed in seeds}


def task(path: str, **options: Any) -> TextTask:
    limits = {
        "max_new_tokens": 8,
        "max_turns": 1,
        "success_return": None,
        "strict": True,
        "step_seconds": 60.0,
        "workers": 0,
    }
    chosen = {"path": path, "checker": "number", **options}
    return TextTask(name="rows", id="envs.adapters:evotext/Dataset-v0", **limits, **chosen)


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    def make() -> gymnasium.Env[str, str]:
        return gymnasium.make("envs.adapters:evotext/Dataset-v0", path=jsonl(tmp_path, sums(60)), checker="number")

    check_env(make(), skip_render_check=True)
    assert {name: fault for name, check in CHECKS.items() if (fault := check(make, 1))} == {}


def test_splits_are_disjoint_rows_and_every_row_is_in_one(tmp_path: Path) -> None:
    rows = sums(64)
    env = Dataset(path=jsonl(tmp_path, rows), checker="number")
    seen = {split: asked(env, split) for split in SPLITS}
    assert {split: len(questions) for split, questions in seen.items()} == {"train": 45, "validation": 6, "test": 13}
    assert set.union(*seen.values()) == {row["question"] for row in rows}
    turned = Dataset(path=jsonl(tmp_path, rows[::-1], "turned.jsonl"), checker="number")
    assert {split: asked(turned, split) for split in SPLITS} == seen, "whatever the order of the rows"


def test_rows_that_ask_the_same_are_in_one_split(tmp_path: Path) -> None:
    env = Dataset(path=jsonl(tmp_path, sums(16) + sums(16)), checker="number", prompt="{question} {answer}")
    splits = [asked(env, split) for split in SPLITS]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 16


def test_a_file_of_its_own_is_held_out(tmp_path: Path) -> None:
    env = Dataset(path=jsonl(tmp_path, sums(30)), test_split=jsonl(tmp_path, sums(10), "test.jsonl"), checker="number")
    held_out = {row["question"] for row in sums(10)}
    assert asked(env, "test") == held_out
    assert asked(env, "train").isdisjoint(held_out) and asked(env, "validation").isdisjoint(
        held_out | asked(env, "train")
    )


def test_validation_takes_the_rows_for_validation(tmp_path: Path) -> None:
    """A task without validation rows takes other seeds of the training split."""

    def split_of_plan(task: TextTask, split: str) -> str:
        evaluator = Evaluator(episodes=4, points=1, temperature=0.0, samples=0, split=split)  # type: ignore[arg-type]
        return evaluator._plan(task, 1, Sampling(temperature=0.0)).split

    sort: dict[str, Any] = {"success_return": None, "strict": True, "step_seconds": 60.0, "workers": 0}
    rows, native = task(jsonl(tmp_path, sums(20))), TextTask(
        name="sort", id="envs:evotext/Sort-v0", max_new_tokens=8, max_turns=1, **sort
    )  # fmt: skip
    assert [split_of_plan(rows, split) for split in ("test", "validation")] == ["test", "validation"]
    assert [split_of_plan(native, split) for split in ("test", "validation")] == ["test", "train"]


def test_the_right_answer_alone_is_paid(tmp_path: Path) -> None:
    env = Dataset(path=jsonl(tmp_path, sums(40)), checker="number")
    rng = np.random.default_rng(0)
    for seed, text in enumerate((*TEXTS, *HUGE, "NaN", " ".join(map(str, range(5000))))):
        question, info = env.reset(seed=seed)
        assert "Finish with" in info["instructions"]
        assert env.step(text)[1:4] == (0.0, True, False), text[:60]
        number = 2 * int(question.split()[2])
        for answer, paid in (
            (str(number), 1.0),
            (f"It is {number:,}.", 1.0),
            (str(number + int(rng.integers(1, 9))), 0.0),
        ):
            assert env.reset(seed=seed)[0] == question
            assert env.step(answer)[1] == paid
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("1")


def test_a_template_takes_any_columns(tmp_path: Path) -> None:
    rows = [{"problem": f"p{i}", "hint": rf"\frac{{{i}}}{{2}}", "key": "AB"[i % 2]} for i in range(12)]
    env = Dataset(
        path=jsonl(tmp_path, rows), checker="choice", question="problem", answer="key", prompt="Q: {problem} ({hint})"
    )
    assert all(re.fullmatch(r"Q: p(\d+) \(\\frac\{\1\}\{2\}\)", question) for question in asked(env, "train"))


def test_a_csv_file_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows([{**row, "question": f'say "{row["question"]}",\nplease'} for row in sums(20)])
    questions = asked(Dataset(path=str(tmp_path / "rows.csv"), checker="number"), "train")
    assert all(re.fullmatch(r'say "What is (\d+) \+ \1\?",\nplease', question) for question in questions)


@needs_datasets
@pytest.mark.filterwarnings("ignore")
def test_a_parquet_file_holds_the_same_rows(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(sums(30)).to_parquet(str(tmp_path / "rows.parquet"))
    one = Dataset(path=jsonl(tmp_path, sums(30)), checker="number")
    other = Dataset(path=str(tmp_path / "rows.parquet"), checker="number")
    assert [one.reset(seed=seed) for seed in range(20)] == [other.reset(seed=seed) for seed in range(20)]


@needs_datasets
@pytest.mark.filterwarnings("ignore")
def test_a_dataset_of_the_hub_is_loaded_by_its_splits(tmp_path: Path) -> None:
    """The package itself reads a folder that is laid out as a repository of the Hub is."""
    folder = tmp_path / "hub"
    folder.mkdir()
    jsonl(folder, sums(24), "train.jsonl")
    jsonl(folder, sums(40)[24:], "test.jsonl")
    env = Dataset(path=str(folder), test_split="test", checker="number")
    assert asked(env, "test") == {row["question"] for row in sums(40)[24:]}
    with pytest.raises(ValueError, match="a dataset on the Hub with the split 'dev'"):
        Dataset(path=str(folder), split="dev", checker="number")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([*sums(9), {"question": "x"}], {}, "answer: row 10: expected the column 'answer' .*, got the columns question"),
        ([*sums(9), {"question": " ", "answer": "1"}], {}, "question: row 10: .*got an empty one"),
        ([*sums(9), {"question": "x", "answer": None}], {}, "answer: row 10: .*got an empty one"),
        ([*sums(9), {"question": "x", "answer": "many"}], {}, "answer: row 10: expected a number, .* got 'many'"),
        ([*sums(9), {"question": "\ud800", "answer": "1"}], {}, "question: row 10: .*half a character"),
        (sums(9), {"question": "problem"}, "question: row 1: expected the column 'problem'"),
        (sums(9), {"prompt": "{question} {hint}"}, "prompt: row 1: expected the column 'hint'"),
        ([*sums(9), [1]], {}, "row 10 of rows.jsonl: expected a JSON object, got"),
        (sums(2), {}, "expected at least 3 different questions .* got 2 and 0"),
        ([], {}, "got 0 and 0"),
    ],
)  # fmt: skip
def test_mistakes_name_their_row(tmp_path: Path, rows: list[Any], options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset(path=jsonl(tmp_path, rows), checker="number", **options)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", b'{"question": "x"\n', "row 1 of a.jsonl: expected a JSON object: "),
        ("a.jsonl", b"[" * 10**5 + b"\n", "row 1 of a.jsonl"),
        ("a.jsonl", b"\xff\xfe\n", "expected text in UTF-8"),
        ("a.csv", b"question,answer\nx,1,2\n", "row 1 of a.csv: expected as many fields"),
        ("a.csv", b'question,answer\nx,1\n"y,1\n', "row 2 of a.csv: expected a line of CSV"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=message):
        Dataset(path=str(tmp_path / name), checker="exact")


def test_a_missing_file_and_a_missing_package_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="path: expected a file that exists, got"):
        Dataset(path=str(tmp_path / "no.jsonl"), checker="exact")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"-c constraints.txt -e '\.\[datasets\]'"):
        Dataset(path="openai/gsm8k", checker="exact")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    before = asked(Dataset(path=jsonl(tmp_path, sums(8)), checker="number"), "test")
    after = asked(
        Dataset(path=jsonl(tmp_path, [{"question": f"q{i}", "answer": i} for i in range(8)]), checker="number"), "test"
    )
    assert before.isdisjoint(after)


def test_a_random_model_runs_on_a_local_file(tmp_path: Path) -> None:
    """Each question has the answer that the model would give, or another one: exactly the first ones are paid."""
    collector = Collector(small_model("llama"), task(jsonl(tmp_path, sums(40))), rows=8, transcripts=16)
    plan = RolloutPlan(
        seed=0,
        generation=0,
        instances=train_instances(0, 0, 16),
        groups=tuple(range(16)),
        sampling=Sampling(temperature=0.0),
    )
    first = collector.collect(plan)
    assert first.return_B.tolist() == [0.0] * 16 and first.faults == ()
    said = dict(transcript.turns[0] for transcript in first.transcripts)
    questions = [row["question"] for row in sums(40)]
    rows = [{"question": q, "answer": said.get(q, "").strip() or "no row of this plan"} for q in questions]
    exact = task(jsonl(tmp_path, rows, "exact.jsonl"), checker="exact")
    paid = Collector(collector.model, exact, rows=8, transcripts=16).collect(plan)
    assert paid.success_B is not None
    assert paid.success_B.tolist() == [bool(t.turns[0][1].strip()) for t in paid.transcripts] and paid.success_B.any()
