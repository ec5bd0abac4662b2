"""A recorded decode step writes what the ordinary one writes; on a CPU a tape of operators stands for the graph."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from evotext.noise import NoiseKey
from evotext.rollouts.captured_step import STEPS_BEFORE, CudaGraphs, Step
from evotext.rollouts.collector import Collector
from evotext.rollouts.session import Completion, Session
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.rollouts.test_session import blocks_of_uneven_length
from tests.small_models import CONFIGS, small_model

LIMIT = 4 * STEPS_BEFORE
TURNS = 3


class Tape(TorchDispatchMode):
    """Notes every operator with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        self.calls.append((operator, args, kwargs or {}, result))
        return result


class Taped:
    """Records as a CUDA graph does: a replay runs the recorded operators alone, with whatever Python made of their numbers."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.recorded, self.replayed = refuses, 0, 0

    def record(self, step: Step) -> Step | None:
        self.recorded += 1
        if self.refuses:
            return None
        with Tape() as tape:
            result = step()

        def replay() -> Tensor:
            self.replayed += 1
            made: dict[int, Tensor] = {}

            def now(x: Any) -> Any:
                return made.get(id(x), x) if isinstance(x, Tensor) else x

            for operator, args, kwargs, before in tape.calls:
                after = operator(*tree_map(now, args), **tree_map(now, kwargs))
                pairs = zip(tree_leaves(before), tree_leaves(after), strict=True)
                made |= {id(old): new for old, new in pairs if isinstance(old, Tensor)}
            return made[id(result)]

        return replay


def conversation(session: Session, rows: int) -> list[list[Completion]]:
    """Three turns, from which some rows leave."""
    said, alive, blocks = [], list(range(rows)), blocks_of_uneven_length(rows, seed=1)
    for turn in range(TURNS):
        uniforms = torch.rand(rows, LIMIT, generator=torch.Generator().manual_seed(turn), dtype=torch.float64).float()
        said.append(
            session.complete(
                alive,
                [blocks[row] for row in alive],
                max_new_tokens=LIMIT,
                temperature=1.0,
                uniform_NT=uniforms,
                logprobs=True,
                last_turn=turn + 1 == TURNS,
            )
        )
        replies = blocks_of_uneven_length(rows, seed=10 + turn)
        for row, completion in zip(alive, said[-1], strict=True):
            blocks[row] = [completion.ids[-1], *replies[row]]
        alive = [row for row in alive if (row + turn) % 3]
    return said


def same(one: list[list[Completion]], other: list[list[Completion]]) -> bool:
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    close = all(torch.allclose(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-6) for a, b in pairs)
    return close and all((a.ids, a.ended) == (b.ids, b.ended) for a, b in pairs)


# The CPU decides for every token which experts of a mixture get it: no graph can hold it, and its capture fails.
@pytest.mark.parametrize("family", sorted(set(CONFIGS) - {"mixtral"}))
def test_a_recorded_step_writes_the_same_text(family: str) -> None:
    model, recorder = with_frequent_ends(small_model(family), share=0.04), Taped()
    ordinary = conversation(Session(model, members=[0] * 12, noise=None), 12)
    assert same(conversation(Session(model, members=[0] * 12, noise=None, recorder=recorder), 12), ordinary)
    assert recorder.recorded >= 2 and recorder.replayed > 2 * recorder.recorded, "it was used"


@pytest.mark.parametrize("perturbation", [LowRank(rank=1, vectors="full"), FullRank(vectors="full")])
def test_a_population_decodes_with_its_noise_recorded(perturbation: Any) -> None:
    model = with_frequent_ends(small_model("qwen2"), share=0.04)
    network = PerturbedNetwork(model.network)
    noise = perturbation.draw(network, NoiseKey(seed=0, generation=0, population=6, antithetic=True, sigma=0.05))
    members, recorder = [row // 2 for row in range(12)], Taped()
    ordinary = conversation(Session(model, members=members, noise=noise), 12)
    assert same(conversation(Session(model, members=members, noise=noise, recorder=recorder), 12), ordinary)
    assert not same(conversation(Session(model, members=members, noise=None), 12), ordinary)
    assert recorder.replayed > 0


def test_a_recorder_that_refuses_changes_nothing() -> None:
    model, recorder = small_model("llama"), Taped(refuses=True)
    ordinary = conversation(Session(model, members=[0] * 5, noise=None), 5)
    assert same(conversation(Session(model, members=[0] * 5, noise=None, recorder=recorder), 5), ordinary)
    assert recorder.recorded == 1 and recorder.replayed == 0, "it is not asked again"


def test_short_answers_are_not_worth_a_recording() -> None:
    model, recorder = small_model("llama"), Taped()
    session = Session(model, members=[0, 0], noise=None, recorder=recorder)
    words = {"temperature": 0.0, "uniform_NT": None, "logprobs": False, "last_turn": True}
    session.complete([0, 1], [[5, 6], [7]], max_new_tokens=2 * STEPS_BEFORE - 1, **words)  # type: ignore[arg-type]
    assert recorder.recorded == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("population", [False, True])
def test_a_graph_writes_the_same_text(family: str, population: bool) -> None:
    model = with_frequent_ends(small_model(family), share=0.04)
    model.network.to("cuda")
    noise, members, recorder = None, [0] * 12, CudaGraphs()
    if population:
        members = [row // 2 for row in range(12)]
        network = PerturbedNetwork(model.network)
        noise = LowRank(rank=1, vectors="full").draw(
            network, NoiseKey(seed=0, generation=0, population=6, antithetic=True, sigma=0.05)
        )
    ordinary = conversation(Session(model, members=members, noise=noise), 12)
    assert same(conversation(Session(model, members=members, noise=noise, recorder=recorder), 12), ordinary)
    assert recorder.fault == ""


def test_a_network_that_cannot_be_recorded_is_named_once() -> None:
    collector = Collector(small_model("llama"), chatter(), rows=4)
    assert collector.recorder is None, "there is nothing to record on a CPU"
    collector.recorder = CudaGraphs()
    assert collector.take_notes() == []
    collector.recorder.fault = "operation not permitted when stream is capturing"
    assert collector.take_notes() == [
        "decoding without a CUDA graph, and so slower: operation not permitted when stream is capturing"
    ]
    assert collector.take_notes() == [] and collector.recorder is None
