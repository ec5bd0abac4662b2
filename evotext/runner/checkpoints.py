"""`checkpoints/` of a run: one folder for each, named by the generation, that is whole or absent.

    weights.safetensors    the network's parameters
    algorithm.safetensors  the tensors of the algorithm's state
    state.json             the rest: the shape of that state, and where the run stands
    manifest.json          a hash of each of these

Where the weights are divided over processes, the first one's slices are there, and those of process 1 in weights-1.safetensors
and algorithm-1.safetensors, and so on; a number of processes that is another one later puts them together.

A checkpoint is written beside its place and renamed when all of it is on the disk. Random streams need none of it: they
are functions of seed and generation.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evotext.distributed import collectives
from evotext.distributed.sharding import is_divided, own_part
from evotext.distributed.tensor_tree import pack, unpack
from evotext.run_folder.atomic import LEAVING, WRITING
from evotext.run_folder.manifest import damage, seal, to_disk
from evotext.validation import NonNegativeInt, PositiveFloat, checked_record

FORMAT = 2


@checked_record
class Checkpointing:
    """The checkpoints of a run: one after each measurement, and one at the end of a generation when the last is old.

    seconds: how old. keep: how many of the newest stay, besides that of the best measurement; 0 writes none.
    """

    seconds: PositiveFloat
    keep: NonNegativeInt


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; those before it are whole."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The whole state of a run."""

    generation: int
    """Generations finished."""
    weights: dict[str, Tensor]
    """The network's parameters by name."""
    algorithm: dict[str, object]
    """The algorithm's `state_dict`."""
    run: dict[str, Any]
    """The run state, as JSON."""


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint, *, keep: int, best: int) -> None:
        """Write it, then remove all but the `keep` newest and that of generation `best`. Raise CheckpointError.

        Those of later generations go first: a run that was resumed before them has found them damaged.
        """
        aside = self.folder / WRITING
        shape, tensors = pack(checkpoint.algorithm, "algorithm")
        state = {"format": FORMAT, "generation": checkpoint.generation, "run": checkpoint.run, "algorithm": shape}
        divided, first = any(map(is_divided, checkpoint.weights.values())), collectives.rank() == 0
        steps: list[Callable[[], None]] = [
            self._open,
            lambda: _write(aside, {"weights": checkpoint.weights, "algorithm": tensors}),
            lambda: self._close(state, keep=keep, best=best),
        ]
        for process_0_alone, step in zip((True, False, True), steps, strict=True):
            fault = _fault_of(step) if first or not process_0_alone else None
            said = str(fault or "")
            if divided:
                said = next(filter(None, map(json.loads, collectives.all_texts(json.dumps(said)))), "")
            if said:
                if first:
                    shutil.rmtree(aside, ignore_errors=True)
                whole = self._newest_first()
                rest = f"the last one is {whole[0]}" if whole else "there is none before it"
                final = self.folder / f"{checkpoint.generation:08}"
                raise CheckpointError(f"cannot write the checkpoint {final}: {said}; {rest}") from fault

    def _open(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for left in (self.folder / WRITING, self.folder / LEAVING):
            shutil.rmtree(left, ignore_errors=True)
        (self.folder / WRITING).mkdir()

    def _close(self, state: dict[str, Any], *, keep: int, best: int) -> None:
        """Make it the checkpoint of its generation; remove those that are not kept."""
        aside, generation = self.folder / WRITING, state["generation"]
        final = self.folder / f"{generation:08}"
        (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
        seal(aside)
        if final.exists():
            self._remove(final)
        aside.rename(final)
        to_disk(self.folder)
        past = [n for path in self._newest_first() if (n := int(path.name)) <= generation]
        self._prune({*past[:keep], best})

    def load(
        self,
        usable: Callable[[Checkpoint], str],
        say: Callable[[str], None],
        generation: int | None = None,
        divided: Callable[[Tensor], Tensor] = lambda whole: whole,
    ) -> Checkpoint | None:
        """Return the newest one that is whole and usable, None if none is. Say what is wrong with newer ones.

        usable: what is wrong with a checkpoint that is whole; empty if nothing is. generation: None looks at all.
        divided: what takes the place of a tensor that was written in slices.
        """
        for path in self._newest_first() if generation is None else [self.folder / f"{generation:08}"]:
            fault, checkpoint = _read(path, divided)
            if checkpoint is not None:
                fault = usable(checkpoint)
                if not fault:
                    return checkpoint
            say(f"{path} cannot be used ({fault})" + ": trying the one before it" * (generation is None))
        return None

    @property
    def any(self) -> bool:
        """Whether there is one, usable or not."""
        return bool(self._newest_first())

    def _newest_first(self) -> list[Path]:
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return [self.folder / name for name in sorted(filter(str.isdecimal, names), key=int, reverse=True)]

    def _prune(self, kept: Collection[int]) -> None:
        for path in self._newest_first():
            if int(path.name) not in kept:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Rename it first, so that one that is half removed is not taken for a damaged one."""
        path.rename(self.folder / LEAVING)
        shutil.rmtree(self.folder / LEAVING)


def _read(path: Path, divided: Callable[[Tensor], Tensor]) -> tuple[str, Checkpoint | None]:
    """Return what is wrong with it, and the checkpoint if nothing is."""
    fault = damage(path)
    if fault:
        return fault, None
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            return f"expected format {FORMAT}, got {state['format']}", None
        return "", Checkpoint(
            generation=int(state["generation"]),
            weights=_loaded(path, "weights", divided),
            algorithm=unpack(state["algorithm"], _loaded(path, "algorithm", divided)),
            run=dict(state["run"]),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}", None


def _fault_of(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except (OSError, SafetensorError) as error:
        return error
    return None


def _write(folder: Path, kinds: dict[str, dict[str, Tensor]]) -> None:
    """Write this process's slices, and in process 0 all that is not divided."""
    number = collectives.rank()
    for kind, tensors in kinds.items():
        own = {name: own_part(tensor) for name, tensor in tensors.items() if not number or is_divided(tensor)}
        save_file(_separate(own), folder / (f"{kind}-{number}.safetensors" if number else f"{kind}.safetensors"))


def _loaded(folder: Path, kind: str, divided: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return the tensors copied off the files, which may be removed while they live on; slices put together."""
    tensors = {}
    more = sorted(folder.glob(f"{kind}-*.safetensors"), key=lambda path: int(path.stem.rpartition("-")[2]))
    with ExitStack() as stack:
        first, *others = (
            stack.enter_context(safe_open(path, "pt")) for path in (folder / f"{kind}.safetensors", *more)
        )
        sliced = set().union(*(other.keys() for other in others))
        for name in first.keys():  # noqa: SIM118 (not a dict)
            one = first.get_tensor(name)
            if name in sliced:
                tensors[name] = divided(torch.cat([one, *(other.get_tensor(name) for other in others)]))
            else:
                tensors[name] = one.clone()
    return tensors


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor in memory of its own, as safetensors requires."""
    return dict(_each_alone(tensors))


def _each_alone(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        plain = tensor.contiguous()
        if address in seen or plain.numel() != plain.untyped_storage().nbytes() // plain.element_size():
            plain = plain.clone()
        seen.add(address)
        yield name, plain
