"""The distance from the starting policy: 0 at the start, and the whole distributions' KL on average."""

import copy

import pytest
import torch

from evotext.keys.instances import held_out_instances
from evotext.rollouts.collector import Collector
from evotext.runner import divergence
from evotext.runner.divergence import StartingPolicy
from evotext.types import RolloutPlan, Sampling
from tests.rollouts.chatter import chatter
from tests.small_models import small_model


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_the_mean_of_the_written_out_divergence(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly 0 before, row by row without padding afterwards, and near the KL of whole distributions at those places."""
    monkeypatch.setattr(divergence, "MAX_LOGITS", 1)  # one row at a time
    model = small_model(family, torch.float32)
    collector = Collector(model, chatter(longest=3), rows=64)
    start = StartingPolicy(collector, episodes=64)
    assert start.divergence()[0] == 0.0
    before = copy.deepcopy(model.network)
    with torch.no_grad():
        for i, parameter in enumerate(model.network.parameters()):
            parameter += 0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    found, cost = start.divergence()
    plan = RolloutPlan(
        seed=0,
        generation=0,
        instances=held_out_instances(64),
        groups=tuple(range(64)),
        sampling=Sampling(temperature=1.0),
        split="test",
    )
    now, model.network.forward = model.network.forward, before.forward  # the starting model's answers once more
    batch = collector.collect(plan)
    model.network.forward = now
    ratios, whole = [], []
    with torch.inference_mode():
        for row in range(64):
            ids = batch.tokens_BT[row, : batch.length_B[row]][None]
            first = before(input_ids=ids).logits[0].double().log_softmax(-1)
            second = model.network(input_ids=ids).logits[0].double().log_softmax(-1)
            for t in range(1, ids.shape[1]):
                if batch.policy_mask_BT[row, t]:
                    ratio = float(second[t - 1, ids[0, t]] - first[t - 1, ids[0, t]])
                    ratios.append(torch.expm1(torch.tensor(ratio, dtype=torch.float64)).item() - ratio)
                    whole.append(float((first[t - 1].exp() * (first[t - 1] - second[t - 1])).sum()))
    assert found == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
    assert found == pytest.approx(sum(whole) / len(whole), rel=0.25)
    assert found > 1e-3
    assert cost.flops > 0
