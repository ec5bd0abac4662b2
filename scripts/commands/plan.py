"""Forecast what a run will take: `evotext plan algorithm=grpo model=hf model.path=DIR memory=24GB`."""

import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from evotext.cli.checks import check_values
from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_outline
from evotext.cli.parallel import check_parallel
from evotext.cli.targets import build
from evotext.distributed import torchrun
from evotext.models.source import ModelSource
from evotext.run_folder.atomic import write_json
from evotext.runner.memory import process_bytes
from evotext.runner.preflight import choose_device, prepare_torch, rows_at_once
from evotext.validation import PositiveFloat, PositiveInt

from .planning.advice import changes
from .planning.configured import planned
from .planning.memory import Forecast, forecast
from .planning.operations import operations
from .planning.shape import shape_of

TABLE_WIDTH = 140  # where no terminal says
UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30}
KINDS = {
    "devices": PositiveInt,
    "prompt_tokens": PositiveInt | None,
    "memory": str | None,
    "check": bool,
    "check_types": list[Literal["float32", "bfloat16"]],
    "check_algorithms": list[Literal["eggroll", "openai_es", "scored_es", "grpo", "ppo", "sft"]],
    "plan_for": Literal["cuda", "cpu"] | None,
    "decode_flops": PositiveFloat | None,
    "train_flops": PositiveFloat | None,
}


def plan(config: DictConfig) -> None:
    """From configuration to table and JSON."""
    with configuration():
        prepare_torch(config.threads)
        check_values(config, KINDS)
        memory = None if config.memory is None else in_bytes(config.memory)
        if config.check:
            _check(config)
            return
        device = torch.device(config.plan_for) if config.plan_for else choose_device(config.device)
        task, evaluator = build(config, "env"), build(config, "evaluation")
        source: ModelSource = build(config, "model")
        made = build(config, "algorithm")  # refuses what training would
    check_parallel(config, made, config.devices)
    outline, prompt = fitting_outline(config, source, task, evaluator)
    with configuration():
        shape, work = planned(
            config,
            outline,
            task,
            evaluator,
            device,
            rows=rows_at_once(config.rows, device),
            devices=config.devices,
            prompt=config.prompt_tokens or prompt,
        )
    assert outline.config is not None, "planned refuses it"
    part_of = partial(shape_of, outline.config)
    whole = part_of()
    found, counted = forecast(shape, work), operations(whole, work)
    console = _console()
    console.print(parts_table(found, f"{whole.parameters:,} weights, {config.devices} x {device.type}"))
    print(
        f"with Python and its libraries, {process_bytes() / 1e9:.2f} GB in this process: {_gb(found.total + process_bytes())}"
    )
    seconds = ""
    if config.decode_flops and config.train_flops:
        took = counted.rollouts / config.decode_flops + counted.update / config.train_flops
        seconds = f", {took:,.1f} s at the given rates"
    print(
        f"a generation at most: {counted.rollouts:.3g} operations of rollouts, {counted.update:.3g} of the update{seconds}"
    )
    record: dict[str, Any] = {"weights": whole.parameters, "forecast": asdict(found), "operations": asdict(counted)}
    if memory is not None:
        fits = found.total + (0 if device.type == "cuda" else process_bytes()) <= memory
        print(f"{config.memory}: {'fits' if fits else 'does not fit'}")
        record["fits"] = fits
        if not fits:
            possible = list(changes(shape, work, part_of))
            table = Table(title="what to change", title_justify="left")
            for column in ("change", "costs", "forecast", "fits"):
                table.add_column(column)
            for one in possible:
                table.add_row(
                    one.words, one.costs, _gb(one.forecast.total), "yes" if one.forecast.total <= memory else "no"
                )
            console.print(table)
            record["changes"] = [asdict(one) for one in possible]
    _write(config, record)


def parts_table(found: Forecast, title: str) -> Table:
    """Return a table, a part a line."""
    table = Table(title=f"{title}; the peak is in the {found.phase}", title_justify="left")
    table.add_column("part")
    table.add_column("memory", justify="right")
    for name, size in found.parts.items():
        table.add_row(name, _gb(size))
    table.add_row("together", _gb(found.total))
    return table


def in_bytes(words: str) -> int:
    """Return the bytes of `80GB`. Raise ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB|MiB|GiB)", words)
    if not found:
        raise ValueError(f"memory: expected a number with {', '.join(UNITS)}, as 80GB, got {words!r}")
    return int(float(found[1]) * UNITS[found[2]])


def _check(config: DictConfig) -> None:
    from .plan_check import check

    GlobalHydra.instance().clear()  # configurations of its own are composed

    table = Table(title="forecast and measured peak", title_justify="left")
    for column in ("model", "dtype", "algorithm", "rows", "forecast MB", "measured MB", "ratio"):
        table.add_column(column)
    rows = []
    wanted = {size: rows for size, rows in config.check_sizes.items() if rows}
    model = config.model
    for one in check(wanted, config.check_types, config.check_algorithms, model.get("parallel"), model.rollout_weights):
        rows.append(asdict(one) | {"ratio": one.ratio})
        if config.out and torchrun.rank() == 0:  # what was measured stays, whatever becomes of the rest
            Path(config.out).parent.mkdir(parents=True, exist_ok=True)
            write_json(Path(config.out), {"checked": rows})
        sizes = (f"{one.forecast / 1e6:.1f}", f"{one.measured / 1e6:.1f}", f"{one.ratio:.2f}")
        table.add_row(one.model, one.dtype, one.algorithm, str(one.rows), *sizes)
    if torchrun.rank() == 0:
        _console().print(table)
        _write(config, {"checked": rows})


def _write(config: DictConfig, record: dict[str, Any]) -> None:
    if config.out:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(config.out), record)
        print(config.out)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return console


def _gb(size: int) -> str:
    return f"{size / 1e9:.3f} GB" if size < 10**10 else f"{size / 1e9:.1f} GB"


def main(words: list[str]) -> NoReturn:
    """Run the command line."""
    run_hydra(plan, words, config_name="plan")
