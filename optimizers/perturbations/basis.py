"""The directions in which guided noise acts, and the small space that has them for axes.

They come from the layers' inputs in a few unperturbed episodes: the right singular vectors of a sample of the inputs
(their mean is left in, since the gradient has it, too), and the most frequent tokens.

Directions need not have one length. The effect of a step along a direction grows with the inputs' size along it
(the input factor of K-FAC, arXiv 1503.05671), and a few directions, such as the mean, have most of the size. With whitening of
exponent a, direction k of singular value s_k has the length s_k^-a (tokens: by the root of their frequency), scaled so that the
mean square length is 1: 0 leaves all equal, 1 lets all move the outputs alike.

Shapes: B rows, T tokens, O outputs, I inputs (an embedding is O = V by I = D), X positions of the sample, k directions,
S chosen tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.distributed import collectives
from evotext.noise import ParameterSpec

# Positions of the sample that directions are found from; more where a layer has more than half as many directions.
SAMPLE = 2048


@dataclass(frozen=True, kw_only=True)
class Basis:
    """The directions of some matrices. Layers that read the same have the same object for directions."""

    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """V (I, k) of each linear layer's matrix, with orthogonal columns, in the weights' dtype."""
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    """The chosen rows (S,) of each embedding, ascending."""
    lengths: Mapping[str, Tensor] = field(default_factory=dict)
    """The length (S, 1) of each of those directions, in the weights' dtype."""

    def __contains__(self, name: object) -> bool:
        return name in self.inputs or name in self.tokens

    def small_spec(self, name: str, spec: ParameterSpec) -> ParameterSpec:
        """Return the parameter's spec in the small space: (O, k) of a layer, (S, D) of an embedding, else its own."""
        if name in self.tokens:
            return replace(spec, shape=(len(self.tokens[name]), spec.shape[1]))
        if name in self.inputs:
            return replace(spec, shape=(spec.shape[0], self.inputs[name].shape[1]))
        return spec

    def lift(self, name: str, small: Tensor, spec: ParameterSpec) -> Tensor:
        """Map from the small space to the parameter's own layout."""
        if name in self.tokens:
            rows = small * self.lengths[name].to(small.dtype)
            return small.new_zeros(spec.shape).index_copy_(0, self.tokens[name], rows)
        return small @ self.inputs[name].to(small.dtype).T if name in self.inputs else small

    def project(self, name: str, whole: Tensor) -> Tensor:
        """Map a gradient in the parameter's own layout to the small space: the transpose of `lift`."""
        if name in self.tokens:
            return whole[self.tokens[name]] * self.lengths[name].to(whole.dtype)
        return whole @ self.inputs[name].to(whole.dtype) if name in self.inputs else whole

    def places(self, name: str, spec: ParameterSpec) -> Tensor:
        """Return the place of each token of an embedding among the chosen ones, (V,); -1 if it is not one."""
        place_V = torch.full((spec.shape[0],), -1, device=self.tokens[name].device)
        place_V[self.tokens[name]] = torch.arange(len(self.tokens[name]), device=place_V.device)
        return place_V

    def state_dict(self) -> dict[str, object]:
        """Return the tensors by name."""
        return {"inputs": dict(self.inputs), "tokens": dict(self.tokens), "lengths": dict(self.lengths)}

    @staticmethod
    def from_state(state: Mapping[str, Mapping[str, Tensor]], together: Sequence[tuple[str, ...]]) -> "Basis":
        """Undo `state_dict`. together: layers that read the same."""
        inputs = _shared(dict(state["inputs"]), together)
        return Basis(inputs=inputs, tokens=dict(state["tokens"]), lengths=dict(state["lengths"]))


