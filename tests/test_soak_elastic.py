"""Nodes that come and go: one round of what the soak script does twenty times, and what a restarted group finds."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import HashStore

from evotext.cli.command import expand
from evotext.distributed import collectives, torchrun
from tests.runner.small_runs import ended, small_starting_model, start
from tests.test_resume_command import WORDS, script

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import soak_elastic  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills processes by their session")
def test_a_node_that_joins_and_one_that_is_killed_do_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the nodes' workers, which import the toy environment
    monkeypatch.setattr(soak_elastic, "PATIENCE", 120.0)
    small_starting_model().save(tmp_path / "model")
    words = [*WORDS, f"model.path={tmp_path / 'model'}", "budget.limit=30", "algorithm.update=shared"]
    assert ended(start(script, tmp_path / "alone-said", *words, f"hydra.run.dir={tmp_path / 'alone'}")) == [0]
    nodes = soak_elastic.Nodes(words, tmp_path / "elastic", tmp_path / "said")
    try:
        nodes.add()
        nodes.add()
        nodes.wait(lambda: nodes.lines() > 0 and "processes/bytes" in (nodes.folder / "metrics.jsonl").read_text())
        nodes.kill(0)
        nodes.add()
        nodes.wait(nodes.completed)
    finally:
        nodes.end()
    assert soak_elastic.outcome(tmp_path / "elastic") == soak_elastic.outcome(tmp_path / "alone")


def begin(folder: Path, *words: str) -> None:
    """Leave the files that a killed run leaves."""
    (folder / ".hydra").mkdir(parents=True)
    listed = "".join(f"- {word}\n" for word in words)
    (folder / ".hydra" / "overrides.yaml").write_text(listed)
    hydra = "hydra: {overrides: {hydra: []}, runtime: {config_sources: []}, job: {config_name: config}}"
    (folder / ".hydra" / "hydra.yaml").write_text(hydra)
    (folder / "metrics.jsonl").touch()


def test_the_same_words_go_on_with_their_run_under_torchrun_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", "seed=1", "env=sort")
    words, place = ["seed=1", "env=sort"], f"hydra.run.dir={tmp_path / 'run'}"
    assert expand([*words, place])[0] == [*words, place], "without torchrun the folder is refused, as ever"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "17")
    assert f"resume='{tmp_path / 'run'}'" in expand([*words, place])[0]
    for other in ([*words, "threads=1", place], ["seed=2", "env=sort", place], words):
        assert not any(word.startswith("resume=") for word in expand(other)[0]), other
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert expand([*words, place])[0] == [*words, place], "nothing has begun there"
    begin(tmp_path / "other", *words)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    others = expand([*words, f"hydra.run.dir={tmp_path / 'other'}"])[0]
    assert not any(word.startswith("resume=") for word in others), "they are told by the first one"


def test_agents_that_count_restarts_apart_meet_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "17")
    found = {}
    for shared in ("True", "False"):
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", shared)
        for count in ("0", "1"):
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
            found[shared, count] = torchrun.attempt()
    assert found["False", "0"] == found["False", "1"], "a new store each time"
    assert found["True", "0"] != found["True", "1"], "one store, in which the dead have left their addresses"


def test_a_process_that_never_comes_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "START", timedelta(milliseconds=50))
    store = HashStore()
    collectives._await_all(store, 0, 1)
    with pytest.raises(RuntimeError, match="expected 2 processes within .* one did not come"):
        collectives._await_all(store, 0, 2)
