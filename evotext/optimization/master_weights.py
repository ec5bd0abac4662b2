"""Weights that are stored in less than float32, where an update smaller than their spacing would be lost.

Two ways to keep small updates: float32 masters of which the stored weights are the rounding, or stochastic rounding, which
keeps no copy between two steps and rounds up as often as the remainder is large, so that updates are kept on average.
"""

from collections.abc import Container, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from evotext.keys.philox import Purpose, stream_id, uniform

# Random numbers of the rounding are drawn in pieces of this size: they take many times the memory of the weights.
ROUNDED_AT_ONCE = 2**20
NarrowWeights = Literal["masters", "stochastic"]


class MasterWeights:
    """Parameters as an optimizer is to see them: float32 where they are stored in less, else the parameters themselves.

    stored: the network's parameters by name. narrow: what keeps small updates of those stored in less than float32.
    seed: keys stochastic rounding. own: those that this process steps; it keeps nothing of the others. None: all.

    A step on some parameter: `open` it, change the master that comes back, `close` it. An optimizer knows its state by the
    objects in `masters`, which stay the same.
    """

    def __init__(
        self,
        stored: Mapping[str, nn.Parameter],
        *,
        narrow: NarrowWeights = "masters",
        seed: int = 0,
        own: Container[str] | None = None,
    ) -> None:
        self._stored, self._stochastic, self._seed = dict(stored), narrow == "stochastic", seed
        self._place = {name: place for place, name in enumerate(stored)}
        self.masters: Mapping[str, nn.Parameter] = {
            name: p if _is_wide(p) else nn.Parameter(p.detach().float(), requires_grad=p.requires_grad)
            for name, p in self._stored.items()
            if own is None or name in own
        }
        """The parameters that an optimizer gets; empty between two steps where no copy is kept."""
        for name in self.masters:
            self._free(name)

    def values(self, name: str) -> Tensor:
        """Return the parameter, as exactly as it is known between two steps."""
        return (self._stored if self._keeps_none(name) else self.masters)[name].detach()

    def open(self, name: str) -> nn.Parameter:
        """Return the master, with the values of the stored weights if no copy of its own was kept."""
        master = self.masters[name]
        if self._keeps_none(name):
            master.data = self._stored[name].detach().float()
        return master

    @torch.no_grad()
    def close(self, name: str, *, step: int = 0) -> None:
        """Write the master into the stored weights. step: counts steps; its rounding has random numbers of its own."""
        stored, master = self._stored[name], self.masters[name]
        if self._keeps_none(name):
            stored.copy_(self._rounded(name, master.detach(), step))
            self._free(name)
        elif stored is not master:
            stored.copy_(master)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masters of which the stored weights are a rounding."""
        return {
            name: m.detach()
            for name, m in self.masters.items()
            if m is not self._stored[name] and not self._keeps_none(name)
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state_dict`; the stored weights become the masters' rounding. Masters of others are left out."""
        for name in state.keys() & self.masters.keys():
            self.masters[name].copy_(state[name])
            self._stored[name].copy_(state[name])

    def _keeps_none(self, name: str) -> bool:
        """Return whether the parameter has no master between two steps."""
        return self._stochastic and not _is_wide(self._stored[name])

    def _free(self, name: str) -> None:
        """Free the float32 copy, if none is kept; the parameter object stays, since the optimizer knows its state by it."""
        if self._keeps_none(name):
            self.masters[name].data = torch.empty(0, device=self._stored[name].device)

    def _rounded(self, name: str, master: Tensor, step: int) -> Tensor:
        """Round to one of the two nearest bf16 numbers, to the further one with the probability of the remainder.

        bf16 is float32 without its last 16 bits, so a random number below 2**16 carries into the rest that often.
        """
        stream = stream_id(Purpose.ROUNDING, self._place[name])
        index = torch.zeros(1, dtype=torch.int64, device=master.device)
        bits = master.contiguous().view(torch.int32).flatten().clone()
        for first in range(0, bits.numel(), ROUNDED_AT_ONCE):
            part = bits[first : first + ROUNDED_AT_ONCE]
            chance = uniform(self._seed, stream, step, index, part.numel(), offset=first)[0]
            part += (chance * 2**16).int()
        return (bits & -(2**16)).view(torch.float32).view_as(master).to(self._stored[name].dtype)


def _is_wide(parameter: Tensor) -> bool:
    return parameter.dtype in (torch.float32, torch.float64)
