"""EGGROLL as a whole: its step is the written-out sum, nothing happens without signal, and it climbs."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.types import Outcome
from optimizers.fitness_shaping import raw, task_z_score, z_score
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbations.full_rank import FullRankNoise
from optimizers.perturbations.low_rank import LowRankNoise
from tests.optimizers.generations import POPULATION, PROMPTS, RATE, SIGMA, eggroll, told
from tests.small_models import VOCABULARY, small_model

ADAMW = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)


def _returns(generation: int = 0, population: int = POPULATION) -> Tensor:
    return torch.randn(population * PROMPTS, generator=torch.Generator().manual_seed(generation), dtype=torch.float64)


def _weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


def test_rows_are_ordered_by_member_and_all_answer_the_same_instances() -> None:
    """A pure function of seed and generation."""
    learner = eggroll().start(small_model(), 4)
    plan, later = learner.ask(6), learner.ask(7)
    assert plan.members == tuple(m for m in range(POPULATION) for _ in range(PROMPTS))
    assert plan.instances == train_instances(4, 6, PROMPTS) * POPULATION
    assert plan.groups == tuple(range(PROMPTS)) * POPULATION
    assert set(plan.instances).isdisjoint(later.instances)
    assert plan.noise is not None
    weight_P = torch.ones(POPULATION).cumsum(0)
    again = learner.ask(6)
    assert again.noise is not None
    for (name, first), (_, second) in zip(plan.noise.combine(weight_P), again.noise.combine(weight_P), strict=True):
        assert torch.equal(first, second), name


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_step_is_the_written_out_sum(family: str, antithetic: bool) -> None:
    """W + lr / (N sigma) sum_n w_n E_n, member by member, in float64 to 1e-10. GPT-2 stores its matrices transposed and
    ties its head. Catches a wrong constant or sign, a lost transpose, and an update by noise that no layer applied.
    """
    model = small_model(family)
    learner = eggroll(antithetic=antithetic).start(model, 0)
    before, plan = _weights(model), learner.ask(0)
    assert plan.noise is not None
    members = []
    for member in range(POPULATION):
        one_hot = F.one_hot(torch.tensor(member), POPULATION).double()
        members.append(dict(plan.noise.combine(one_hot)))
    report = learner.tell(told(plan, _returns()))
    weight_P = z_score(_returns().view(POPULATION, PROMPTS))
    moved = 0.0
    for name, after in model.network.named_parameters():
        step = sum(w * member[name] for w, member in zip(weight_P, members, strict=True)) * RATE / (POPULATION * SIGMA)
        expected = step.T if family == "gpt2" and name.split(".")[-2].startswith("c_") and step.ndim == 2 else step
        torch.testing.assert_close(after.detach() - before[name], expected, rtol=0, atol=1e-10)
        moved += float(step.square().sum())
    assert report.cost.updates == 1
    assert report.cost.flops > 0
    assert report.metrics["update_norm"] == pytest.approx(moved**0.5)
    assert report.metrics["drift"] == pytest.approx(moved**0.5)
    assert report.metrics["pseudo_gradient_norm"] == pytest.approx(moved**0.5 / RATE)


@pytest.mark.parametrize("shape", [z_score, task_z_score])
def test_without_signal_nothing_changes(shape: Callable[[Tensor], Tensor]) -> None:
    """Not the weights, not the optimizer's momentum, not by weight decay; and the report says so."""
    model = small_model()
    learner = eggroll(optimizer=ADAMW, fitness_shaping=shape).start(model, 0)
    learner.tell(told(learner.ask(0), _returns()))
    weights, state = _weights(model), copy.deepcopy(learner.state_dict())
    level = torch.tensor([0.1, 1 / 3, 0.7]).double().repeat(POPULATION)
    report = learner.tell(told(learner.ask(1), level))
    assert report.outcome is Outcome.NO_SIGNAL
    assert report.metrics["frac_tasks_without_signal"] == 1
    assert report.cost.updates == 0
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    torch.testing.assert_close(learner.state_dict(), state, rtol=0, atol=0)


def test_exchanging_the_returns_of_every_pair_turns_the_step_round() -> None:
    """Sign symmetry of mirrored sampling."""
    changes = []
    returns_PQ = _returns().view(POPULATION, PROMPTS)
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]):
        model = small_model()
        before, learner = _weights(model), eggroll().start(model, 0)
        learner.tell(told(learner.ask(0), returns_PQ[order].flatten()))
        changes.append({name: p.detach() - before[name] for name, p in model.network.named_parameters()})
    for name, change in changes[0].items():
        torch.testing.assert_close(changes[1][name], -change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_bit_for_bit_the_same(dtype: torch.dtype) -> None:
    """The state holds momentum, and the masters where the stored weights have lost their lower bits."""
    model = small_model(dtype=dtype)
    learner = eggroll(optimizer=ADAMW).start(model, 0)
    for generation in range(4):
        if generation == 2:
            saved = copy.deepcopy((model.network.state_dict(), learner.state_dict()))
        last = learner.tell(told(learner.ask(generation), _returns(generation)))
    other = small_model(dtype=dtype)
    other.network.load_state_dict(saved[0])
    resumed = eggroll(optimizer=ADAMW).start(other, 0)
    resumed.load_state_dict(saved[1])
    for generation in (2, 3):
        again = resumed.tell(told(resumed.ask(generation), _returns(generation)))
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, dict(other.network.named_parameters())[name]), name
    assert again.metrics == last.metrics


