"""Each recipe for a real model runs: two generations of random weights in Qwen2.5-0.5B's shape, cut down."""

import json
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from transformers import Qwen2Config, Qwen2ForCausalLM

from evotext.cli.composing import compose
from evotext.cli.main import main
from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.random_weights import shapes

ROOT = Path(__file__).parents[2]
RECIPES = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("*_qwen_*.yaml"))
FEW = {
    "countdown_qwen_es": ("algorithm.population=2", "algorithm.prompts=2"),
    "countdown_qwen_eggroll": ("algorithm.population=4", "algorithm.prompts=1"),
    "gsm8k_qwen_es": ("algorithm.population=2", "algorithm.prompts=2"),
    "math500_qwen_es": ("algorithm.population=2", "algorithm.prompts=2"),
    "countdown_qwen_grpo": ("algorithm.prompts=1", "algorithm.group_size=2"),
    "gsm8k_qwen_grpo": ("algorithm.prompts=1", "algorithm.group_size=2"),
    "math500_qwen_grpo": ("algorithm.prompts=1", "algorithm.group_size=2"),
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("qwen"), character_tokenizer()
    whole = shapes()["0.5B"].to_dict()
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    small = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
    small |= {"layer_types": None, "max_window_layers": 2, "vocab_size": len(tokenizer)}
    Qwen2ForCausalLM(Qwen2Config(**whole | small | ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(task: str, folder: Path) -> list[str]:
    """Return words that put a file with its columns in the place of the Hub's dataset, and a checker without packages."""
    if task == "countdown":
        return []
    question, answer = {"gsm8k": ("question", "{0} is {0}\n#### {0}"), "math500": ("problem", "{0}")}[task]
    file = folder / f"{task}.jsonl"
    file.write_text(
        "".join(json.dumps({question: f"{n} + 1?", "answer": answer.format(n + 1)}) + "\n" for n in range(60))
    )
    return [f"env.path={file}", "env.subset=null", "env.split=train", "env.test_split=null", "env.checker=number"]


def test_every_recipe_is_tried() -> None:
    assert set(RECIPES) == set(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_for_two_generations(
    name: str, cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _, camp = name.split("_")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["/usr/bin/evotext"])
    GlobalHydra.instance().clear()
    words = [f"experiment={name}", f"model.path={cut}", "model.dtype=float32", "device=cpu", "env.max_new_tokens=4"]
    words += ["budget.unit=episodes", "budget.limit=4" if camp == "grpo" else "budget.limit=8", *rows(task, tmp_path)]
    words += ["evaluation.episodes=1", "evaluation.points=1", "checkpoint.keep=0", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *words, *FEW[name]])
    GlobalHydra.instance().clear()
    assert ended.value.code in (0, None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["generation"] for line in lines if line["kind"] == "train"] == [1, 2]


def test_the_published_settings_are_in_the_recipes() -> None:
    es, grpo, paper = (
        compose("config", [f"experiment={name}"])
        for name in ("countdown_qwen_es", "countdown_qwen_grpo", "math500_qwen_grpo")
    )
    assert (es.algorithm.population, es.algorithm.prompts, es.algorithm.sigma) == (30, 200, 1e-3)
    assert es.algorithm.optimizer.lr == pytest.approx(5e-4 * es.algorithm.sigma) and not es.algorithm.antithetic
    assert es.algorithm.resampling.every is None and es.algorithm.temperature == 0
    assert (grpo.algorithm.optimizer.lr, grpo.algorithm.group_size, grpo.algorithm.kl_coefficient) == (1e-6, 8, 0)
    assert (paper.algorithm.optimizer.lr, paper.algorithm.group_size, paper.algorithm.kl_coefficient) == (
        1e-6,
        64,
        0.04,
    )
    assert paper.algorithm.prompts * paper.algorithm.group_size == 1024 and paper.env.max_new_tokens == 1024
