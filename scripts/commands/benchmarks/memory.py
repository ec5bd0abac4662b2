"""Peak memory of a whole generation (noise, episodes, update) over that of generating as many rows plainly."""

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import partial

import torch

from evotext.models.out_of_memory import is_out_of_memory
from evotext.protocols import Algorithm
from evotext.runner.memory import forget_peak_memory, peak_memory_bytes

from .figures import Figure, Setting, alternate, figure, ratios
from .work import algorithm, collector, plain_plan

GROUP = 8


def figures(setting: Setting) -> list[Figure]:
    """Measure `peak_over_plain_generation` of EGGROLL with a plain step, as in its paper, and of other steps and algorithms.

    All in bytes beyond those of a process without a model. Scored ES, with guided noise and Adam in the small space, scores as
    many rows at once as the others run. Each has as many rows and its own copy of the model, made again for each
    measurement. Adam keeps two numbers a weight, Adafactor one a row and a column. Where weights are stored in bf16 the plain
    step and Adafactor round stochastically; `/masters` keeps float32 copies. Measurements that do not fit a GPU are left out.
    """
    members = setting.members or (256 if setting.gpu else 64)
    prompts = setting.prompts or (1 if setting.large else 4)
    rows = members * prompts
    plain_step, adam, adafactor = (
        {"_target_": f"torch.optim.{name}", "_partial_": True, "lr": 1e-3} for name in ("SGD", "Adam", "Adafactor")
    )
    es = partial(algorithm, setting, "eggroll", population=members, prompts=prompts)
    makers: dict[str, Callable[[], Algorithm] | None] = {
        "plain": None,
        "eggroll": partial(es, optimizer=plain_step, narrow_weights="stochastic"),
        **({"masters": partial(es, optimizer=plain_step, narrow_weights="masters")} if setting.gpu else {}),
        "adam": partial(es, optimizer=adam, narrow_weights="masters"),
        "adafactor": partial(es, optimizer=adafactor, narrow_weights="stochastic"),
        "scored_es": partial(
            algorithm,
            setting,
            "scored_es",
            prompts=max(1, rows // GROUP),
            group_size=GROUP,
            population=rows,
            micro_rows=rows,
            optimizer=adam,
            narrow_weights="stochastic",
        ),
        "grpo": partial(algorithm, setting, "grpo", prompts=rows // GROUP, group_size=GROUP),
        "ppo": partial(algorithm, setting, "ppo", episodes=rows),
    }
    arms = {name: partial(_peak, setting, rows, make) for name, make in makers.items()}
    arms["plain"](0)  # not counted: what earlier suites left is still being given back to the system
    if setting.gpu:
        arms = {name: arm for name, arm in arms.items() if _fits(arm)}
    peaks = alternate(arms, setting.repeats)
    found = []
    for name in [name for name in arms if name != "plain"]:
        label = "peak_over_plain_generation" + ("" if name == "eggroll" else f"/{name}")
        population, rank = (
            (1, 0) if name in ("grpo", "ppo") else (rows, 1) if name == "scored_es" else (members, setting.rank)
        )
        found.append(
            figure(label, ratios(peaks[name], peaks["plain"]), setting, rows=rows, members=population, rank=rank)
        )
    return found


def _peak(setting: Setting, rows: int, make: Callable[[], Algorithm] | None, repeat: int) -> float:
    """Return the peak of a generation in bytes, less what the process held before the model was made."""
    give_back()
    forget_peak_memory(setting.device)
    empty = peak_memory_bytes(setting.device)
    model = setting.load()
    engine = collector(model, setting)
    forget_peak_memory(setting.device)  # that of making the model
    if make is None:
        engine.collect(plain_plan(rows, repeat))
    else:
        learner = make().start(model, seed=0)
        learner.tell(engine.collect(learner.ask(repeat)))
    return float(peak_memory_bytes(setting.device) - empty)


def _fits(arm: Callable[[int], float]) -> bool:
    try:
        arm(0)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def give_back() -> None:
    """Return freed memory to the system, so that the next peak starts from nothing."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).malloc_trim(0)