@pytest.mark.parametrize("noise", [LowRankNoise, FullRankNoise])
@pytest.mark.parametrize("sigma", [SIGMA, "auto"])
def test_a_direction_is_freed_before_the_next_one_is_made(
    noise: type[LowRankNoise | FullRankNoise], sigma: float | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedding's direction is as large as a small model's update; its halves are two of them."""
    made: list[StorageWeakRef] = []
    combine = noise.combine

    def others_are_gone(direction: tuple[str, Tensor]) -> tuple[str, Tensor]:
        assert sum(not one.expired() for one in made) == len(made) % 2, "the first half's alone, and for the second's"
        made.append(StorageWeakRef(direction[1].untyped_storage()))
        return direction

    monkeypatch.setattr(noise, "combine", lambda *arguments: map(others_are_gone, combine(*arguments)))
    perturbation = LowRank(rank=2, vectors="full") if noise is LowRankNoise else FullRank(vectors="full")
    learner = eggroll(perturbation=perturbation, sigma=sigma).start(small_model("llama"), 0)
    assert learner.tell(told(learner.ask(0), _returns())).outcome is Outcome.CHANGED
    assert len(made) == 2 * len(learner._ascent.own) and all(one.expired() for one in made)


def test_excluded_and_frozen_parameters_stay() -> None:
    """AdamW's decay would shrink them if the optimizer held them."""
    model = small_model()
    before = _weights(model)
    learner = eggroll(optimizer=ADAMW, perturbation=LowRank(rank=1, vectors="frozen"), exclude=["lm_head.*"]).start(
        model, 0
    )
    learner.tell(told(learner.ask(0), _returns()))
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter.ndim == 1 or "lm_head" in name), name


def test_metrics_are_what_they_say() -> None:
    """Against their definitions on given returns."""
    model = small_model()
    learner = eggroll(fitness_shaping=raw).start(model, 0)
    plan = learner.ask(0)
    return_PQ = _returns().view(POPULATION, PROMPTS)
    return_PQ[:, 1] = 0.25
    assert plan.noise is not None
    halves = []
    for part in (slice(0, 4), slice(4, 8)):
        weight_P = torch.zeros(POPULATION, dtype=torch.float64)
        weight_P[part] = return_PQ.mean(1)[part]
        halves.append(torch.cat([unit.flatten() for _, unit in plan.noise.combine(weight_P)]))
    report = learner.tell(told(plan, return_PQ.flatten()))
    metrics = report.metrics
    fitness_P = return_PQ.mean(1)
    assert metrics["fitness/mean"] == pytest.approx(float(fitness_P.mean()))
    assert metrics["fitness/std"] == pytest.approx(float(fitness_P.std(unbiased=False)))
    assert metrics["fitness/best"] == pytest.approx(float(fitness_P.max()))
    assert metrics["frac_tasks_without_signal"] == pytest.approx(1 / 3)
    assert metrics["learning_rate"] == RATE
    assert metrics["half_cosine"] == pytest.approx(float(F.cosine_similarity(*halves, dim=0)))
    assert report.outcome is Outcome.CHANGED


@pytest.mark.learning
def test_it_climbs(seed: int) -> None:
    """Members run through the perturbed network; the return is the log-probability of a token. It must rise much more
    than by chance. Catches a sign turned anywhere between the layers and the optimizer, and members mixed up.
    """
    model = small_model(dtype=torch.float32, seed=seed)
    ids_KT = torch.randint(0, VOCABULARY, (PROMPTS, 5), generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def goodness(rows: int) -> Tensor:
        logits = model.network(input_ids=ids_KT.repeat(rows, 1)).logits[:, -1]
        return logits.log_softmax(-1)[:, 7]

    learner = eggroll(population=32, sigma=0.02, optimizer=partial(torch.optim.Adam, lr=0.01)).start(model, seed)
    before = float(goodness(1).mean())
    for generation in range(12):
        plan = learner.ask(generation)
        assert plan.noise is not None
        with plan.noise.active(range(32), PROMPTS):
            return_B = goodness(32)
        learner.tell(told(plan, return_B))
    assert float(goodness(1).mean()) > before + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"population": 7},
        {"population": 1, "antithetic": False},
        {"population": "8"},
        {"prompts": 0},
        {"sigma": 0.0},
        {"sigma": float("nan")},
        {"temperature": -1.0},
        {"perturbation": "low_rank"},
        {"optimizer": partial(torch.optim.Adam, lr=-1.0)},
        {"optimizer": partial(torch.optim.Adam, rate=1.0)},
        {"optimizer": torch.optim.LBFGS},
    ],
)
def test_bad_settings_stop_at_once(changes: dict[str, Any]) -> None:
    """In the constructor, before a model is loaded. An odd population with pairs has a member without its mirror image."""
    with pytest.raises((ValidationError, ValueError)) as error:
        eggroll(**changes)
    assert next(iter(changes)) in str(error.value)


def test_an_odd_population_is_fine_without_pairs() -> None:
    model = small_model()
    before, learner = _weights(model), eggroll(population=7, antithetic=False).start(model, 0)
    metrics = learner.tell(told(learner.ask(0), _returns(population=7))).metrics
    assert -1 <= metrics["half_cosine"] <= 1
    assert not torch.equal(model.network.lm_head.weight, before["lm_head.weight"])


def test_noise_that_bf16_would_round_off_is_refused() -> None:
    """At sigma 0.001, 97% of a norm's scales, which are near 1, would not move, while their noise entered the update."""
    for dtype, vectors, refused in [
        (torch.bfloat16, "full", True),
        (torch.bfloat16, "frozen", False),
        (None, "full", False),
    ]:
        algorithm = eggroll(sigma=1e-3, perturbation=LowRank(rank=1, vectors=vectors))
        model = small_model("llama", dtype or torch.float32)
        if not refused:
            algorithm.start(model, 0)
            continue
        with pytest.raises(ValueError, match=r"sigma: expected at least 0\.0078125.*vectors=frozen"):
            algorithm.start(model, 0)
