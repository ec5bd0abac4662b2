"""A small command line to make mistakes with."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import pytest
from omegaconf import DictConfig
from pydantic import Field

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.jobs import Interrupted
from evotext.cli.targets import build
from evotext.validation import PositiveFloat, PositiveInt, checked

HERE = "tests.command_line_app"
CONFIGURATION = {
    "config.yaml": """
        defaults:
          - algorithm: small
          - budget: short
          - optional experiment: null
          - override hydra/job_logging: none
          - override hydra/hydra_logging: none
          - _self_
        seed: 0
        threads: null
        debug: false
        allow_custom_targets: true
        hydra: {run: {dir: 'FOLDER/runs/${now:%H-%M-%S-%f}'}, sweep: {dir: 'FOLDER/sweep', subdir: '${hydra.job.num}'}}
    """,
    "algorithm/small.yaml": f"""
        _target_: {HERE}.Small
        population: 8
        sigma: 0.1
        kind: fast
        part: {{_target_: {HERE}.Part, rank: 1}}
        optimizer: {{_target_: torch.optim.Adam, _partial_: true, lr: 0.1}}
    """,
    "algorithm/smaller.yaml": f"{{_target_: {HERE}.Part, rank: '???'}}",
    "search/small.yaml": "{}",
    "budget/short.yaml": "{_target_: evotext.runner.budget.Budget, unit: updates, limit: 3}",
}


class Part:
    @checked
    def __init__(self, *, rank: PositiveInt) -> None:
        if rank == 13:
            raise ValueError("rank: expected no 13")
        if rank == 14:
            raise ValueError("neither 14")
        self.rank = rank


class Small:
    @checked
    def __init__(
        self,
        *,
        population: Annotated[int, Field(ge=2)],
        sigma: PositiveFloat,
        kind: str,
        part: Part,
        optimizer: Callable[..., object],
    ) -> None:
        if population % 2:
            raise ValueError(f"population: expected an even number,\n got {population}")
        self.part = part


@dataclass
class Outcome:
    status: object
    out: str
    err: str


def task(config: DictConfig, seen: list[Any]) -> None:
    """Build, then run, as a script does."""
    with configuration():
        built = build(config, "algorithm"), build(config, "budget")
    if config.seed == 13:
        raise RuntimeError("out of\nluck")
    if config.seed == 32:
        raise BrokenPipeError(32, "Broken pipe")
    if config.seed == 130:
        raise Interrupted
    seen.append((config, *built))


@dataclass
class App:
    """A command line with a few groups, run in this process."""

    folder: Path

    def __post_init__(self) -> None:
        self.seen: list[Any] = []
        for name, text in CONFIGURATION.items():
            self.write(name, text.replace("FOLDER", str(self.folder)))

    def write(self, name: str, text: str, root: str = "conf") -> None:
        lines = text.splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        file = self.folder / root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line[indent:] for line in lines))

    def __call__(self, *words: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        main = partial(task, seen=self.seen)
        main.__module__ = HERE  # type: ignore[attr-defined]
        with (
            patch.dict(os.environ),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            run_hydra(main, words, config_dir=self.folder / "conf", config_name="config")
        return Outcome(ended.value.code, out.getvalue(), err.getvalue())

    @property
    def runs(self) -> list[Path]:
        return sorted((self.folder / "runs").glob("*"))
