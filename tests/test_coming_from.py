"""docs/coming-from.md tells our keys and defaults as the YAMLs have them, and words that can be said."""

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from evotext.cli.composing import compose_checked

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
SECTIONS = {section.split("\n", 1)[0]: section for section in PAGE.split("\n## ")[1:]}
WORD = re.compile(r"`((?:[+\w./@]+)=(?:[^`]+))`")


def rows(section: str) -> list[tuple[str, str, str]]:
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(cells) > 10 and all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [(theirs, ours, differs) for theirs, ours, differs in cells]


def algorithm(section: str) -> str:
    return re.findall(r"^`(algorithm=\w+)`", section, re.MULTILINE)[0]


@pytest.mark.parametrize("section", SECTIONS.values(), ids=list(SECTIONS))
def test_our_side_is_the_default(section: str) -> None:
    composed = compose_checked("config", [algorithm(section)])
    config = composed.config
    assert isinstance(config, DictConfig)
    seen = 0
    for _, ours, _ in rows(section):
        for word in WORD.findall(ours):
            key, _, value = word.partition("=")
            seen += 1
            if key in composed.choices:
                assert composed.choices[key] == value, word
                continue
            found = OmegaConf.select(config, key, throw_on_missing=True, default="none of this name")
            assert found == OmegaConf.from_dotlist([f"x={value}"]).x, f"{word}: the configuration has {found}"
    assert seen > 10


@pytest.mark.parametrize("section", SECTIONS.values(), ids=list(SECTIONS))
def test_every_key_and_every_word_that_is_advised_is_there(section: str) -> None:
    chosen = algorithm(section)
    advised = [word for _, _, differs in rows(section) for word in WORD.findall(differs)]
    assert len(advised) > 5
    also = {
        "keep=best": ["evaluation.split=validation"],
        "model=hf": ["model.path=organisation/name"],
        "env=dataset": ["env.path=tasks.jsonl"],
        "env=gym": ["env.id=tasks:Task-v0"],
    }
    together: list[dict[str, list[str]]] = [{"algorithm": [chosen]}]  # each takes a key once
    for word in advised:
        key = word.partition("=")[0]
        fitting = next((one for one in together if key not in one), None)
        if fitting is None:
            together.append(fitting := {} if key == "algorithm" else {"algorithm": [chosen]})
        fitting[key] = [word, *also.get(word, ())]
    for one in together:
        compose_checked("config", [word for words in one.values() for word in words])
    config = compose_checked("config", [chosen]).config
    for key in re.findall(r"`((?:algorithm|env|budget|evaluation)\.[\w.]+)`", section):
        assert OmegaConf.select(config, key, default="none of this name") != "none of this name", key
