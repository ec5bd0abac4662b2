"""Takes steps uphill by any torch.optim optimizer, one parameter at a time, so that only one direction is in memory."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evotext.devices import widest_float
from evotext.distributed.parts import Parts
from evotext.optimization.factory import OptimizerFactory
from evotext.optimization.master_weights import MasterWeights, NarrowWeights
from evotext.optimization.schedules import LearningRate, Schedule

from .decay import Decay, NoDecay
from .ownership import Figures, Ownership, Sections

# Entries of a larger parameter that stand for all in the distance from the start, evenly spread.
SAMPLED = 2**16


class Ascent:
    """Some parameters of a network and their optimizer.

    parameters: by name. factory: makes the optimizer, which has to treat each parameter by itself, as all of torch's
    but LBFGS do. schedule: of its learning rate. decay: pulls after each step. narrow: what keeps small updates of weights
    stored in less than float32. seed: of stochastic rounding. shared: of several processes, each steps some parameters and
    keeps the state of those alone; `own` says which. parts: of the parameters that this process holds. With either, processes
    have to call each method together.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        factory: OptimizerFactory,
        *,
        schedule: Schedule | None = None,
        decay: Decay | None = None,
        narrow: NarrowWeights = "masters",
        seed: int = 0,
        shared: bool = False,
        parts: Parts | None = None,
    ) -> None:
        self._parts = parts or Parts()
        self._decay = decay or NoDecay()
        self._ownership = Ownership(parameters, shared=shared)
        self.own = self._ownership.own
        """The names of the parameters whose directions `step` is to get."""
        self.share = self._ownership.share
        """Of all numbers, those of these parameters."""
        self._anchors = {n: parameters[n].detach().clone() for n in self.own} if self._decay.needs_start else {}
        self._weights = MasterWeights(parameters, narrow=narrow, seed=seed, own=self.own)
        self._start = {name: _sample(self._weights.values(name)).clone() for name in self.own}
        self._steps = 0
        # A process may own nothing, but torch's optimizers want something.
        self.optimizer = factory(list(self._weights.masters.values()) or [nn.Parameter(torch.zeros(0))])
        self.learning_rate = LearningRate(self.optimizer, schedule)

    @torch.no_grad()
    def step(self, directions: Iterable[tuple[str, Tensor]]) -> float:
        """Take one optimizer step that raises what `directions` is the gradient of; return the norm of the change.

        directions: of `own`, each name with the direction, which is taken over; asked for one after another.
        """
        squares: dict[str, tuple[float]] = {}
        for name, direction in directions:
            master = self._weights.open(name)
            before = master.detach().clone()
            master.grad = direction.to(master.dtype).neg_()
            self.optimizer.step()  # skips parameters without a gradient: all others
            master.grad = None
            if self._decay.needs_start:
                self._decay.pull(master, self._anchors[name], self.learning_rate.now)
            squares[name] = (float(torch.linalg.vector_norm(before.sub_(master))) ** 2,)
            self._weights.close(name, step=self._steps)
            del direction, before  # of an embedding's size, while the next direction is made
        self._steps += 1
        self._ownership.spread()
        return sum(self.totals(squares, 1)) ** 0.5

    def totals(self, own: Figures, each: int) -> list[float]:
        """Return the sum over all parameters, whole, of each of so many figures; own: those of `own`."""
        return self._parts.totals(self._ownership.everyones(own, each))

    @property
    def drift(self) -> float:
        """Euclidean distance of the weights from where they started; estimated where a parameter is only sampled."""
        squares: dict[str, tuple[float]] = {}
        for name, start in self._start.items():
            weights = self._weights.values(name)
            now = _sample(weights)
            square = float((now - start).to(widest_float(now.device)).square().sum())
            squares[name] = (square * weights.numel() / now.numel(),)
        return sum(self.totals(squares, 1)) ** 0.5

    def state_dict(self) -> dict[str, object]:
        """Return masters that are not the stored weights themselves, starting weights and the optimizer's state.

        Process 0 has it of all parameters, whoever owns them, and of whole ones, whoever holds their parts. Not so the sampled
        starting weights of parts, which those who start have anyhow.
        """
        optimizer, names = self.optimizer.state_dict(), list(self.own)
        sections: Sections = {
            "masters": {name: self._parts.whole(name, m) for name, m in self._weights.state_dict().items()},
            "start": {} if self._parts.divided else dict(self._start),
            "moments": {
                names[i]: _each(moments, partial(self._parts.whole, names[i]))
                for i, moments in optimizer["state"].items()
            },
        }
        sections = self._ownership.gathered(sections)
        moments = {self._ownership.places[name]: value for name, value in sections.pop("moments").items()}
        group = optimizer["param_groups"][0] | {"params": list(self._ownership.places.values())}
        return sections | {"optimizer": {"state": moments, "param_groups": [group]}, "steps": self._steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo process 0's `state_dict`. It does not hold the weights that decay pulls to: the run's model as it was made."""
        self._weights.load_state_dict({name: self._parts.own(name, m) for name, m in state["masters"].items()})
        for name in () if self._parts.divided else self._start.keys() & state["start"].keys():
            self._start[name].copy_(state["start"][name])
        moments, params = state["optimizer"]["state"], self.optimizer.state_dict()["param_groups"][0]["params"]
        own = {
            i: _each(moments[place], partial(self._parts.own, name))
            for i, (name, place) in enumerate(self.own.items())
            if place in moments
        }
        group = state["optimizer"]["param_groups"][0] | {"params": params}
        self.optimizer.load_state_dict({"state": own, "param_groups": [group]})
        self._steps = int(state["steps"])


def _each(moments: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return an optimizer's state of a parameter with what has its shape changed."""
    return {
        key: change(value) if isinstance(value, Tensor) and value.dim() > 0 else value for key, value in moments.items()
    }


def _sample(parameter: Tensor) -> Tensor:
    """Return entries that stand for all, in float32 or wider."""
    entries = parameter.flatten()[:: -(-parameter.numel() // SAMPLED)]
    return entries.to(torch.promote_types(entries.dtype, torch.float32))
