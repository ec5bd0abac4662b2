"""The source of a learner's noise: a perturbation, and for guided noise the basis that it lies in."""

from dataclasses import dataclass

import torch

from evotext.distributed import collectives
from evotext.models.flops import ForwardFlops
from evotext.noise import NoiseKey, Perturbation, PopulationNoise
from evotext.types import Trajectories

from .perturbations.basis import Basis, find_basis
from .perturbations.guided import Guided
from .perturbed import PerturbedNetwork

# Episodes that a basis is found from.
EPISODES = 32


@dataclass(kw_only=True)
class Guide:
    """The source of noise. Until the first basis, guided noise has all directions."""

    network: PerturbedNetwork
    perturbation: Perturbation
    basis: Basis | None = None
    """The present basis."""
    found: int = 0
    """The generation in which it was found."""

    def draw(self, key: NoiseKey) -> PopulationNoise:
        """Return the noise of one generation."""
        if self.basis is None or not isinstance(self.perturbation, Guided):
            return self.perturbation.draw(self.network, key)
        return self.perturbation.draw_within(self.network, key, self.basis)

    def look(self, batch: Trajectories) -> float:
        """Find a new basis in these episodes if one is due; return the floating-point operations spent.

        All processes look at the same episodes.
        """
        guided, generation = self.perturbation, batch.plan.generation
        if not isinstance(guided, Guided) or not len(batch.length_B):
            return 0.0
        if self.basis is not None and generation - self.found < guided.refresh:
            return 0.0
        rows = len(batch.length_B)
        some = torch.arange(min(EPISODES, rows)) * rows // min(EPISODES, rows)
        tokens_BT = batch.tokens_BT[some].contiguous()
        if batch.plan.noise is not None:  # of a population's episodes each process has the tokens of its own
            collectives.all_reduce([tokens_BT])
        self.found = generation
        self.basis = find_basis(
            self.network.network,
            {name: spec for name, spec in self.network.parameters.items() if guided.moves(spec)},
            tokens_BT,
            batch.length_B[some],
            directions=guided.directions,
            tokens=guided.tokens,
            whitening=guided.whitening,
            together=self.network.one_input,
        )
        return ForwardFlops(self.network.network)(positions=int(batch.length_B[some].sum()), predicted=0)

    def state_dict(self) -> dict[str, object]:
        """Return the basis and its generation."""
        return {"found": self.found} | ({} if self.basis is None else {"basis": self.basis.state_dict()})

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self.found = int(state["found"])  # type: ignore[call-overload]
        held = state.get("basis")
        self.basis = None if held is None else Basis.from_state(held, self.network.one_input)  # type: ignore[arg-type]
