"""Environments of a model that processes hold together: called by the first process, with the same outcome in all."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evotext.distributed import collectives
from evotext.distributed.tensor_group import TensorGroup
from evotext.models.tool_calls import Tools
from evotext.rollouts.environment_calls import Environment, EnvironmentCalls, EnvironmentFault, Opening, Step
from evotext.rollouts.shared_calls import ElsewhereError, SharedCalls
from evotext.types import Ending
from tests.runner.small_runs import ended, together

OPENING = Opening(observation="ä \n", instructions="", tools=Tools(functions="[]", names=("a",), instructions="Count."))
STEP = Step(observation="", reward=0.1, terminated=True, truncated=False, results=("1", "2"))


class Calls(EnvironmentCalls):
    """Outcomes of every kind; an error in the last call."""

    def __init__(self) -> None:
        super().__init__(None)

    def reset(self, environments: Sequence[Environment], **_: Any) -> Any:
        assert collectives.rank() == 0, "the others call nothing"
        return iter([OPENING, self._fault("reset")])

    def step(self, environments: Sequence[Environment], answers: Sequence[str]) -> Any:
        assert collectives.rank() == 0, "the others call nothing"
        if "broken" in answers:
            raise RuntimeError("broken")
        return iter([STEP, self._fault("step")])

    def _fault(self, call: Any) -> EnvironmentFault:
        return EnvironmentFault(Ending.RAISED, call, ValueError("no"))


def shared() -> None:
    calls = SharedCalls(Calls(), TensorGroup.of(2))
    with calls:
        opened, fault = calls.reset([], seeds=[], split="train")
        assert opened == OPENING
        stepped, later = calls.step([], [])
    assert stepped == STEP
    for found in (fault, later):
        assert isinstance(found, EnvironmentFault) and found.kind == Ending.RAISED and "ValueError: no" in str(found)
    with pytest.raises(RuntimeError, match="broken") as raised:
        calls.step([], ["broken"])
    assert isinstance(raised.value, ElsewhereError) == (collectives.rank() == 1)


def agreed() -> None:
    """The other things that the processes of a group exchange."""
    group, rank = TensorGroup.of(2), collectives.rank()
    assert (group.rank, collectives.share(), collectives.shares()) == (rank % 2, rank // 2, 2)
    assert group.of_first(torch.tensor([rank])).tolist() == [2 * (rank // 2)]
    assert group.text_of_first(f"é {rank}") == f"é {2 * (rank // 2)}"
    assert group.all_reduce(torch.tensor([1.0 + rank])).tolist() == [3.0 + 4 * (rank // 2)]
    whole = torch.arange(10).view(2, 5) + 100 * (rank // 2)
    start, stop = group.bounds(5)
    assert torch.equal(group.join(whole[:, start:stop], 5), whole)
    assert torch.equal(group.join(whole.T[start:stop], 5, dim=0), whole.T)


def printed(name: str) -> None:
    try:
        {"shared": shared, "agreed": agreed}[name]()
    except BaseException:
        traceback.print_exc()
        raise


@pytest.mark.parametrize(("name", "processes"), [("shared", 2), ("agreed", 4)])
def test_all_processes_of_a_group_go_the_same_way(tmp_path: Path, name: str, processes: int) -> None:
    assert ended(*together(processes, printed, name)) == [0] * processes
