"""Everything that has to hold on a GPU, checked on a pretended one; `test_device.py` runs it in a process of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from torch import Tensor

from evotext.cli.targets import build
from evotext.models.adapters import LoRA
from evotext.noise import NoiseKey
from evotext.rollouts.captured_step import STEPS_BEFORE, Step
from evotext.rollouts.collector import Collector
from evotext.rollouts.session import Session
from evotext.types import Trajectories
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.device.pretend import FAR, Far, move, pretended
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.rollouts.test_captured_step import conversation
from tests.rollouts.test_session import blocks_of_uneven_length, greedy
from tests.small_models import CONFIGS, RECURRENT, small_model

CONF = Path(__file__).parents[2] / "conf"
# Those with code of their own; the others are settings of them.
ALGORITHMS = (
    *("cma_es", "dapo", "eggroll", "grpo", "gspo", "lora_es", "mezo", "openai_es", "ppo", "scored_es"),
    "scored_es algorithm/perturbation=low_rank",
)
# Noise of full size, and local noise, come from another generator on a CPU than elsewhere (evotext/keys/philox.py).
OWN_NUMBERS = {"openai_es", "mezo", "scored_es"}
GENERATIONS = 2
SMALL = {"population": 4, "prompts": 2, "group_size": 4, "episodes": 8, "minibatches": 2}


def test_mixing_sides_is_an_error_and_crossing_is_noted() -> None:
    """The checks below prove nothing otherwise."""
    with pretended() as crossings:
        a = torch.ones(2, 3, device=FAR)
        assert isinstance(a + 1, Far) and isinstance(a[0], Far) and not crossings
        with pytest.raises(RuntimeError, match="same device"):
            a + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([a, torch.ones(2, 3)])
        assert a.sum().item() == 6.0 and crossings == ["aten._local_scalar_dense.default"]
        b = torch.tensor([1, 2, 0], device=FAR)
        assert crossings[1:] == ["aten._to_copy.default"]
        assert b.nonzero().tolist() == [[0], [1]] and "aten.nonzero.default" in crossings


def generations(name: str, far: bool) -> tuple[list[Tensor], list[Trajectories]]:
    """The weights after some generations of a shipped algorithm, perhaps with other words, and its episodes."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", f"algorithm={name}".split())
    config.algorithm.update({key: small for key, small in SMALL.items() if config.algorithm.get(key, 0) > small})
    if "Adam" in config.algorithm.get("optimizer", {}).get("_target_", ""):
        with open_dict(
            config
        ):  # so that the rounding of a gradient of almost zero does not become a step of full length
            config.algorithm.optimizer.eps = 1e-3
    algorithm = build(config, "algorithm")
    model = with_frequent_ends(small_model("llama", torch.float32))
    if name == "lora_es":
        model = LoRA(rank=2, alpha=4, targets="all-linear", seed=0).attach(model)
    if far:
        move(model.network)
    learner = algorithm.start(model, 0)
    batches = []
    for generation in range(GENERATIONS):
        batches.append(Collector(model, chatter(max_turns=2), rows=32).collect(learner.ask(generation)))
        learner.tell(batches[-1])
    learner.load_state_dict(learner.state_dict())
    return [p.detach().clone() for p in model.network.parameters()], batches


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_computes_on_a_device_what_it_computes_on_the_cpu(name: str) -> None:
    """Every tensor of rollouts, update and state is made where it belongs."""
    if name == "lora_es":
        pytest.importorskip("peft")
    if name == "cma_es":
        pytest.importorskip("cma")
    near, near_batches = generations(name, far=False)
    with pretended():
        far, far_batches = generations(name, far=True)
        assert all(isinstance(p, Far) for p in far)
    if name in OWN_NUMBERS:
        return
    for a, b in zip(near_batches, far_batches, strict=True):
        assert torch.equal(a.tokens_BT, b.tokens_BT)
    for p, q in zip(near, far, strict=True):
        assert isinstance(q, Far)
        torch.testing.assert_close(p, q.near, atol=5e-4, rtol=0)


class Watch:
    """Stands for a recorder of CUDA graphs: runs the step, and keeps what crossed between host and device within it."""

    def __init__(self, crossings: list[str]) -> None:
        self.crossings, self.steps, self.found = crossings, 0, set[str]()

    def record(self, step: Step) -> Step | None:
        step()  # the first one may make what later ones find
        before = len(self.crossings)
        step()
        self.steps += 1
        self.found |= set(self.crossings[before:])
        return step


NOISES: dict[str, Any] = {
    "plain": None,
    "rank 1": LowRank(rank=1, vectors="full"),
    "rank 2": LowRank(rank=2, vectors="full"),
    "full rank": FullRank(vectors="full"),
}


# Every family in the two most usual ways, two of them in all.
@pytest.mark.parametrize(
    ("family", "noise"),
    [
        (family, noise)
        for family in sorted(CONFIGS)
        for noise in list(NOISES)[: 4 if family in ("llama", "gpt2") else 2]
    ],
)
def test_a_decode_step_is_left_to_the_device(family: str, noise: str) -> None:
    """A graph can hold it: nothing comes from the host, and the host waits for nothing."""
    model = with_frequent_ends(small_model(family, torch.float32), share=0.04)
    move(model.network)
    with pretended() as crossings:
        watch, lent, members = Watch(crossings), None, [0] * 12
        if NOISES[noise] is not None:
            network = PerturbedNetwork(model.network)
            lent = NOISES[noise].draw(
                network, NoiseKey(seed=0, generation=0, population=6, antithetic=True, sigma=0.05)
            )
            members = [row // 2 for row in range(12)]
        blocks = blocks_of_uneven_length(12, seed=1)
        session = Session(model, members=members, noise=lent, recorder=watch)
        greedy(session, range(12), blocks, last_turn=True, limit=3 * STEPS_BEFORE)
    assert watch.steps > 0
    # A mixture asks the CPU which experts have tokens: `CudaGraphs` refuses it and the run says so.
    assert bool(watch.found) == (family == "mixtral"), watch.found


@pytest.mark.parametrize("family", RECURRENT)
def test_states_stay_on_the_device(family: str) -> None:
    model = with_frequent_ends(small_model(family, torch.float32), share=0.04)
    near = conversation(Session(model, members=[0] * 12, noise=None), 12)
    move(model.network)
    with pretended():
        far = conversation(Session(model, members=[0] * 12, noise=None), 12)
    assert [[c.ids for c in turn] for turn in near] == [[c.ids for c in turn] for turn in far]
