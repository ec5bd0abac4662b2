"""Checks before a run costs anything: prompts that do not fit the model, a device that is not there."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
import transformers

from evotext.distributed import torchrun
from evotext.keys.instances import held_out_instances
from evotext.models.chat import Conversation
from evotext.models.source import Outline
from evotext.rollouts.environment_calls import BrokenEnvironment, EnvironmentCalls, EnvironmentFault, Opening
from evotext.rollouts.task import Task, TextTask
from evotext.run_folder.schema import Keep, Phase
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.evaluation import Evaluator
from evotext.runner.pruner import Pruner
from evotext.runner.stopper import NoStopper, Stopper
from evotext.types import Ending

PROBES = 16
DEVICES = ("cpu", "cuda", "xpu", "mps")


def check_split(
    pruner: Pruner,
    evaluator: Evaluator,
    phase: Phase = "reporting",
    *,
    stopper: Stopper = NoStopper(),  # noqa: B008 (it has no state)
    keep: Keep = "last",
) -> None:
    """Raise ValueError if held-out instances would end runs early, or choose hyperparameters or weights."""
    if phase == "tuning" and evaluator.split == "test":
        raise ValueError(
            "phase: expected evaluation.split=validation with phase=tuning, got test; a trial chooses hyperparameters, and "
            "held-out instances are for reports"
        )
    choices = {
        "pruner": (pruner.chooses, "which runs end early"),
        "stopper": (stopper.chooses, "when a run ends"),
        "keep": (keep == "best", "which weights are saved"),
    }
    for key, (chooses, what) in choices.items():
        if chooses and evaluator.split == "test":
            raise ValueError(
                f"{key}: expected evaluation.split=validation, got test; {what} is a choice, and held-out instances are for "
                "reports"
            )


def check_keep(keep: Keep, checkpointing: Checkpointing) -> None:
    """Raise ValueError if the best weights are to be saved and no checkpoint keeps them until then."""
    if keep == "best" and not checkpointing.keep:
        raise ValueError(
            "checkpoint.keep: expected at least 1 with keep=best, got 0; the best weights are saved from their checkpoint"
        )


def prepare_torch(threads: int | None) -> None:
    """Set the number of CPU threads and quieten transformers. Raise ValueError for less than one thread."""
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@runtime_checkable
class Demonstrator(Protocol):
    """An environment that can give the answers of a worked episode."""

    def demonstrate(self, rng: np.random.Generator) -> Conversation:
        """Return a worked training episode."""


def check_prompts(outline: Outline, task: Task) -> int:
    """Open a few held-out episodes, and look at worked ones where a task has them; return the longest prompt's tokens.

    Raise ValueError if a prompt and one answer, or a whole worked episode, exceed the model's context; BrokenEnvironment if no
    episode of a task can be opened.
    """
    return max(_longest_prompt(outline, part) for part in task.parts)


def _longest_prompt(outline: Outline, task: TextTask) -> int:
    room = outline.context_length - task.max_new_tokens
    if room <= 0:
        raise ValueError(
            f"max_new_tokens: expected fewer than the model's context of {outline.context_length} tokens, "
            f"got {task.max_new_tokens}"
        )
    openings = _openings(task)
    env = task.environments(1)[0]
    shown = [(opening.instructions, opening.observation) for opening in openings]
    longest = max(map(len, outline.chat.open(shown, [opening.tools for opening in openings])))
    worked = env.unwrapped
    if longest <= room and isinstance(worked, Demonstrator):
        rng = np.random.default_rng(0)
        episodes = [
            outline.chat.conversation(worked.demonstrate(rng), openings[0].instructions)[0] for _ in range(PROBES)
        ]
        if max(map(len, episodes)) > outline.context_length:
            raise ValueError(
                f"expected episodes of at most {outline.context_length} tokens (the model's context), got a worked "
                f"one of {max(map(len, episodes))}; make the task shorter or take a model with a longer context"
            )
    if longest > room:
        raise ValueError(
            f"expected prompts of at most {room} tokens (the model's context of {outline.context_length} less "
            f"max_new_tokens={task.max_new_tokens}), got one of {longest}; make the task easier, lower "
            "max_new_tokens or take a model with a longer context"
        )
    return longest


def _openings(task: TextTask) -> list[Opening]:
    """Return what some episodes open with, without instances whose `reset` fails, for a run counts them."""
    openings: list[Opening] = []
    faults: list[EnvironmentFault] = []
    with EnvironmentCalls(task.step_seconds) as calls:
        for seed in held_out_instances(PROBES):
            env = task.environments(1)[0]
            (opening,) = calls.reset([env], seeds=[seed], split="test")
            if isinstance(opening, EnvironmentFault):
                faults.append(opening)
                if opening.kind == Ending.TIME_LIMIT:
                    task.replace(env)
            else:
                openings.append(opening)
    if not openings:
        raise BrokenEnvironment(f"none of {PROBES} episodes could be opened: {faults[0].record(0)}") from faults[
            0
        ].cause
    return openings


def choose_device(name: str) -> torch.device:
    """Return the device: `auto` takes a GPU by CUDA if there is one; each process on a machine takes its own.

    Raise ValueError for a device that torch does not know or does not see.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in DEVICES:
        raise ValueError(f"device: expected auto, {', '.join(DEVICES)} or one with its number, as cuda:0, got {name!r}")
    if device.type == "cpu":
        return device
    seen = torch.accelerator.current_accelerator(check_available=True)
    if seen is None or seen.type != device.type:
        raise ValueError(
            f"device: expected one that is there, got {name!r}, but torch sees {seen.type if seen else 'no GPU'} here; take "
            f"device={seen.type if seen else 'cpu'} or install a build of torch for {device.type}"
        )
    count = torch.accelerator.device_count()
    if ":" not in name and torchrun.local_size() > 1:
        if torchrun.local_size() > count:
            raise ValueError(
                f"device: expected at most {count} processes on this machine, one a GPU that torch sees, got "
                f"{torchrun.local_size()}; start fewer or add device=cpu"
            )
        return torch.device(device.type, torchrun.local_rank())
    if (device.index or 0) >= count:
        raise ValueError(f"device: expected one of the {count} GPUs that torch sees, got {name!r}")
    return device


def rows_at_once(rows: int | None, device: torch.device) -> int:
    """Return how many episodes run in one batch, unless given: what fits a CPU's cache, or enough to fill a GPU.

    Raise ValueError for less than one.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"rows: expected at least 1, got {rows}")
    return rows or (256 if device.type == "cpu" else 4096)
