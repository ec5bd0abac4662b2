"""Measure speed and memory: `evotext benchmark suite=generation model.size=25M`.

Every figure is a ratio of things that run alternately in one process, so that figures of different machines can be
compared; none is a test.
"""

import importlib
import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from evotext.cli.checks import check_values
from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.messages import near
from evotext.cli.targets import build
from evotext.models.out_of_memory import is_out_of_memory, make_room
from evotext.models.source import ModelSource
from evotext.run_folder.atomic import write_json
from evotext.runner.preflight import choose_device, prepare_torch
from evotext.runner.summary import device_name, versions
from evotext.validation import PositiveInt

from .benchmarks.figures import Figure, Setting

TABLE_WIDTH = 120  # where no terminal says: figures' names are long
KINDS = {
    "members": PositiveInt | None,
    "prompts": PositiveInt | None,
    "rank": PositiveInt,
    "new_tokens": PositiveInt,
    "repeats": PositiveInt,
}
SUITES = ("generation", "population", "update", "memory", "environments", "trl", "scaling")


def measure(config: DictConfig) -> None:
    """Run the suites, from configuration to table and JSON."""
    with configuration():
        prepare_torch(config.threads)
        suites, setting = chosen(config)
    figures: list[Figure] = []
    console = Console(stderr=True)
    for suite in suites:
        with console.status(f"measuring {suite}, {setting.model}"):
            try:
                figures += importlib.import_module(f".benchmarks.{suite}", __package__).figures(setting)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                console.print(f"{suite} left out: {setting.model} needs more memory than there is", soft_wrap=True)
        make_room(setting.device)
        if config.out and figures:  # what was measured stays, whatever becomes of the suites that follow
            write(Path(config.out), figures, setting)
    show(figures, setting)
    if config.out and figures:
        print(config.out)


def write(out: Path, figures: list[Figure], setting: Setting) -> None:
    """Write the figures as JSON, with their device, the processor's vector and matrix instructions, and versions."""
    out.parent.mkdir(parents=True, exist_ok=True)
    measured_on = {
        "device": device_name(setting.device),
        "processor_features": processor_features(),
        "versions": versions(),
    }
    write_json(out, measured_on | {"figures": [asdict(f) for f in figures]})


def processor_features() -> list[str]:
    """Return the vector and matrix instructions that torch finds, as `amx_bf16`; ratios differ with them."""
    kinds = ("amx", "avx", "neon", "sve", "bf16", "i8mm")
    found = torch.cpu.get_capabilities()
    return sorted(name for name, there in found.items() if there is True and any(kind in name for kind in kinds))


def chosen(config: DictConfig) -> tuple[list[str], Setting]:
    """Return the suites and their settings. Raise ValueError for what makes no sense."""
    suites = [config.suite] if isinstance(config.suite, str) else list(config.suite or [])
    for suite in suites:
        if suite not in SUITES:
            raise ValueError(f"suite: expected some of {', '.join(SUITES)}, got {suite!r}{near(str(suite), SUITES)}")
    if "trl" in suites and not importlib.util.find_spec("trl"):
        raise ValueError(
            "suite=trl: expected TRL to be installed, found none; run: pip install -c constraints.txt -e '.[trl]'"
        )
    check_values(config, KINDS)
    device = choose_device(config.device)
    source: ModelSource = build(config, "model")
    with configuration("model", config.model):
        source.outline()
    return suites, Setting(
        source=source,
        model=config.model.get("size") or HydraConfig.get().runtime.choices["model"],
        members=config.members,
        prompts=config.prompts,
        rank=config.rank,
        new_tokens=config.new_tokens,
        repeats=config.repeats,
        device=device,
        algorithms=config,
    )


def show(figures: list[Figure], setting: Setting) -> None:
    """Print a table, a figure a line."""
    title = f"{setting.model} on {device_name(setting.device)}, rank {setting.rank}, {setting.repeats} repeats"
    table = Table(title=title, title_justify="left")
    table.add_column("figure", no_wrap=True)
    for column in ("median", "low - high", "rows", "members"):
        table.add_column(column, justify="right", no_wrap=True)
    for f in figures:
        table.add_row(f.name, f"{f.value:.3f}", f"{f.low:.3f} - {f.high:.3f}", str(f.rows), str(f.members))
    console = Console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    console.print(table)


def main(words: list[str]) -> NoReturn:
    """Run the command line."""
    run_hydra(measure, words, config_name="benchmark")
