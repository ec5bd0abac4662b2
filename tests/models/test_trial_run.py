"""The trial of a network that is loaded: refused in a line what the engine would run wrongly, and nothing else."""

import pytest
import torch
from families.tiny import tiny_config
from transformers import AutoModelForCausalLM, PreTrainedModel

from evotext.models.reading import Reading
from evotext.models.trial_run import check_runs

RUN = [
    "bloom",
    "falcon (alibi)",
    "falcon_h1",
    "gpt2",
    "gpt_oss",
    "llama",
    "mamba",
    "mpt",
    "opt",
    "qwen3_moe",
    "qwen3_next",
]


def network(family: str, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(tiny_config(family))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return made.to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", RUN)
def test_rounding_refuses_nothing(family: str, dtype: torch.dtype) -> None:
    check_runs(network(family, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["bart", "bert (encoder)", "recurrent_gemma", "roberta", "whisper"])
def test_what_would_be_wrong_is_refused_in_a_line(family: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"^expected a network .*, got \w+") as said:
        check_runs(network(family, dtype))
    assert "\n" not in str(said.value)


def test_what_fails_on_its_own_is_refused_in_a_line() -> None:
    broken = network("llama", torch.float32)
    broken.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(
        ValueError, match="^expected a network that runs with a cache and a mask, got Llama.*: .*shape"
    ) as said:
        check_runs(broken)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("family", "by_slot", "recurrent", "attends"),
    [
        ("llama", False, False, True),
        ("mamba", False, True, False),
        ("falcon_h1", False, True, True),
        ("bloom", True, False, True),
        ("falcon (alibi)", True, False, True),
        ("falcon", False, False, True),
    ],
)
def test_networks_say_how_they_read(family: str, by_slot: bool, recurrent: bool, attends: bool) -> None:
    reading = Reading(network(family, torch.float32))
    assert (reading.by_slot, reading.recurrent, reading.attends) == (by_slot, recurrent, attends)
