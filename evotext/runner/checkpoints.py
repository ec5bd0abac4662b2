"""`checkpoints/` of a run: one folder for each, named by the generation, that is whole or absent.

    weights.safetensors    the network's parameters
    algorithm.safetensors  the tensors of the algorithm's state
    state.json             the rest: the shape of that state, and where the run stands
    manifest.json          a hash of each of these

A checkpoint is written beside its place and renamed when all of it is on the disk. Random streams need none of it: they
are functions of seed and generation.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from evotext.run_folder.atomic import LEAVING, WRITING
from evotext.run_folder.manifest import damage, seal, to_disk
from evotext.runner.tensor_tree import pack, unpack
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
        final = self.folder / f"{checkpoint.generation:08}"
        aside = self.folder / WRITING
        try:
            self.folder.mkdir(exist_ok=True)
            for left in (aside, self.folder / LEAVING):
                shutil.rmtree(left, ignore_errors=True)
            aside.mkdir()
            shape, tensors = pack(checkpoint.algorithm, "algorithm")
            save_file(_separate(checkpoint.weights), aside / "weights.safetensors")
            save_file(_separate(tensors), aside / "algorithm.safetensors")
            state = {"format": FORMAT, "generation": checkpoint.generation, "run": checkpoint.run, "algorithm": shape}
            (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
            seal(aside)
            if final.exists():
                self._remove(final)
            aside.rename(final)
            to_disk(self.folder)
            past = [n for path in self._newest_first() if (n := int(path.name)) <= checkpoint.generation]
            self._prune({*past[:keep], best})
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            whole = self._newest_first()
            rest = f"the last one is {whole[0]}" if whole else "there is none before it"
            raise CheckpointError(f"cannot write the checkpoint {final}: {error}; {rest}") from error

    def load(
        self, usable: Callable[[Checkpoint], str], say: Callable[[str], None], generation: int | None = None
    ) -> Checkpoint | None:
        """Return the newest one that is whole and usable, None if none is. Say what is wrong with newer ones.

        usable: what is wrong with a checkpoint that is whole; empty if nothing is. generation: None looks at all.
        """
        for path in self._newest_first() if generation is None else [self.folder / f"{generation:08}"]:
            fault, checkpoint = _read(path)
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


def _read(path: Path) -> tuple[str, Checkpoint | None]:
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
            weights=_loaded(path / "weights.safetensors"),
            algorithm=unpack(state["algorithm"], _loaded(path / "algorithm.safetensors")),
            run=dict(state["run"]),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}", None


def _loaded(path: Path) -> dict[str, Tensor]:
    """Return the tensors copied off the file, which may be removed while they live on."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


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
