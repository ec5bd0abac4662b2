"""Small tasks that must be solved, not only improved: a bandit, and two turns paid once at the end."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from evotext.models.language_model import LanguageModel
from evotext.types import Cost, Ending, RolloutPlan, Trajectories
from tests.baselines.one_step import grpo, ppo
from tests.small_models import small_model

VOCABULARY = 8
CUES = (1, 2)
FILLER, KEY = 3, 4
ADAM = partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.0)


def tiny_model(seed: int) -> LanguageModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=7,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config).eval()
    return replace(small_model("llama", torch.float32), network=network, context_length=16)


@torch.no_grad()
def sample(model: LanguageModel, tokens_BT: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability, from the whole conversation run anew."""
    logprob_BV = model.network(input_ids=tokens_BT).logits[:, -1].log_softmax(-1)
    token_B1 = torch.multinomial(logprob_BV.exp(), 1, generator=generator)
    return token_B1, logprob_BV.gather(1, token_B1)


def play(
    model: LanguageModel, plan: RolloutPlan, turns: int, pays: Callable[[Tensor, list[Tensor]], Tensor]
) -> Trajectories:
    """Slow and obvious: a cue, then in each turn one answer; the environment says the filler between them."""
    generator = torch.Generator().manual_seed(1000 * (1 + plan.seed) + plan.generation)
    rows = len(plan.instances)
    cue_B1 = torch.tensor([[CUES[instance // 2 % 2]] for instance in plan.instances])
    filler_B1, nothing_B1 = torch.full((rows, 1), FILLER), torch.zeros(rows, 1)
    tokens, logprobs, own, answers = [cue_B1], [nothing_B1], [False], []
    for turn in range(turns):
        if turn:
            tokens, logprobs, own = [*tokens, filler_B1], [*logprobs, nothing_B1], [*own, False]
        answer_B1, logprob_B1 = sample(model, torch.cat(tokens, 1), generator)
        tokens, logprobs, own = [*tokens, answer_B1], [*logprobs, logprob_B1], [*own, True]
        answers.append(answer_B1[:, 0])
    reward_B = pays(cue_B1[:, 0], answers).double()
    width = len(own)
    reward_BT = torch.zeros(rows, width)
    reward_BT[:, -1] = reward_B.float()
    return Trajectories(
        plan=plan,
        tokens_BT=torch.cat(tokens, 1),
        length_B=torch.full((rows,), width),
        policy_mask_BT=torch.tensor(own).expand(rows, width),
        turn_BT=(torch.arange(width) // 2).expand(rows, width),
        reward_BT=reward_BT,
        return_B=reward_B,
        success_B=reward_B == 1,
        ending_B=torch.full((rows,), Ending.TASK),
        has_tokens_B=torch.ones(rows, dtype=torch.bool),
        overlong_B=torch.zeros(rows, dtype=torch.bool),
        cost=Cost(),
        transcripts=(),
        logprob_BT=torch.cat(logprobs, 1),
    )


def final_success(
    algorithm: Any,
    turns: int,
    pays: Callable[[Tensor, list[Tensor]], Tensor],
    generations: int,
    seed: int,
    ends: Callable[[Trajectories], Trajectories] = lambda batch: batch,
) -> tuple[float, float]:
    model = tiny_model(seed)
    algorithm = algorithm.start(model, seed)
    returns = []
    for generation in range(generations):
        batch = play(model, algorithm.ask(generation), turns, pays)
        algorithm.tell(ends(batch))
        returns.append(float(batch.return_B.mean()))
    return sum(returns[:3]) / 3, sum(returns[-3:]) / 3


def cut_at_failure(batch: Trajectories) -> Trajectories:
    """Mark failures as cut off by a limit, as in a task that only success ends."""
    reached_B = batch.return_B == 1
    return replace(batch, ending_B=torch.where(reached_B, Ending.TASK, Ending.TURN_LIMIT))


def named_arm(cue_B: Tensor, answers: list[Tensor]) -> Tensor:
    return answers[0] == KEY + cue_B - 1  # another arm for each cue


def key_and_cue(cue_B: Tensor, answers: list[Tensor]) -> Tensor:
    """The key in the first turn and the cue, remembered, in the second: paid once, for both or not at all."""
    return (answers[0] == KEY) & (answers[1] == cue_B)


@pytest.mark.learning
@pytest.mark.parametrize("make", [grpo, ppo])
def test_a_bandit_is_solved(make: Any, seed: int) -> None:
    rows = {"prompts": 8, "group_size": 8} if make is grpo else {"episodes": 64}
    first, last = final_success(make(**rows, optimizer=ADAM, max_grad_norm=1.0), 1, named_arm, 50, seed)
    assert first < 0.4 and last > 0.9, (first, last)


@pytest.mark.learning
@pytest.mark.parametrize("unfinished", ["counted", "masked"])
def test_a_task_that_only_success_ends_is_solved_if_unfinished_episodes_count(unfinished: str, seed: int) -> None:
    algorithm = grpo(prompts=8, group_size=8, optimizer=ADAM, max_grad_norm=1.0, unfinished=unfinished)
    first, last = final_success(algorithm, 1, named_arm, 50, seed, cut_at_failure)
    assert first < 0.4
    assert last > 0.9 if unfinished == "counted" else last < 0.4


@pytest.mark.slow
@pytest.mark.learning
def test_grpo_solves_two_turns_paid_once_at_the_end(seed: int) -> None:
    algorithm = grpo(prompts=16, group_size=16, optimizer=ADAM, max_grad_norm=1.0)
    first, last = final_success(algorithm, 2, key_and_cue, 80, seed)
    assert first < 0.2 and last > 0.9, (first, last)


@pytest.mark.slow
@pytest.mark.learning
def test_ppo_solves_two_turns_paid_once_at_the_end(seed: int) -> None:
    """Three times the step makes it give the first cue's answer to both, for certain, before it has told them apart.

    GRPO compares answers to the same cue, so the rarer success counts as much as the other.
    """
    adam = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)
    algorithm = ppo(episodes=256, epochs=2, minibatches=2, optimizer=adam, max_grad_norm=1.0)
    first, last = final_success(algorithm, 2, key_and_cue, 120, seed)
    assert first < 0.2 and last > 0.9, (first, last)