@torch.no_grad()
def find_basis(
    network: PreTrainedModel,
    specs: Mapping[str, ParameterSpec],
    tokens_BT: Tensor,
    length_B: Tensor,
    *,
    directions: int,
    tokens: int,
    whitening: float,
    together: Sequence[tuple[str, ...]],
) -> Basis:
    """Return the basis of the matrices among `specs`, from unperturbed passes over these episodes, one after another.

    All processes get the first one's basis. together: layers that read the same.
    """
    owner = {id(parameter): name for name, parameter in network.named_parameters() if name in specs}
    embeddings: dict[str, nn.Module] = {}
    layers: dict[str, nn.Module] = {}
    for module in network.modules():
        name = owner.get(id(getattr(module, "weight", None)))
        if name is not None and isinstance(module, nn.Embedding):
            embeddings[name] = module
        elif name is not None and isinstance(module, nn.Linear | Conv1D):
            layers[name] = module
    layers = {name: layer for name, layer in layers.items() if name not in embeddings}  # tokens serve a tied head, too
    first_of = _first_of(together, layers)
    read = {name: layer for name, layer in layers.items() if name not in first_of}
    every = -(-int(length_B.sum()) // max(SAMPLE, 2 * directions))
    with _listening(read, every) as read_by, _listening(embeddings, 1) as looked_up_by:
        for row_T, length in zip(tokens_BT, length_B.tolist(), strict=True):
            network.base_model(input_ids=row_T[None, :length].to(network.device), use_cache=False)
    inputs = {name: _strongest(torch.cat(parts), directions, whitening) for name, parts in read_by.items() if parts}
    chosen, lengths = {}, {}
    for name, parts in looked_up_by.items():
        if parts:
            ids, times = _most_frequent(torch.cat(parts)[:, 0], tokens)
            chosen[name] = ids.to(network.device)
            lengths[name] = _lengths(times.double().sqrt(), whitening)[:, None].to(network.device, network.dtype)
    for V_Ik in inputs.values():
        V_Ik.copy_(collectives.broadcast(V_Ik.cpu()))
    inputs |= {name: inputs[first] for name, first in first_of.items() if first in inputs}
    return Basis(inputs=inputs, tokens=chosen, lengths=lengths)


@contextmanager
def _listening(modules: Mapping[str, nn.Module], every: int) -> Iterator[dict[str, list[Tensor]]]:
    """Keep every so many-th position that each module reads, as rows, within the block; for tokens, rows of one number."""
    kept: dict[str, list[Tensor]] = {name: [] for name in modules}

    def keeper(name: str) -> torch.utils.hooks.RemovableHandle:
        def keep(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0].detach()
            kept[name].append((x if x.is_floating_point() else x[..., None]).flatten(0, -2)[::every])

        return modules[name].register_forward_pre_hook(keep)

    handles = [keeper(name) for name in modules]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _most_frequent(id_X: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the most frequent ids, ascending, and their counts; the lowest ids among equals."""
    seen, times = id_X.cpu().unique(return_counts=True)
    some = times.sort(descending=True, stable=True).indices[:count].sort().values
    return seen[some], times[some]


def _lengths(size_k: Tensor, whitening: float) -> Tensor:
    """Return the lengths of directions in which inputs have these sizes; their mean square is 1."""
    length_k = size_k.clamp(min=1e-3 * float(size_k.max())) ** -whitening
    return length_k / length_k.square().mean().sqrt()


def _strongest(x_XI: Tensor, directions: int, whitening: float) -> Tensor:
    """Return the right singular vectors (I, k) of the largest singular values, each with its largest entry positive."""
    wide_XI = x_XI if x_XI.dtype == torch.float64 else x_XI.float()
    _, size_k, V_kI = torch.linalg.svd(wide_XI, full_matrices=False)
    V_Ik = V_kI[:directions].T
    largest_k = V_Ik.gather(0, V_Ik.abs().argmax(0, keepdim=True))
    return (V_Ik * largest_k.sign() * _lengths(size_k[:directions], whitening)).to(x_XI.dtype).contiguous()


def _shared(inputs: dict[str, Tensor], together: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
    first_of = _first_of(together, inputs)
    return {name: inputs[first_of.get(name, name)] for name in inputs}


def _first_of(together: Sequence[tuple[str, ...]], layers: Iterable[str]) -> dict[str, str]:
    """Return, for each layer that reads what another did just before, the first that did."""
    present = set(layers)
    runs = ([name for name in names if name in present] for names in together)
    return {name: run[0] for run in runs for name in run[1:]}
