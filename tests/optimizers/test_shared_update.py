"""An update that processes share: the same bits as one that each repeats, with 1 / N of its state in each."""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evotext.distributed import collectives
from evotext.distributed.tensor_tree import pack
from optimizers.ascent import Ascent
from optimizers.decay import Anchored, NoDecay
from optimizers.ownership import owners
from optimizers.perturbations import FullRank
from tests.optimizers.generations import POPULATION, PROMPTS, eggroll, told
from tests.runner.small_runs import ended, lines_of, outcome_of, run_to_the_end, together
from tests.small_models import small_model

SGD = partial(torch.optim.SGD, lr=0.3)
ADAM = partial(torch.optim.Adam, lr=0.05)
MOMENTUM, ADAMW = partial(SGD, momentum=0.9), partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1)
KINDS = [
    (SGD, torch.float32, "masters", NoDecay()),
    (SGD, torch.bfloat16, "stochastic", Anchored(rate=0.5)),
    (MOMENTUM, torch.float32, "masters", Anchored(rate=0.5)),
    (MOMENTUM, torch.bfloat16, "masters", NoDecay()),
    (ADAM, torch.bfloat16, "stochastic", NoDecay()),
    (ADAM, torch.bfloat16, "masters", Anchored(rate=0.5)),
    (ADAMW, torch.float32, "masters", NoDecay()),
    (partial(torch.optim.Adafactor, lr=0.05), torch.bfloat16, "stochastic", NoDecay()),
]
UNEVEN = {"a": (7, 5), "b": (3,), "c": (11, 13), "d": (1,), "e": (2, 3, 4)}


@pytest.mark.parametrize(
    ("sizes", "processes", "expected"),
    [([6, 6, 6, 6], 2, [0, 1, 0, 1]), ([1, 9, 2, 5], 2, [1, 0, 1, 1]), ([4], 3, [0]), ([], 2, [])],
)
def test_the_largest_go_first_to_whoever_has_least(sizes: list[int], processes: int, expected: list[int]) -> None:
    assert owners(sizes, processes) == expected


def parameters(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, nn.Parameter]:
    drawn = torch.Generator().manual_seed(1)
    return {name: nn.Parameter(torch.randn(shape, generator=drawn).to(dtype)) for name, shape in shapes.items()}


def directions(ascent: Ascent, shapes: Mapping[str, tuple[int, ...]], step: int) -> list[tuple[str, Tensor]]:
    drawn = torch.Generator().manual_seed(100 + step)
    every = [(name, torch.randn(shape, generator=drawn)) for name, shape in shapes.items()]
    return [(name, direction) for name, direction in every if name in ascent.own]


def state_bytes(ascent: Ascent) -> int:
    """The state that stays between two steps: masters that are not the weights, and all that the optimizer keeps."""
    kept = [*ascent._weights.state_dict().values()]
    for state in ascent.optimizer.state.values():
        kept += [value for value in state.values() if torch.is_tensor(value) and value.ndim]
    return sum(value.numel() * value.element_size() for value in kept)


