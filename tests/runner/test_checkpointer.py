"""When a checkpoint is due."""

import time
from pathlib import Path
from typing import Any

import pytest

from evotext.distributed import collectives
from evotext.rollouts.collector import Collector
from evotext.runner.checkpointer import Checkpointer
from evotext.runner.checkpoints import Checkpointing
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import small_starting_model


@pytest.mark.parametrize(("clocks", "due"), [((59.0, 61.0), False), ((61.0, 59.0), True), ((60.0, 60.0), True)])
def test_the_first_processs_clock_decides_for_all(
    clocks: tuple[float, float], due: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes one after another, whose clocks say how old the last checkpoint is."""
    learner: Any = None  # nothing is saved
    collector = Collector(small_starting_model(), chatter(), rows=4)
    checkpointing = Checkpointing(seconds=60.0, keep=1)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    checkpointer = Checkpointer(checkpointing, folder=tmp_path, names={}, learner=learner, collector=collector)
    votes: list[bool] = []

    def vote(mine: bool) -> bool:
        votes.append(mine)
        return mine

    monkeypatch.setattr(collectives, "any_of", vote)
    for rank, clock in enumerate(clocks):
        monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(time, "monotonic", lambda clock=clock: clock)
        checkpointer.due  # noqa: B018 (asks both)
    assert len(votes) == 2 and any(votes) == due
