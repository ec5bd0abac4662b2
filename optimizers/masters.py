"""fp32 masters: where weights are stored in bf16, an update smaller than their spacing would be lost.

Parameters are updated one after another, so that never more than one gradient exists.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

# Of a parameter with more entries than this, so many, evenly spread, stand for all in the distance from the start.
SAMPLED = 2**20


class MasterWeights:
    """Some parameters of a network with a torch optimizer over them, in float32 where they are stored narrower.

    parameters: by name. factory: makes the optimizer, which has to treat each parameter by itself, as all of torch's
    but LBFGS do. The stored weights are always the masters, rounded.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], factory: Callable[..., torch.optim.Optimizer]) -> None:
        self._stored = dict(parameters)
        self._masters = {
            name: p if p.dtype in (torch.float32, torch.float64) else nn.Parameter(p.detach().float())
            for name, p in self._stored.items()
        }
        self._start = {name: _sample(master).clone() for name, master in self._masters.items()}
        self.optimizer = factory(list(self._masters.values()))

    @torch.no_grad()
    def ascend(self, directions: Iterable[tuple[str, Tensor]]) -> float:
        """One optimizer step that raises what `directions` is the gradient of; the norm of the change of the weights.

        directions: each parameter's name with the direction, which is taken over; asked for one after another.
        """
        change = 0.0
        for name, direction in directions:
            master, stored = self._masters[name], self._stored[name]
            before = master.detach().clone()
            master.grad = direction.to(master.dtype).neg_()
            self.optimizer.step()  # skips parameters without a gradient: all others
            master.grad = None
            change += float((before - master).double().square().sum())
            if stored is not master:
                stored.copy_(master)
        return change**0.5

    @property
    def drift(self) -> float:
        """Euclidean distance of the masters from where they started; estimated where a parameter is only sampled."""
        square = 0.0
        for name, start in self._start.items():
            now = _sample(self._masters[name])
            square += float((now - start).double().square().sum()) * self._masters[name].numel() / now.numel()
        return square**0.5

    @property
    def learning_rate(self) -> float:
        """Of the optimizer's first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, object]:
        """Masters that are not the stored weights themselves, starting weights and the optimizer's state."""
        own = {name: m.detach() for name, m in self._masters.items() if m is not self._stored[name]}
        return {"masters": own, "start": self._start, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        masters, start = state["masters"], state["start"]
        assert isinstance(masters, dict) and isinstance(start, dict)
        for name, value in masters.items():
            self._masters[name].copy_(value)
            self._stored[name].copy_(value)
        for name, value in start.items():
            self._start[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]


def _sample(parameter: Tensor) -> Tensor:
    """Entries that stand for all, as a view."""
    return parameter.detach().flatten()[:: -(-parameter.numel() // SAMPLED)]
