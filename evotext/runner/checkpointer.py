"""The checkpointer: keeps a run's checkpoints, brings the run back from one, and saves the tuned model."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evotext.distributed import collectives
from evotext.distributed.sharding import Sharding
from evotext.distributed.tensor_tree import pack, unpack
from evotext.protocols import Learner
from evotext.rollouts.collector import Collector
from evotext.run_folder.atomic import write_folder
from evotext.run_folder.names import CHECKPOINTS, MODEL
from evotext.run_folder.schema import Keep
from evotext.run_folder.writer import cut_records, record_lengths, records_fault
from evotext.runner.checkpoints import Checkpoint, CheckpointFolder, Checkpointing
from evotext.runner.memory import peak_memory_bytes
from evotext.runner.run_state import RunState
from evotext.runner.summary import device_name, versions

# This many dropped generations in a row end a run: the next one would be dropped too.
MOST_DROPPED = 10


class Checkpointer:
    """Knows which parts of a run make up its state. The first of several processes writes and reads for all.

    Where the weights are divided, each process writes its slices, and reads the whole folder.

    names: of algorithm, environment, model and seed, so that no checkpoint of another run is taken.
    keep: the weights that become `model/`. The best ones are those of a checkpoint.
    """

    def __init__(
        self,
        checkpointing: Checkpointing,
        *,
        folder: Path,
        names: dict[str, str],
        learner: Learner,
        collector: Collector,
        keep: Keep = "last",
    ) -> None:
        assert keep == "last" or checkpointing.keep, "the best weights are a checkpoint's"
        self._best = keep == "best"
        self._checkpointing, self._folder, self._names = checkpointing, folder, names
        self._learner, self._collector, self._network = learner, collector, collector.model.network
        self._parts, self._sharding = collector.model.parts, collector.model.sharding
        place = folder / CHECKPOINTS
        if self._sharding is not None:  # all processes write, and the first one alone has the run's folder
            place = Path(collectives.broadcast_text(str(place.resolve())))
        self._checkpoints = CheckpointFolder(place)
        self._saved_at = time.monotonic()
        self._saved_generation: int | None = None

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for a new one, by the first process's clock."""
        old = time.monotonic() - self._saved_at >= self._checkpointing.seconds
        return collectives.any_of(collectives.rank() == 0 and old)

    def save(self, state: RunState) -> None:
        """Write a checkpoint of the present state, unless there is one. Raise CheckpointError if it cannot be written."""
        if not self._checkpointing.keep or self._saved_generation == state.generation:
            return
        first = collectives.rank() == 0
        self._saved_at, self._saved_generation = time.monotonic(), state.generation
        # Processes that share the model, or the update, put together what is saved.
        weights, algorithm = self._collector.model.whole_weights(), self._learner.state_dict()
        if not first and self._sharding is None:
            return
        peak = max(state.peak_memory_bytes, peak_memory_bytes(self._collector.model.device))
        checkpoint = Checkpoint(
            generation=state.generation,
            weights=weights,
            algorithm=algorithm,
            run={
                "names": self._names,
                "standing": state.to_json() | {"peak_memory_bytes": peak},
                "records": record_lengths(self._folder) if first else {},
                "fitting_rows": self._collector.fitting.now,
                "made_on": self._here,
            },
        )
        self._checkpoints.save(checkpoint, keep=self._checkpointing.keep, best=state.best_generation)

    def load(self, generation: int | None = None) -> Checkpoint | None:
        """Return the newest usable checkpoint, None if there is none; the first process reads it and sends it to the others.

        generation: consider its checkpoint alone.
        """
        if collectives.world_size() == 1:
            return self._checkpoints.load(self._fault, _say, generation)
        if self._sharding is not None:
            return self._own_part(self._sharding, generation)
        found = self._checkpoints.load(self._fault, _say, generation) if collectives.rank() == 0 else None
        shape, tensors = pack(vars(found) if found else None, "checkpoint")
        shape = json.loads(collectives.broadcast_text(json.dumps(shape)))
        fields = unpack(shape, collectives.broadcast_tensors(tensors))
        return Checkpoint(**fields) if fields else None

    def _own_part(self, sharding: Sharding, generation: int | None) -> Checkpoint | None:
        """Return this process's part of the checkpoint that the first process chooses: each reads the files."""
        found, first = None, collectives.rank() == 0
        if first:
            found = self._checkpoints.load(self._fault, _say, generation, divided=sharding.divided)
        chosen = collectives.broadcast_text(str(found.generation) if found else "")
        if chosen and not first:
            found = self._checkpoints.load(lambda _: "", _say, int(chosen), divided=sharding.divided)
        if collectives.any_of(bool(chosen) and found is None):
            where = self._checkpoints.folder
            raise RuntimeError(f"{where}: expected a folder that all processes read, got one that some do not")
        return found

    def apply(self, checkpoint: Checkpoint) -> None:
        """Put weights, the algorithm's state and the engine back."""
        self._put_weights(checkpoint)
        self._learner.load_state_dict(checkpoint.algorithm)
        self._collector.fitting.recall(checkpoint.run["fitting_rows"])

    def go_back(self, state: RunState) -> None:
        """Go back to the last checkpoint from weights that are not finite.

        Raise RuntimeError if there is none, or after too many in a row, then with the last good weights saved.
        """
        fault, checkpoint = "weights that are not finite", self.load()
        if checkpoint is None:
            raise RuntimeError(f"generation {state.generation} left {fault}, and there is no checkpoint to go back to")
        self.apply(checkpoint)
        if state.dropped_in_a_row >= MOST_DROPPED:
            self.save_model(state)
            raise RuntimeError(
                f"{MOST_DROPPED} generations in a row were dropped, the last for {fault}; the last good state is saved; "
                "take smaller steps or look at the rewards"
            )

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

    def save_model(self, state: RunState) -> None:
        """Write `model/` in the place of an earlier one, and note in `state` whose weights it holds.

        With keep=best the network has the best weights from now on, the last ones if their checkpoint is damaged.
        """
        state.saved_generation = state.generation
        if self._best and state.best_generation != state.generation and (best := self.load(state.best_generation)):
            self._put_weights(best)
            state.saved_generation = best.generation
        model = self._collector.model.whole()
        whole = model.whole_weights() if model.parts.divided else None
        if collectives.rank() == 0:
            write_folder(self._folder / MODEL, partial(model.save, whole=whole))

    def _put_weights(self, checkpoint: Checkpoint) -> None:
        with torch.no_grad():
            for name, parameter in self._network.named_parameters():
                parameter.copy_(self._parts.own(name, checkpoint.weights[name]))

    @property
    def _here(self) -> dict[str, Any]:
        """Everything besides the configuration that results to the last bit depend on."""
        device = device_name(self._collector.model.device)
        return versions() | {"device": device, "processes": str(collectives.world_size())}

    def _fault(self, checkpoint: Checkpoint) -> str:
        if checkpoint.run["names"] != self._names:
            return f"it is of another run: {checkpoint.run['names']}"
        shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
        if shapes != {name: self._parts.whole_shape(name, p) for name, p in self._network.named_parameters()}:
            return "it is of another model"
        return records_fault(self._folder, checkpoint.run["records"])


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
