"""A model that processes hold together computes what one process does: logits, answers, members, steps, files."""

import copy
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from families.reference import float64_throughout
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from evotext.distributed import collectives
from evotext.distributed.tensor_group import TensorGroup
from evotext.models.huggingface import HuggingFaceModel
from evotext.models.language_model import LanguageModel
from evotext.models.tensor_parallel import divide
from evotext.noise import NoiseKey
from evotext.optimization.factory import check_entry_by_entry
from evotext.rollouts.session import Session
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.generations import eggroll, told
from tests.runner.small_runs import ended, together
from tests.small_models import small_model, small_network

# Neither the vocabulary nor the inner width is a multiple of the processes.
_SHAPE = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 50,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 3,
}
_KEYS = {"num_key_value_heads": 4}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SHAPE, **_KEYS, attention_bias=True, mlp_bias=True),
    "llama, tied, few keys": LlamaConfig(**_SHAPE, num_key_value_heads=1, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**_SHAPE, **_KEYS, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**_SHAPE, num_key_value_heads=2, head_dim=8),
    "mistral": MistralConfig(**_SHAPE, **_KEYS, sliding_window=None),
    "gemma": GemmaConfig(**_SHAPE, num_key_value_heads=1, head_dim=8),
    "phi3": Phi3Config(**_SHAPE, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(**_SHAPE),
}
LOW, FULL = LowRank(rank=2, vectors="full"), FullRank(vectors="full")
PERTURBATIONS = dict.fromkeys(CONFIGS, (LOW, 0.1)) | {"llama": (FULL, "auto"), "qwen2": (LOW, "auto")}
MEMBERS = (0, 1, 3)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def network_of(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(mean=1.0 if parameter.ndim < 2 else 0.0, std=0.2)
    return network.to(dtype).eval()


def held_together(model: LanguageModel, group: TensorGroup) -> LanguageModel:
    """A copy that all processes hold together."""
    network = copy.deepcopy(model.network)
    return replace(model, network=network, parts=divide(network, group))


def wrapped(work: Callable[..., None], *arguments: object) -> None:
    """Run in a process of its own, and print what went wrong, which its parent would not see."""
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        raise


def conversation(
    model: LanguageModel, perturbation: LowRank | FullRank | None, turns: int = 2
) -> tuple[Tensor, list[list[int]]]:
    """Logits of a batch, and the answers of some turns."""
    ids_BT = torch.arange(6 * 5).view(6, 5) * 7 % 101
    noise = None
    if perturbation is not None:
        key = NoiseKey(seed=3, generation=1, population=4, antithetic=True, sigma=0.1)
        noise = perturbation.draw(PerturbedNetwork(model.network, parts=model.parts), key)
    with torch.no_grad():
        if noise is None:
            logits = model.network(input_ids=ids_BT).logits
        else:
            with noise.active(MEMBERS, 2):
                logits = model.network(input_ids=ids_BT).logits
    session = Session(model, members=[m for m in MEMBERS for _ in range(2)], noise=noise)
    written = []
    for turn in range(turns):
        blocks = [[5 + row, 60, 7][: 1 + (row + turn) % 3] for row in range(6)]
        uniform = torch.rand(6, 5, generator=torch.Generator().manual_seed(turn), dtype=torch.float64)
        options = {"max_new_tokens": 3, "temperature": 1.0, "uniform_NT": uniform, "logprobs": True}
        answers = session.complete(range(6), blocks, **options, last_turn=turn + 1 == turns)
        written += [answer.ids for answer in answers]
    return logits, written


def stepped(
    model: LanguageModel, perturbation: LowRank | FullRank, **options: object
) -> tuple[dict[str, Tensor], dict]:
    """The whole weights after two generations, and the figures of the last."""
    learner = eggroll(perturbation=perturbation, optimizer=_adam, **options).start(model, 5)
    for generation in range(2):
        plan = learner.ask(generation)
        returns = torch.randn(len(plan.instances), generator=torch.Generator().manual_seed(generation))
        report = learner.tell(told(plan, returns))
    return model.whole_weights(), report.metrics


def _adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        parameters, lr=0.01, eps=1e-2
    )  # not 1e-8, which makes a rounding of zero a step of full length


