"""sigma=auto: noise in shares of each parameter's own scale; the estimate stays one of the slope by the weights."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from evotext.noise import Perturbation
from optimizers.fitness_shaping import z_score
from optimizers.perturbations import FullRank, LowRank
from optimizers.scales import own_scales
from tests.optimizers.generations import POPULATION, PROMPTS, RATE, eggroll, told
from tests.small_models import VOCABULARY, small_model

SHARE = 0.05
KINDS = [LowRank(rank=2, vectors="full"), FullRank(vectors="full")]
auto = partial(eggroll, sigma="auto", sigma_share=SHARE)


def by_hand(weight: Tensor) -> float:
    entries = weight.double().flatten().tolist()
    return float((sum(w * w for w in entries) / len(entries)) ** 0.5)


def test_the_scale_is_the_root_mean_square_of_a_parameter() -> None:
    weights = {"a": torch.randn(7, 5), "b": 0.02 * torch.randn(30, 50), "zeros": torch.zeros(10)}
    together = by_hand(torch.cat([w.flatten() for w in weights.values()]))
    expected = {"a": by_hand(weights["a"]), "b": max(by_hand(weights["b"]), together / 10), "zeros": together / 10}
    assert own_scales(weights) == pytest.approx(expected, rel=1e-6)
    assert own_scales({"zeros": torch.zeros(3)}) == {"zeros": 1.0}


@pytest.mark.parametrize("perturbation", KINDS)
def test_each_member_runs_with_weights_that_were_moved_by_a_share_of_their_scale(perturbation: Perturbation) -> None:
    model = small_model()
    network, weights = model.network, {name: p.detach() for name, p in model.network.named_parameters()}
    noise = auto(perturbation=perturbation).start(model, 0).ask(0).noise
    assert noise is not None
    ids_KT = torch.randint(0, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), noise.active([1, 4], 1):
        found_PTV = network(input_ids=ids_KT).logits
    for row, member in enumerate((1, 4)):
        unit = dict(noise.combine(F.one_hot(torch.tensor(member), POPULATION).double()))
        moved = {name: w + SHARE * own_scales(weights)[name] * unit[name] for name, w in weights.items()}
        logits = functional_call(network, moved, kwargs={"input_ids": ids_KT[row : row + 1]}).logits
        torch.testing.assert_close(found_PTV[row], logits[0].detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("perturbation", KINDS)
def test_the_step_is_the_written_out_sum(perturbation: Perturbation) -> None:
    """lr / (N share s_i) sum_n w_n E_n of each parameter of scale s_i: to 1e-10, its figures too."""
    model = small_model()
    learner = auto(perturbation=perturbation).start(model, 0)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    plan, scales = learner.ask(0), own_scales(before)
    assert plan.noise is not None and len({round(scale, 3) for scale in scales.values()}) > 1
    return_PQ = torch.randn(POPULATION, PROMPTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = dict(plan.noise.combine(z_score(return_PQ)))
    report = learner.tell(told(plan, return_PQ.flatten()))
    length = 0.0
    for name, parameter in model.network.named_parameters():
        slope = sums[name] / (POPULATION * SHARE * scales[name])
        torch.testing.assert_close(parameter.detach() - before[name], RATE * slope, rtol=0, atol=1e-10)
        length += float(slope.square().sum())
    assert report.metrics["pseudo_gradient_norm"] == pytest.approx(length**0.5)
    assert report.metrics["sigma"] == SHARE


def test_weights_ten_times_as_large_get_ten_times_the_noise() -> None:
    grown = []
    for factor in (1.0, 10.0):
        model = small_model()
        with torch.no_grad():
            model.network.lm_head.weight.mul_(factor)
        learner = auto(perturbation=FullRank(vectors="frozen"), exclude=["*.layers.*", "*.embed_tokens.*"]).start(
            model, 0
        )
        noise = learner.ask(0).noise
        assert noise is not None
        grown.append(noise.for_members([0]).linear("lm_head.weight", torch.ones(1, 1, 32, dtype=torch.float64)))
    torch.testing.assert_close(grown[1], 10 * grown[0], rtol=1e-12, atol=0)


def test_noise_on_vectors_that_bf16_would_round_off_is_measured_by_their_scale() -> None:
    """Scales of norms are near 1, so a share of 0.15 is far above what bf16 numbers are apart there, and 0.001 is not."""
    model = small_model("llama", torch.bfloat16)
    perturbation = LowRank(rank=1, vectors="full")
    eggroll(sigma="auto", sigma_share=0.15, perturbation=perturbation).start(model, 0)
    with pytest.raises(ValueError, match=r"sigma: expected at least 0\.0078125"):
        eggroll(sigma="auto", sigma_share=0.001, perturbation=perturbation).start(model, 0)


@pytest.mark.parametrize(
    ("changes", "named"), [({"sigma": "automatic"}, "sigma"), ({"sigma_share": 0.0}, "sigma_share")]
)
def test_bad_settings_are_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        eggroll(**changes)
