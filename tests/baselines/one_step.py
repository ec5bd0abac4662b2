"""One generation of GRPO or PPO with a small model, and its gradient written out."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from baselines import GRPO, PPO
from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.types import Trajectories
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.small_models import small_model

SGD = partial(torch.optim.SGD, lr=1.0)


@cache
def shipped_settings(name: str) -> dict[str, Any]:
    """The keys of an algorithm's YAML, its schedules made."""
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        node = compose("config", [f"algorithm={name}"]).algorithm
    made = {str(key): instantiate(node[key]) for key in node if str(key).endswith("_schedule")}
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if not str(key).startswith("_")} | made


def settings(name: str, **changes: Any) -> dict[str, Any]:
    """The shipped hyperparameters with plain SGD and small batches, and changes."""
    shipped = shipped_settings(name)
    small = {"episodes": 12} if name == "ppo" else {"prompts": 4, "group_size": 3}
    return shipped | small | {"optimizer": SGD, "max_grad_norm": None} | changes


def grpo(**changes: Any) -> GRPO:
    return GRPO(**settings("grpo", **changes))


def ppo(**changes: Any) -> PPO:
    return PPO(**settings("ppo", **{"epochs": 1, "minibatches": 1} | changes))


def fresh_model(seed: int = 0) -> LanguageModel:
    return with_frequent_ends(small_model("llama", seed=seed))


def collected(learner: Any, model: LanguageModel, generation: int = 0) -> Trajectories:
    """The episodes that the learner asks for."""
    return Collector(model, chatter(), rows=64).collect(learner.ask(generation))


def one_generation(algorithm: Any, model: LanguageModel, generation: int = 0) -> tuple[Trajectories, Any]:
    learner = algorithm.start(model, 0)
    batch = collected(learner, model, generation)
    return batch, learner.tell(batch)


def weights(model: LanguageModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.network.parameters()]


def change(before: list[torch.Tensor], model: LanguageModel) -> list[torch.Tensor]:
    return [a - b.detach() for a, b in zip(before, model.network.parameters(), strict=True)]


def written_out_gradient(model: LanguageModel, batch: Trajectories, weight_BT: torch.Tensor) -> list[torch.Tensor]:
    """Gradient of -sum w log pi, row by row, from the network's own logits."""
    model.network.zero_grad()
    for row in range(len(batch.length_B)):
        length = int(batch.length_B[row])
        ids = batch.tokens_BT[row : row + 1, :length]
        logprob = model.network(input_ids=ids).logits[0].log_softmax(-1)
        for t in range(1, length):
            if batch.policy_mask_BT[row, t]:
                (-float(weight_BT[row, t]) * logprob[t - 1, ids[0, t]]).backward(retain_graph=True)
    gradient = [p.grad.clone() for p in model.network.parameters() if p.grad is not None]
    model.network.zero_grad()
    return gradient


def assert_same(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    largest = max(float(x.abs().max()) for x in expected)
    assert largest > 0
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * largest, rtol=1e-4)  # Llama's norms compute in float32