def same_as_alone(dtype: torch.dtype, group: TensorGroup) -> None:
    limit = TOLERANCE[dtype]
    for family, config in CONFIGS.items():
        alone = replace(small_model("llama", dtype), network=network_of(config, dtype))
        parts = held_together(alone, group)
        assert sum(p.numel() for p in parts.network.parameters()) < 0.75 * alone.parameter_count, family
        logits, answers = conversation(alone, None, 1)
        others, written = conversation(parts, None, 1)
        assert float((logits - others).abs().max()) <= limit * float(logits.abs().max()), family
        assert written == answers, family
        perturbation, sigma = PERTURBATIONS[family]
        logits, answers = conversation(alone, perturbation)
        others, written = conversation(parts, perturbation)
        assert float((logits - others).abs().max()) <= limit * float(logits.abs().max()), family
        assert written == answers, family
        expected, figures = stepped(alone, perturbation, sigma=sigma)
        found, others = stepped(parts, perturbation, sigma=sigma)
        assert expected.keys() == found.keys()
        for name, weight in expected.items():
            if group.rank == 0:
                assert float((weight - found[name]).abs().max()) <= limit, (family, name)
            else:  # what is saved is put together in one process: others have no use for it, and perhaps no memory
                assert found[name].shape == dict(parts.network.named_parameters())[name].shape, (family, name)
        assert figures.keys() == others.keys()
        for name, figure in figures.items():
            assert others[name] == pytest.approx(figure, rel=100 * limit, abs=limit), (family, name)


def check_messages(group: TensorGroup) -> None:
    """Noise adds no messages; docs/scaling.md has the formula."""
    config = CONFIGS["qwen2"]
    model = held_together(replace(small_model("llama"), network=network_of(config, torch.float32)), group)
    noise = LOW.draw(
        PerturbedNetwork(model.network, parts=model.parts),
        NoiseKey(seed=0, generation=0, population=2, antithetic=True, sigma=0.1),
    )
    sent = []
    for context in (nullcontext(), noise.active((0, 1), 3)):
        before = collectives.bytes_sent()
        with torch.no_grad(), context:
            model.network(input_ids=torch.ones(6, 5, dtype=torch.int64), logits_to_keep=1)
        sent.append(collectives.bytes_sent() - before)
    summed, joined = 6 * 5 * config.hidden_size * (2 * config.num_hidden_layers + 1), 6 * -(-101 // group.size)
    assert sent == [4 * (summed + joined)] * 2


def in_both_types() -> None:
    group = TensorGroup.of(torch.distributed.get_world_size())
    check_messages(group)
    same_as_alone(torch.float32, group)
    with float64_throughout():
        same_as_alone(torch.float64, group)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_compute_what_one_does(size: int) -> None:
    """Every family: plain, and each member under noise; two turns; two steps of ES with their figures."""
    assert ended(*together(size, wrapped, in_both_types)) == [0] * size


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gpt2", "for which transformers has no plan to divide it"),
        ("mixtral", "whose plan divides .* by packed_colwise"),
    ],
)
def test_a_family_without_a_plan_is_refused_in_a_line(family: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^parallel: expected null for .*{expected}.*, got 'tensor'$"):
        divide(small_network(family), TensorGroup(2, 0))


def test_groups_that_do_not_make_up_the_run_and_too_many_processes_are_refused(tmp_path: Path) -> None:
    small_model("llama", torch.float32).save(tmp_path)
    options = {"dtype": "float32", "trust_remote_code": False, "parallel": "tensor"}
    with pytest.raises(ValueError, match="^parallel_size: expected a divisor of the run's 1 processes .*, got 2$"):
        HuggingFaceModel(path=str(tmp_path), parallel_size=2, **options).load(torch.device("cpu"))
    with pytest.raises(ValueError, match="^parallel_size: expected so few processes that each has a part .*, got 64$"):
        divide(small_network("llama"), TensorGroup(64, 0))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW])
def test_optimizers_that_step_on_each_entry_may_run_on_parts(optimizer: type[torch.optim.Optimizer]) -> None:
    check_entry_by_entry(partial(optimizer, lr=0.1))
    for other in (torch.optim.Muon, torch.optim.Adafactor):
        with pytest.raises(ValueError, match="^optimizer: expected one that steps on each entry by itself"):
            check_entry_by_entry(partial(other, lr=0.1))
