"""Weights that are stored in bf16, where an update smaller than their spacing would be lost.

Two ways to keep small updates: float32 masters of which the stored weights are the rounding, or stochastic rounding, which
keeps no copy and rounds up as often as the remainder is large, so that updates are kept on average.
Parameters are updated one after another, so that never more than one gradient exists.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.optimization.learning_rate import LearningRate
from optimizers.decay import Decay, NoDecay

# Of a parameter with more entries than this, so many, evenly spread, stand for all in the distance from the start.
SAMPLED = 2**16
# Random numbers of the rounding are drawn in pieces of this size: they take many times the memory of the weights.
ROUNDED_AT_ONCE = 2**20
NarrowWeights = Literal["masters", "stochastic"]


class MasterWeights:
    """Some parameters of a network with a torch optimizer over them, in float32 where they are stored narrower.

    parameters: by name. factory: makes the optimizer, which has to treat each parameter by itself, as all of torch's
    but LBFGS do. schedule: of its learning rate. decay: pulls after each step. narrow: what keeps small updates of narrow
    weights. seed: of the rounding.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        factory: Callable[..., torch.optim.Optimizer],
        *,
        schedule: Callable[[int], float] | None = None,
        decay: Decay | None = None,
        narrow: NarrowWeights = "masters",
        seed: int = 0,
    ) -> None:
        self._stored = dict(parameters)
        self._wide = {name: p.dtype in (torch.float32, torch.float64) for name, p in self._stored.items()}
        self._masters = {
            name: p if self._wide[name] else nn.Parameter(p.detach().float()) for name, p in self._stored.items()
        }
        self._stochastic, self._seed, self._steps = narrow == "stochastic", seed, 0
        self._start = {name: _sample(master).clone() for name, master in self._masters.items()}
        self._decay = decay or NoDecay()
        self._anchors = {n: p.detach().clone() for n, p in self._stored.items()} if self._decay.needs_start else {}
        self.optimizer = factory(list(self._masters.values()))
        self.learning_rate = LearningRate(self.optimizer, schedule)
        if self._stochastic:
            for name in self._masters:
                self._put_away(name)

    @torch.no_grad()
    def ascend(self, directions: Iterable[tuple[str, Tensor]]) -> float:
        """One optimizer step that raises what `directions` is the gradient of; the norm of the change of the weights.

        directions: each parameter's name with the direction, which is taken over; asked for one after another.
        """
        change = 0.0
        for name, direction in directions:
            master, stored = self._masters[name], self._stored[name]
            if self._keeps_none(name):
                master.data = stored.detach().float()
            before = master.detach().clone()
            master.grad = direction.to(master.dtype).neg_()
            self.optimizer.step()  # skips parameters without a gradient: all others
            master.grad = None
            if self._decay.needs_start:
                self._decay.pull(master, self._anchors[name], self.learning_rate.now)
            change += float(torch.linalg.vector_norm(before.sub_(master))) ** 2
            if self._keeps_none(name):
                stored.copy_(self._rounded(name, master.detach()))
                self._put_away(name)
            elif stored is not master:
                stored.copy_(master)
        self._steps += 1
        return change**0.5

    @property
    def drift(self) -> float:
        """Euclidean distance of the masters from where they started; estimated where a parameter is only sampled."""
        square = 0.0
        for name, start in self._start.items():
            weights = self._stored[name] if self._keeps_none(name) else self._masters[name]
            now = _sample(weights)
            square += float((now - start).double().square().sum()) * weights.numel() / now.numel()
        return square**0.5

    def state_dict(self) -> dict[str, object]:
        """Masters that are not the stored weights themselves, starting weights and the optimizer's state."""
        own = {} if self._stochastic else {n: m.detach() for n, m in self._masters.items() if not self._wide[n]}
        return {
            "masters": own,
            "start": self._start,
            "optimizer": self.optimizer.state_dict(),
            "steps": self._steps,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`. What decay pulls to is not in it: it is what the run's model was made with."""
        masters, start = state["masters"], state["start"]
        assert isinstance(masters, dict) and isinstance(start, dict)
        for name, value in masters.items():
            self._masters[name].copy_(value)
            self._stored[name].copy_(value)
        for name, value in start.items():
            self._start[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        self._steps = int(state["steps"])  # type: ignore[call-overload]

    def _keeps_none(self, name: str) -> bool:
        """Whether the parameter is narrow and has no master between two steps."""
        return self._stochastic and not self._wide[name]

    def _put_away(self, name: str) -> None:
        """Free the float32 copy; the parameter object stays, since the optimizer knows its state by it."""
        if self._keeps_none(name):
            self._masters[name].data = torch.empty(0, device=self._stored[name].device)

    def _rounded(self, name: str, master: Tensor) -> Tensor:
        """To one of the two nearest bf16 numbers, to the further one with the probability of the remainder.

        bf16 is float32 without its last 16 bits, so a random number below 2**16 carries into the rest that often.
        """
        stream = stream_id(Purpose.ROUNDING, list(self._stored).index(name))
        index = torch.zeros(1, dtype=torch.int64, device=master.device)
        bits = master.contiguous().view(torch.int32).flatten().clone()
        for first in range(0, bits.numel(), ROUNDED_AT_ONCE):
            part = bits[first : first + ROUNDED_AT_ONCE]
            chance = uniform(self._seed, stream, self._steps, index, part.numel(), offset=first)[0]
            part += (chance * 2**16).int()
        return (bits & -(2**16)).view(torch.float32).view_as(master).to(self._stored[name].dtype)


def _sample(parameter: Tensor) -> Tensor:
    """Entries that stand for all, as a view."""
    return parameter.detach().flatten()[:: -(-parameter.numel() // SAMPLED)]
