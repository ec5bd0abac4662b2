"""Takes steps uphill by any torch.optim optimizer, one parameter at a time, so that only one direction is in memory."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evotext.distributed.parts import Parts
from evotext.optimization.factory import OptimizerFactory
from evotext.optimization.learning_rate import LearningRate
from evotext.optimization.master_weights import MasterWeights, NarrowWeights

from .decay import Decay, NoDecay

# Entries of a larger parameter that stand for all in the distance from the start, evenly spread.
SAMPLED = 2**16


class Ascent:
    """Some parameters of a network and their optimizer.

    parameters: by name. factory: makes the optimizer, which has to treat each parameter by itself, as all of torch's
    but LBFGS do. schedule: of its learning rate. decay: pulls after each step. narrow: what keeps small updates of weights
    stored in less than float32. seed: of stochastic rounding. parts: of the parameters that this process holds.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        factory: OptimizerFactory,
        *,
        schedule: Callable[[int], float] | None = None,
        decay: Decay | None = None,
        narrow: NarrowWeights = "masters",
        seed: int = 0,
        parts: Parts | None = None,
    ) -> None:
        self._parts = parts or Parts()
        self._decay = decay or NoDecay()
        self._anchors = {n: p.detach().clone() for n, p in parameters.items()} if self._decay.needs_start else {}
        self._weights = MasterWeights(parameters, narrow=narrow, seed=seed)
        self._start = {name: _sample(self._weights.values(name)).clone() for name in parameters}
        self._steps = 0
        self.optimizer = factory(list(self._weights.masters.values()))
        self.learning_rate = LearningRate(self.optimizer, schedule)

    @torch.no_grad()
    def step(self, directions: Iterable[tuple[str, Tensor]]) -> float:
        """Take one optimizer step that raises what `directions` is the gradient of; return the norm of the change.

        directions: each parameter's name with the direction, which is taken over; asked for one after another.
        """
        changes: dict[str, float] = {}
        for name, direction in directions:
            master = self._weights.open(name)
            before = master.detach().clone()
            master.grad = direction.to(master.dtype).neg_()
            self.optimizer.step()  # skips parameters without a gradient: all others
            master.grad = None
            if self._decay.needs_start:
                self._decay.pull(master, self._anchors[name], self.learning_rate.now)
            changes[name] = float(torch.linalg.vector_norm(before.sub_(master))) ** 2
            self._weights.close(name, step=self._steps)
        self._steps += 1
        return sum(self._parts.total_of_each(changes).values()) ** 0.5

    @property
    def drift(self) -> float:
        """Euclidean distance of the weights from where they started; estimated where a parameter is only sampled."""
        squares: dict[str, float] = {}
        for name, start in self._start.items():
            weights = self._weights.values(name)
            now = _sample(weights)
            squares[name] = float((now - start).double().square().sum()) * weights.numel() / now.numel()
        return sum(self._parts.total_of_each(squares).values()) ** 0.5

    def state_dict(self) -> dict[str, object]:
        """Return masters that are not the stored weights themselves, starting weights and the optimizer's state.

        All are whole: processes that hold parts of the parameters put them together, all but the sampled starting weights,
        which those who start have anyhow.
        """
        masters = self._weights.state_dict()
        return {
            "masters": {name: self._parts.whole(name, master) for name, master in masters.items()},
            "start": {} if self._parts.divided else self._start,
            "optimizer": self._each_moment(self.optimizer.state_dict(), self._parts.whole),
            "steps": self._steps,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`. It does not hold the weights that decay pulls to: those are the run's model as it was made."""
        self._weights.load_state_dict({n: self._parts.own(n, master) for n, master in state["masters"].items()})
        for name, value in state["start"].items():
            if not self._parts.divided:
                self._start[name].copy_(value)
        self.optimizer.load_state_dict(self._each_moment(state["optimizer"], self._parts.own))
        self._steps = int(state["steps"])

    def _each_moment(self, state: dict[str, Any], change: Callable[[str, Tensor], Tensor]) -> dict[str, Any]:
        """Return an optimizer's state with what has the shape of its parameter, whole or not, changed."""
        if not self._parts.divided:
            return state
        names = list(self._weights.masters)
        return state | {
            "state": {
                place: {
                    key: change(names[place], value) if isinstance(value, Tensor) and value.dim() > 0 else value
                    for key, value in moments.items()
                }
                for place, moments in state["state"].items()
            }
        }


def _sample(parameter: Tensor) -> Tensor:
    """Return entries that stand for all, in float32 or wider."""
    entries = parameter.flatten()[:: -(-parameter.numel() // SAMPLED)]
    return entries.to(torch.promote_types(entries.dtype, torch.float32))
