"""Which process steps which parameters, so that each holds the state of its own alone.

Every parameter has one owner, which combines its noise, steps it, and sends the new weights to the others in the type in
which they are stored. Parameters go whole: a product of some rows may differ in its last bits from those rows of the whole
product. So a share is 1 / N of all numbers, or the largest parameter, whichever is more.

Shapes: K parameters, F figures, N processes.
"""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from evotext.distributed import collectives
from evotext.distributed.tensor_tree import pack, unpack

Figures = Mapping[str, Sequence[float]]
Sections = dict[str, dict[str, object]]


def owners(sizes: Sequence[int], processes: int) -> list[int]:
    """Return the process that owns each parameter: the largest go first, each to the process that has least."""
    load, owner = [0] * processes, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        owner[place] = load.index(min(load))
        load[owner[place]] += sizes[place]
    return owner


def most_owned(sizes: Sequence[int], processes: int) -> int:
    """Return how much the process has that owns most."""
    owned = [0] * processes
    for size, owner in zip(sizes, owners(sizes, processes), strict=True):
        owned[owner] += size
    return max(owned)


class Ownership:
    """The parameters that this process steps. shared: each has one owner; otherwise all processes repeat all steps."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, shared: bool) -> None:
        self._parameters = dict(parameters)
        self.shared = shared and collectives.world_size() > 1
        sizes = [parameter.numel() for parameter in parameters.values()]
        if self.shared:
            self._owners = owners(sizes, collectives.world_size())
        else:
            self._owners = [collectives.rank()] * len(sizes)
        places = [place for place, owner in enumerate(self._owners) if owner == collectives.rank()]
        self.places = {name: place for place, name in enumerate(parameters)}
        """Of all parameters."""
        names = list(parameters)
        self.own = {names[place]: place for place in places}
        """The names of this process's parameters, each with its place among all."""
        self.share = sum(sizes[place] for place in places) / max(1, sum(sizes))
        """Of all numbers, those of this process."""

    def spread(self) -> None:
        """Give every process the stored weights of all."""
        if self.shared:
            collectives.broadcast_each([p.detach() for p in self._parameters.values()], self._owners)

    def everyones(self, own: Figures, each: int) -> Figures:
        """Return the figures of all parameters, so many of each, in the order of names; 0 for those that have none."""
        if not self.shared:
            return dict(sorted(own.items()))
        figures_KF = torch.zeros(len(self._parameters), each, dtype=torch.float64)
        for name, figures in own.items():
            figures_KF[self.own[name]] = torch.tensor(figures, dtype=torch.float64)
        collectives.all_reduce([figures_KF])  # one number and zeros: exact
        return dict(sorted(zip(self._parameters, figures_KF.tolist(), strict=True)))

    def gathered(self, own: Sections) -> Sections:
        """Return, in process 0, each section with the entries of all parameters in their order; elsewhere only `own`."""
        if not self.shared:
            return own
        shape, tensors = pack(own, "own")
        shapes = collectives.all_texts(json.dumps(shape))
        each = [
            unpack(json.loads(text), t) for text, t in zip(shapes, collectives.gather_tensors(tensors), strict=False)
        ]
        found: Sections = {key: {} for key in own}
        for name, owner in zip(self._parameters, self._owners, strict=True):
            for key, section in each[owner].items() if each else ():
                found[key] |= {name: section[name]} if name in section else {}
        return found if each else own
