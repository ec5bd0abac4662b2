"""Families of transformers: the most used here, all by scripts/model_families.py, which writes docs/models.md."""

import os
import re
import time
from pathlib import Path

import model_families
import pytest
import transformers
from families.checks import KEY, MEMBERS, Outcome, Wrong, check, largest_difference, tiny_network
from families.page import page
from families.reference import float64_throughout, own_network
from families.tiny import families

from optimizers.perturbations import LowRank
from optimizers.perturbed import PerturbedNetwork

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
EXPERTS = ["deepseek_v3", "gpt_oss", "mixtral", "qwen3_moe", "glm4_moe", "granitemoehybrid", "nemotron_h"]
MIXERS = ["bamba", "falcon_h1", "mamba", "mamba2", "qwen3_next", "zamba2"]
BY_SLOT = ["bloom", "falcon (alibi)", "mpt"]
OTHERS = ["bert", "falcon", "gemma3n_text", "gptj", "lfm2", "nemotron", "olmo2", "phimoe", "starcoder2", "xglm"]
LEFT_OUT = {"gemma3": ["model.vision_tower.*", "model.multi_modal_projector.*"]}
REFUSED = {
    "bart": "expected a network whose rows may have unequal length, got BartForCausalLM",
    "bert (encoder)": "expected a network that reads no later tokens, got BertLMHeadModel: .* set is_decoder=true",
    "deepseek_v32": "expected a model whose layers keep keys and values or recurrent states, got deepseek_v32",
    "minimax": "MiniMax uses cache of its own",
    "recurrent_gemma": "expected a network that keeps its states in the cache, got RecurrentGemma",
    "roberta": "expected a network whose rows may have unequal length, got RobertaForCausalLM",
    "rwkv": "expected a network that takes one of transformers' caches, got Rwkv",
}


@pytest.mark.parametrize("family", [*EXPERTS, *MIXERS, *BY_SLOT, *OTHERS])
def test_a_family_runs_whole_and_is_equal(family: str) -> None:
    """Perturbed, to 1e-10 of each member's own network; in the engine as in a slow loop (`families.checks`)."""
    outcome = check(family)
    assert outcome.runs, outcome.reason
    assert outcome.exclude == ()
    assert ("experts" in outcome.besides) == (family in [*EXPERTS, "phimoe", "qwen3_next"])
    assert any("A_log" in name for name in outcome.besides) == (family in [*MIXERS, "granitemoehybrid", "nemotron_h"])


def test_what_deepseek_differs_by_is_its_router_in_float32() -> None:
    """Beside float64 weights: W + sigma E rounded once, W and sigma E each for itself. In float64 throughout it is gone."""
    network = tiny_network("deepseek_v3")
    perturbed = PerturbedNetwork(network)
    noise = LowRank(rank=1, vectors="full").draw(perturbed, KEY)
    own = {m: own_network(perturbed, noise, m, population=KEY.population, sigma=KEY.sigma) for m in MEMBERS}
    rounded = largest_difference(network, noise, own)
    with float64_throughout():
        exact = largest_difference(network, noise, own)
    assert 1e-9 < rounded < 1e-5
    assert exact < 1e-12


@pytest.mark.parametrize("family", LEFT_OUT)
def test_what_has_to_be_left_out_is_named_in_few_words(family: str) -> None:
    outcome = check(family)
    assert outcome.runs, outcome.reason
    assert list(outcome.exclude) == LEFT_OUT[family]


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_would_be_wrong_is_refused(family: str) -> None:
    outcome = check(family)
    assert not outcome.runs
    assert re.match(REFUSED[family], outcome.reason)


def test_the_page_has_every_family() -> None:
    text = PAGE.read_text()
    if f"transformers\n{transformers.__version__} " not in text:
        pytest.skip("the page was written with another version of transformers")
    named = re.findall(
        r"^\| (?!Family|Parameters|---)([^|]+?) +\|", text.split("## Run, every parameter")[1], re.MULTILINE
    )
    assert sorted(named) == families()


def test_the_page_says_what_came_of_each() -> None:
    outcomes = [
        Outcome(family="whole", runs=True, besides=("experts", "conv1d.weight")),
        Outcome(family="part", runs=True, exclude=("vision.*",), reasons=("no text goes through it",)),
        Outcome(family="none", runs=False, reason="expected a|b"),
    ]
    text = page(outcomes)
    assert "| whole | `experts`, `conv1d.weight` |" in text
    assert "| part | `vision.*` | no text goes through it |" in text
    assert r"| none | expected a\|b |" in text
    assert "1 of 3 families and variants run with every parameter perturbed, 1 more with some left out; 1 are" in text


def test_a_family_has_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_families, "SECONDS", 1)
    monkeypatch.setattr(model_families, "check", lambda family: time.sleep(60))
    begin = time.monotonic()
    with pytest.raises(Wrong, match="slow: more than 1 s"):
        model_families.bounded("slow")
    assert time.monotonic() - begin < 30


def test_a_family_that_takes_its_process_along_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_families, "BYTES", -1)
    monkeypatch.setattr(model_families, "check", lambda family: os._exit(9))
    with pytest.raises(Wrong, match="large: the process ended"):
        model_families.bounded("large")


def test_a_wrong_family_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(family: str) -> Outcome:
        if family == "llama":
            raise Wrong("llama: logits differ")
        return Outcome(family=family, runs=False, reason="no")

    monkeypatch.setattr(model_families, "BYTES", -1)
    monkeypatch.setattr(model_families, "check", wrong)
    monkeypatch.setattr("sys.argv", ["model_families.py", "llama", "gpt2"])
    with pytest.raises(SystemExit) as status:
        model_families.main()
    said = capsys.readouterr()
    assert status.value.code == 1
    assert "llama: logits differ" in said.err
    assert said.out == "gpt2: refused: no\n"