def same_trees(one: object, other: object) -> None:
    (shape, tensors), (others_shape, others) = pack(one, ""), pack(other, "")
    assert shape == others_shape
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def steps_alike(folder: Path) -> None:
    """Repeated and shared, side by side in each process; the shared one goes on from its own state, given to all."""
    for optimizer, dtype, narrow, decay in KINDS:
        made: list[tuple[Ascent, dict[str, nn.Parameter]]] = []
        for shared in (False, True, True):
            weights = parameters(UNEVEN, dtype)
            made.append((Ascent(weights, optimizer, decay=decay, narrow=narrow, seed=4, shared=shared), weights))  # type: ignore[arg-type]
        (repeated, expected), (ascent, found), (resumed, after) = made
        for step in range(2):
            moved = repeated.step(directions(repeated, UNEVEN, step))
            assert ascent.step(directions(ascent, UNEVEN, step)) == moved > 0
            assert ascent.drift == repeated.drift
            for name, weight in expected.items():
                assert torch.equal(weight, found[name]), (name, optimizer, dtype, decay, narrow)
        state, whole = ascent.state_dict(), repeated.state_dict()
        if collectives.rank() == 0:
            same_trees(state, whole)
        with torch.no_grad():
            for name, weight in after.items():
                weight.copy_(found[name])
        resumed.load_state_dict(copy.deepcopy(whole))
        for each in (repeated, resumed):
            each.step(directions(each, UNEVEN, 2))
        for name, weight in expected.items():
            assert torch.equal(weight, after[name]), name
    halves = {str(number): (8, 6) for number in range(6)}
    sizes = []
    for shared in (False, True):
        ascent = Ascent(parameters(halves, torch.bfloat16), ADAM, shared=shared)
        ascent.step(directions(ascent, halves, 0))
        sizes.append(state_bytes(ascent))
    assert sizes[0] == 6 * 48 * 4 * 3, "masters and two moments of every number"
    assert sizes[1] * collectives.world_size() == sizes[0]
    # More processes than parameters: some have nothing to do and yet the same weights.
    single = parameters({"a": (3, 2)}, torch.float32)
    Ascent(single, ADAM, shared=True).step([("a", torch.ones(3, 2))] * (collectives.rank() == 0))
    torch.testing.assert_close(single["a"], parameters({"a": (3, 2)}, torch.float32)["a"] + 0.05)
    (folder / f"passed-{collectives.rank()}").touch()


@pytest.mark.parametrize("size", [2, 3])
def test_steps_are_those_of_one_process_with_a_part_of_the_state(tmp_path: Path, size: int) -> None:
    assert ended(*together(size, steps_alike, tmp_path)) == [0] * size
    assert len(list(tmp_path.iterdir())) == size


def generations_alike(folder: Path) -> None:
    """Whole updates of a model, low rank and full rank: weights and figures to the last bit."""
    for dtype, more in ((torch.float32, {}), (torch.bfloat16, {"perturbation": FullRank(vectors="frozen")})):
        weights: list[dict[str, Tensor]] = []
        figures: list[list[dict[str, float]]] = []
        flops: list[float] = []
        for update in ("repeated", "shared"):
            model = small_model("llama", dtype)
            learner = eggroll(optimizer=ADAM, update=update, sigma=0.2, **more).start(model, 3)
            reports = []
            for generation in range(2):
                plan = learner.ask(generation)
                return_B = torch.randn(POPULATION * PROMPTS, generator=torch.Generator().manual_seed(generation))
                reports.append(learner.tell(told(plan, return_B.double())))
            weights.append({name: p.detach() for name, p in model.network.named_parameters()})
            figures.append([dict(report.metrics) for report in reports])
            flops.append(sum(report.cost.flops for report in reports))
        assert figures[0] == figures[1]
        for name, weight in weights[0].items():
            assert torch.equal(weight, weights[1][name]), name
        assert collectives.total(flops[1]) == pytest.approx(flops[0]), "the work of one, together"
    (folder / f"passed-{collectives.rank()}").touch()


def test_updates_of_a_model_are_those_of_one_process(tmp_path: Path) -> None:
    assert ended(*together(2, generations_alike, tmp_path)) == [0, 0]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_a_run_that_three_share_is_taken_up_by_two_and_by_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"generations": 4, "rows": 4}
    shared = options | {"settings": {"update": "shared"}}
    run_to_the_end(tmp_path / "alone", "eggroll", options=options)
    for generations, size in ((2, 3), (3, 2), (4, 1)):
        processes = together(
            size, run_to_the_end, tmp_path / "run", "eggroll", size < 3, shared | {"generations": generations}
        )
        assert ended(*processes) == [0] * size
    found, expected = outcome_of(tmp_path / "run"), outcome_of(tmp_path / "alone")
    assert found["weights"] == expected["weights"]
    train = [[line for line in lines_of(tmp_path / name) if line["kind"] == "train"] for name in ("run", "alone")]
    assert train[0] == train[1] and len(train[0]) == 4
