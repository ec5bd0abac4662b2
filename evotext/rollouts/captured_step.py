"""A decode step of fixed shape, recorded once and replayed for every further token.

On a GPU a small step's time goes into launching its kernels one by one. A CUDA graph launches them all at once, but needs
shapes and addresses that never change: attention reads the cache's whole capacity, its empty slots masked, and the slot
that a token is written to is a number in a tensor.

Shape suffixes: B rows, H heads, T new tokens, S cache slots (the capacity), D head size, V vocabulary.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from evotext.models.reading import as_read_by
from evotext.rollouts.kv_layer import RowLayer
from evotext.rollouts.row_cache import RowCache

# Plain steps with the same rows before a recording, which itself takes the time of several: short answers stay unrecorded,
# whatever their limit.
STEPS_BEFORE = 4

Step = Callable[[], Tensor]


class StepRecorder(Protocol):
    """Turns a step into one that can be repeated faster."""

    def record(self, step: Step) -> Step | None:
        """Return the same step, to be called any number of times on the same tensors; None if it cannot be recorded."""


class CudaGraphs:
    """Records steps as CUDA graphs. A network that cannot be recorded is reported once, in `fault`, and not tried again."""

    def __init__(self) -> None:
        self.fault = ""
        self._beside: torch.cuda.Stream | None = None

    def record(self, step: Step) -> Step | None:
        """Record the step (`StepRecorder`). A graph that does not repeat what the step computes counts as a fault, too.

        None without a fault if the memory does not hold a second step's results.
        """
        if self.fault:
            return None
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            expected = self._warm(step)
            with torch.cuda.graph(graph, stream=self._beside):
                result = step()
            graph.replay()
            if not torch.allclose(result, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()), equal_nan=True):
                self.fault = "the recorded step computes something else than the network"
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            self.fault = str(error).split("\n")[0]
        finally:
            torch.cuda.set_stream(before)  # a capture that was broken off leaves its own
        if self.fault:
            return None

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    def _warm(self, step: Step) -> Tensor:
        """Run it beside the current stream: what libraries make on first use has to be there before a capture."""
        self._beside = self._beside or torch.cuda.Stream()
        self._beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside):
            result = step().clone()
        torch.cuda.current_stream().wait_stream(self._beside)
        return result


class CapturedStep:
    """One token for every row of a batch, on the buffers of its cache.

    valid_BS: which slots hold a token; read again at every call. Made and called within the same context in which the
    network runs perturbed, if it does: a recording reads that noise's memory.
    """

    def __init__(self, network: PreTrainedModel, cache: RowCache, valid_BS: Tensor) -> None:
        self.cache = cache
        self._network, self._valid_BS = network, valid_BS
        rows, device = valid_BS.shape[0], valid_BS.device
        self._ids_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._position_B1 = torch.zeros_like(self._ids_B1)
        self._slot_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self._slot_S = torch.arange(valid_BS.shape[1], device=device)
        self._fixed = Cache(layers=[_FixedLayer(layer, self._slot_1) for layer in cache.layers])
        self._step: Step = self._forward

    def recorded(self, recorder: StepRecorder, ids_B1: Tensor, position_B1: Tensor) -> bool:
        """Record the step, with these inputs as an example; whether that could be done."""
        self._set(ids_B1, position_B1)
        step = recorder.record(self._forward)
        if step is not None:
            self._step = step
        return step is not None

    def __call__(self, ids_B1: Tensor, position_B1: Tensor) -> Tensor:
        """Return logits (B, V) after these tokens, which take the cache's next slot; overwritten by the next call."""
        self._set(ids_B1, position_B1)
        logits_BV = self._step()
        self.cache.advance(1)
        return logits_BV

    def _set(self, ids_B1: Tensor, position_B1: Tensor) -> None:
        self._ids_B1.copy_(ids_B1)
        self._position_B1.copy_(position_B1)
        self._slot_1.fill_(self.cache.length)

    def _forward(self) -> Tensor:
        may_read_BS = self._valid_BS | (self._slot_S == self._slot_1)  # an ended row reads itself, as elsewhere
        logits_B1V = self._network(
            input_ids=self._ids_B1,
            attention_mask=as_read_by(self._network, may_read_BS[:, None, None]),
            position_ids=self._position_B1,
            past_key_values=self._fixed,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits_B1V[:, -1]


class _FixedLayer(CacheLayerMixin):
    """The buffers of a `RowLayer`, written at a slot that a tensor names and read whole."""

    def __init__(self, layer: RowLayer, slot_1: Tensor) -> None:
        super().__init__()
        assert layer.keys is not None and layer.values is not None
        self.keys, self.values, self._slot_1 = layer.keys, layer.values, slot_1
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.keys.device, True
        self._filled = layer.length
        # Not garbage: a masked NaN would still poison the attention's weighted sum.
        self.keys[:, :, layer.length :] = 0
        self.values[:, :, layer.length :] = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the buffers are there."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store one new slot; return all."""
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(2, self._slot_1, key_states)
        self.values.index_copy_(2, self._slot_1, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of all slots, and 0, the first."""
        return self.get_max_length(), 0

    def get_seq_length(self) -> int:
        """Return the slots filled when the step was made; positions are given whole, so nothing depends on it."""
        return self._filled

    def get_max_length(self) -> int:
        """Return the number of slots."""
        assert self.keys is not None
        return self.keys.shape[2]
