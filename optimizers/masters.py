"""fp32 masters: where weights are stored in bf16, an update smaller than their spacing would be lost."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class MasterWeights:
    """Some parameters of a network with a torch optimizer over them, in float32 where they are stored narrower.

    parameters: by name. factory: makes the optimizer. The stored weights are always the masters, rounded.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], factory: Callable[..., torch.optim.Optimizer]) -> None:
        self._stored = dict(parameters)
        self._masters = {
            name: p if p.dtype in (torch.float32, torch.float64) else nn.Parameter(p.detach().float())
            for name, p in self._stored.items()
        }
        self._start = {name: master.detach().clone() for name, master in self._masters.items()}
        self.optimizer = factory(list(self._masters.values()))

    @torch.no_grad()
    def ascend(self, direction: Mapping[str, Tensor]) -> float:
        """One optimizer step that raises what `direction` is the gradient of; the norm of the change of the weights."""
        before = {name: master.detach().clone() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            master.grad = -direction[name].to(master.dtype)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for name, stored in self._stored.items():
            if stored is not self._masters[name]:
                stored.copy_(self._masters[name])
        return _distance(before, self._masters)

    @property
    def drift(self) -> float:
        """Euclidean distance of the masters from where they started."""
        return _distance(self._start, self._masters)

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


def _distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return float(sum((a[name].double() - b[name].detach().double()).square().sum() for name in a)) ** 0.5
