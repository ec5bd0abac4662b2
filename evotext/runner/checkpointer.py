"""The checkpointer: keeps a run's checkpoints and brings the run back from one."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from evotext.distributed import collectives
from evotext.protocols import Learner
from evotext.rollouts.collector import Collector
from evotext.run_folder.names import CHECKPOINTS
from evotext.run_folder.writer import cut_records, record_lengths, records_fault
from evotext.runner.checkpoints import Checkpoint, CheckpointFolder, Checkpointing
from evotext.runner.memory import peak_memory_bytes
from evotext.runner.run_state import RunState
from evotext.runner.summary import device_name, versions
from evotext.runner.tensor_tree import pack, unpack


class Checkpointer:
    """Knows which parts of a run make up its state. The first of several processes writes and reads for all.

    names: of algorithm, environment, model and seed, lest a checkpoint of another run be taken.
    """

    def __init__(
        self,
        checkpointing: Checkpointing,
        *,
        folder: Path,
        names: dict[str, str],
        learner: Learner,
        collector: Collector,
    ) -> None:
        self._checkpointing, self._folder, self._names = checkpointing, folder, names
        self._learner, self._collector, self._network = learner, collector, collector.model.network
        self._checkpoints = CheckpointFolder(folder / CHECKPOINTS)
        self._saved_at = time.monotonic()
        self._saved_generation: int | None = None

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old."""
        return time.monotonic() - self._saved_at >= self._checkpointing.seconds

    def save(self, state: RunState) -> None:
        """Write a checkpoint of the present state, unless there is one. Raise CheckpointError if it cannot be written."""
        if collectives.rank() != 0 or not self._checkpointing.keep or self._saved_generation == state.generation:
            return
        peak = max(state.peak_memory_bytes, peak_memory_bytes(self._collector.model.device))
        checkpoint = Checkpoint(
            generation=state.generation,
            weights={name: p.detach() for name, p in self._network.named_parameters()},
            algorithm=self._learner.state_dict(),
            run={
                "names": self._names,
                "standing": state.to_json() | {"peak_memory_bytes": peak},
                "records": record_lengths(self._folder),
                "fitting_rows": self._collector.fitting.now,
                "made_on": self._here,
            },
        )
        self._checkpoints.save(checkpoint, keep=self._checkpointing.keep, best=state.best_generation)
        self._saved_at, self._saved_generation = time.monotonic(), state.generation

    def load(self) -> Checkpoint | None:
        """Return the newest usable checkpoint, None if there is none; the first process reads it and sends it to the others."""
        if collectives.world_size() == 1:
            return self._checkpoints.load(self._fault, _say)
        found = self._checkpoints.load(self._fault, _say) if collectives.rank() == 0 else None
        shape, tensors = pack(vars(found) if found else None, "checkpoint")
        shape = json.loads(collectives.broadcast_text(json.dumps(shape)))
        fields = unpack(shape, collectives.broadcast_tensors(tensors))
        return Checkpoint(**fields) if fields else None

    def apply(self, checkpoint: Checkpoint) -> None:
        """Put weights, the algorithm's state and the engine back."""
        with torch.no_grad():
            for name, parameter in self._network.named_parameters():
                parameter.copy_(checkpoint.weights[name])
        self._learner.load_state_dict(checkpoint.algorithm)
        self._collector.fitting.recall(checkpoint.run["fitting_rows"])

    def restore(self) -> RunState:
        """Bring everything back, records included, and say where the run stands: at the start if nothing was kept.

        Raise ValueError if there are checkpoints and none of them can be used.
        """
        checkpoint = self.load()
        if checkpoint is None:
            if collectives.any_of(collectives.rank() == 0 and self._checkpoints.any):
                raise ValueError(
                    f"resume: expected a checkpoint that can be used in {self._checkpoints.folder}, got none; "
                    "start the run again with replay=..."
                )
            if collectives.rank() == 0:
                cut_records(self._folder, {})
            return RunState()
        self.apply(checkpoint)
        if collectives.rank() == 0:
            cut_records(self._folder, checkpoint.run["records"])
            then, now = checkpoint.run["made_on"], self._here
            changed = [f"{key}={now[key]} (was {then.get(key)})" for key in now if now[key] != then.get(key)]
            if changed:
                _say(f"results may differ in their last bits: {', '.join(changed)}")
        self._saved_generation = checkpoint.generation
        return RunState.from_json(checkpoint.run["standing"])

    @property
    def _here(self) -> dict[str, Any]:
        """Everything besides the configuration that results to the last bit depend on."""
        device = device_name(self._collector.model.device)
        return versions() | {"device": device, "processes": str(collectives.world_size())}

    def _fault(self, checkpoint: Checkpoint) -> str:
        if checkpoint.run["names"] != self._names:
            return f"it is of another run: {checkpoint.run['names']}"
        shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
        if shapes != {name: tuple(p.shape) for name, p in self._network.named_parameters()}:
            return "it is of another model"
        return records_fault(self._folder, checkpoint.run["records"])


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
