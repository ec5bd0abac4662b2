"""The cost model against counting by hand and against what runs exchange; shares of a plan; the suite on the smallest scale."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from evotext.commands.benchmarks.cost_model import (
    Exchange,
    Link,
    Work,
    efficiency,
    exchange,
    fastest,
    generation_seconds,
    largest_share,
)
from hypothesis import given
from hypothesis import strategies as st

from evotext.distributed import collectives
from evotext.rollouts.collector import Collector
from evotext.types import RolloutPlan, Sampling
from optimizers.ownership import owners
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import EPISODES, ended, run_to_the_end, small_starting_model, together

ROOT = Path(__file__).resolve().parent.parent
MODEL = small_starting_model()
NO_LINK = Link(latency=0.0, bandwidth=float("inf"))
ES = Work(rollout_seconds=0.9, update_seconds=0.1, rows=1024, whole=8, at_once=256, tensors=38)
RL = replace(ES, whole=1, parameters=1_000_000, steps=1, width=50)


def test_an_evolution_strategy_stops_at_its_update_and_gradients_at_their_share() -> None:
    """Amdahl by hand: 0.9 s are shared, 0.1 s are repeated by every device."""
    assert efficiency(ES, 4, NO_LINK) == pytest.approx(1 / (4 * (0.9 / 4 + 0.1)))
    assert efficiency(RL, 4, NO_LINK) == pytest.approx(1.0)
    assert efficiency(ES, 1, NO_LINK) == 1.0
    # More devices than members share a member's rows; more than rows have nothing to do.
    assert generation_seconds(ES, 1024, NO_LINK) == pytest.approx(0.9 / 1024 + 0.1)
    assert generation_seconds(ES, 4096, NO_LINK) == pytest.approx(0.9 / 1024 + 0.1)
    assert fastest(ES, NO_LINK, 4096) == 1024


def test_a_shared_update_divides_by_the_largest_parameter() -> None:
    """Ten parameters of 100 bytes: 0.1 s of update become 0.1 / 2 on two devices and stay 0.1 / 10 beyond ten."""
    shared = replace(ES, weights=(100,) * 10)
    assert generation_seconds(shared, 2, NO_LINK) == pytest.approx(0.45 + 0.05)
    assert generation_seconds(shared, 1024, NO_LINK) == pytest.approx(0.9 / 1024 + 0.01)
    assert efficiency(shared, 4, NO_LINK) > efficiency(ES, 4, NO_LINK)
    assert generation_seconds(shared, 1, NO_LINK) == generation_seconds(ES, 1, NO_LINK)
    # A link of a byte a second costs more than the update that is saved: 1,000 bytes down a tree of two levels.
    slow = Link(latency=0.0, bandwidth=1.0)
    more = exchange(shared, 4).seconds(4, slow) - exchange(ES, 4).seconds(4, slow)
    assert more == pytest.approx(2 * 1000 + 2 * 3 * (6 * 8 * 10) / 4)
    assert efficiency(shared, 4, slow) < efficiency(ES, 4, slow)


def test_messages_go_around_a_ring() -> None:
    """Four devices, 100 bytes: a gather is 3 steps of 100 bytes, a sum 6 steps of 25."""
    link = Link(latency=0.5, bandwidth=100.0)
    assert Exchange(gathers=(100,), sums=()).seconds(4, link) == pytest.approx(3 * (0.5 + 1.0))
    assert Exchange(gathers=(), sums=(100,)).seconds(4, link) == pytest.approx(6 * (0.5 + 0.25))
    slow = Link(latency=1e-3, bandwidth=1e6)
    assert fastest(RL, slow, 1024) < 16, "gradients over a slow link end it early"


@given(members=st.integers(1, 40), whole=st.integers(1, 9), count=st.integers(2, 12), at_once=st.integers(1, 60))
def test_shares_are_those_of_the_model_and_hold_every_row_once(
    members: int, whole: int, count: int, at_once: int
) -> None:
    rows = members * whole
    plan = RolloutPlan(
        seed=0,
        generation=0,
        instances=tuple(range(rows)),
        groups=tuple(range(rows)),
        sampling=Sampling(temperature=0.0),
    )
    object.__setattr__(plan, "members", tuple(row // whole for row in range(rows)))  # no noise is needed to share
    engine = Collector(MODEL, chatter(longest=1), rows=at_once, even=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "world_size", lambda: count)
        batches = list(engine._batches(plan, list(range(rows))))
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    assert max(map(len, batches)) <= at_once
    shares = [sum(map(len, batches[process::count])) for process in range(count)]
    work = replace(ES, rows=rows, whole=whole, at_once=at_once)
    assert max(shares) == largest_share(work, count)
    if whole <= -(-rows // count) <= at_once - whole:
        assert max(shares) < rows / count + whole, "no process has a member more than its share"


@pytest.mark.parametrize(("algorithm", "update"), [("eggroll", "repeated"), ("eggroll", "shared"), ("grpo", "")])
def test_bytes_are_those_of_the_formula(tmp_path: Path, algorithm: str, update: str) -> None:
    options = {"generations": 1, "rows": EPISODES // 2, "settings": {"update": update} if update else {}}
    assert ended(*together(2, run_to_the_end, tmp_path, algorithm, False, options)) == [0, 0]
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "model" / "model.safetensors")
    work = Work(
        rollout_seconds=1.0,
        update_seconds=1.0,
        rows=EPISODES,
        whole=2 if algorithm == "eggroll" else 1,
        at_once=EPISODES // 2,
        tensors=len(weights),
    )
    if algorithm == "eggroll":
        if update == "shared":  # vectors are frozen
            sizes = [p.numel() * p.element_size() for p in MODEL.network.parameters() if p.ndim > 1]
            work = replace(work, weights=tuple(sizes))
            assert 0 < owners(sizes, 2).count(0) < len(sizes)
        assert line["processes/bytes"] == exchange(work, 2).bytes
        return
    parameters = sum(tensor.numel() for tensor in weights.values())
    steps = 4  # two epochs of two minibatches in `small_runs`
    small = replace(work, parameters=parameters, steps=1, width=1)
    large = replace(work, parameters=parameters, steps=steps, width=128)
    assert exchange(small, 2).bytes < line["processes/bytes"] < 1.1 * exchange(large, 2).bytes


@pytest.mark.slow
def test_the_suite_measures_and_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    words = ["members=4", "prompts=4", "new_tokens=2", "repeats=1", "device=cpu", "suite=scaling", f"out={out}"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmark.py", *words], capture_output=True, text=True, cwd=ROOT
    )
    if len(os.sched_getaffinity(0)) < 2:
        assert done.returncode == 2 and "expected at least 2 cores" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    found = {figure["name"]: figure for figure in json.loads(out.read_text())["figures"]}
    assert found["shared_over_repeated/2"]["value"] > 0
    for name in ("eggroll", "eggroll_shared", "grpo"):
        for kind in ("parallel_efficiency", "parallel_efficiency_modelled", "bytes_a_generation", "waiting_share"):
            assert found[f"{kind}/{name}/2"]["value"] >= 0
        assert 0 < found[f"parallel_efficiency_forecast/{name}/1024"]["value"] < 1
    assert found["bytes_a_generation/eggroll/2"]["value"] == found["bytes_a_generation_modelled/eggroll/2"]["value"]
    shared = [found[f"bytes_a_generation{kind}/eggroll_shared/2"]["value"] for kind in ("", "_modelled")]
    assert shared[0] == shared[1] > 1e6, "half of a million parameters, in bfloat16 where that is faster"
    assert found["bytes_a_generation/grpo/2"]["value"] > 4e6, "gradients of a million parameters"
