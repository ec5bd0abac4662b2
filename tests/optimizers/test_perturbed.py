"""Batched perturbed networks against the slow, obvious way: one copy of the network a member, W + sigma E written in."""

import copy
from collections.abc import Sequence
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from families.reference import float64_throughout, own_network
from families.tiny import tiny_config
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel

from evotext.models.cached_layers import cache_key, is_recurrent
from evotext.noise import NoiseKey, PopulationNoise
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import CannotPerturbError, LeaveOutError, PerturbedNetwork
from optimizers.perturbed.by_member import LARGEST
from optimizers.perturbed.linear import MANY
from optimizers.perturbed.patterns import covering
from optimizers.perturbed.probe import ROWS
from optimizers.perturbed.trial import TrialNoise
from tests.small_models import CONFIGS, RECURRENT, VOCABULARY

SIGMA, POPULATION = 0.05, 6


def _network(config: PreTrainedConfig | str, dtype: torch.dtype = torch.float64, **changes: object) -> PreTrainedModel:
    """A network whose every parameter is random, biases and norms too."""
    config = copy.deepcopy((CONFIGS | RECURRENT)[config] if isinstance(config, str) else config)
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, experts_implementation="eager")  # the others lack float64
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network.to(dtype).eval()


def _noise(perturbed: PerturbedNetwork, *, rank: int = 1, vectors: str = "full") -> PopulationNoise:
    perturbation = LowRank(rank=rank, vectors=vectors)
    return perturbation.draw(
        perturbed, NoiseKey(seed=5, generation=2, population=POPULATION, antithetic=True, sigma=SIGMA)
    )


def _member(perturbed: PerturbedNetwork, noise: PopulationNoise, member: int) -> PreTrainedModel:
    return own_network(perturbed, noise, member, population=POPULATION, sigma=SIGMA)


@torch.inference_mode()
def _conversation(network: PreTrainedModel, ids_BT: Tensor, padding_B: Tensor) -> Tensor:
    """Logits (B, T, V) of a left-padded prompt of 5 tokens, a cached step of one token, then a block of the rest.

    Recurrent networks take 2-dimensional masks, and a block token by token.
    """
    cache = DynamicCache(config=network.config)
    mask_BT = torch.arange(ids_BT.shape[1]) >= padding_B[:, None]
    recurrent, key = is_recurrent(network.config), cache_key(network)
    position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    # Padding reads itself: attention to nothing at all is NaN in some families.
    square_TT = torch.ones(ids_BT.shape[1], ids_BT.shape[1], dtype=torch.bool)
    reads_BTT = (mask_BT[:, None] & square_TT.tril()) | (square_TT.tril() & square_TT.triu())
    bias_B1TT = torch.zeros(reads_BTT.shape, dtype=network.dtype).masked_fill(~reads_BTT, -1e9)[:, None]
    logits = []
    ends = range(6, ids_BT.shape[1] + 1) if recurrent else (6, ids_BT.shape[1])
    for start, end in zip((0, 5, *ends), (5, *ends), strict=False):
        real_BT = mask_BT[:, :end].long() if key == "past_key_values" or start == 0 else None
        logits.append(
            network(
                input_ids=ids_BT[:, start:end],
                attention_mask=real_BT if recurrent else bias_B1TT[:, :, start:end, :end],
                position_ids=position_BT[:, start:end],
                use_cache=True,
                **{key: cache},
            ).logits
        )
    return torch.cat(logits, dim=1).masked_fill(~mask_BT[..., None], 0.0)


def _ids(rows: int, tokens: int = 9) -> Tensor:
    return torch.randint(1, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(1))


def _check(perturbed: PerturbedNetwork, noise: PopulationNoise, members: Sequence[int], rows_per_member: int) -> None:
    """Every member's rows as its own network computes them, and different from the plain network's."""
    ids_BT = _ids(len(members) * rows_per_member)
    padding_B = torch.arange(len(ids_BT)) % 3
    with noise.active(members, rows_per_member):
        together = _conversation(perturbed.network, ids_BT, padding_B)
    plain = _conversation(perturbed.network, ids_BT, padding_B)
    for i, member in enumerate(members):
        own = slice(i * rows_per_member, (i + 1) * rows_per_member)
        alone = _conversation(_member(perturbed, noise, member), ids_BT[own], padding_B[own])
        torch.testing.assert_close(together[own], alone, rtol=0, atol=1e-10)
        assert float((together[own] - plain[own]).abs().max()) > 1e-3


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_member_runs_as_its_own_network(family: str, rank: int) -> None:
    """Prefill with left padding, a cached step and a second block. Catches a parameter perturbed not at all, twice or in
    the wrong layout, rows that get another member's noise, and a lost sign or constant.
    """
    perturbed = PerturbedNetwork(_network(family))
    assert len(perturbed.parameters) == len(list(perturbed.network.parameters()))
    _check(perturbed, _noise(perturbed, rank=rank), range(POPULATION), 2)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3", "gpt_neox"])
def test_tied_and_untied_heads(family: str, tied: bool) -> None:
    """A tied matrix is one parameter with one noise in both uses."""
    perturbed = PerturbedNetwork(_network(family, tie_word_embeddings=tied))
    assert sum(spec.shape == (VOCABULARY, 32) for spec in perturbed.parameters.values()) == (1 if tied else 2)
    _check(perturbed, _noise(perturbed), [0, 1], 1)


@pytest.mark.parametrize("members", [[0, 1, 2, 3], [1, 2], [5, 0, 3], [4], [2, 2, 3]])
def test_any_choice_of_members(members: list[int]) -> None:
    """Whole pairs take a short cut that others do not: broken pairs, any order and repeated members must agree with it."""
    perturbed = PerturbedNetwork(_network("qwen2"))
    for rank in (1, 2):
        _check(perturbed, _noise(perturbed, rank=rank), members, 2)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
@torch.no_grad()
def test_a_prompt_of_many_tokens_is_its_members_own(family: str) -> None:
    """There the noise is added to the layer's product and its bias, not they to the noise; with layers that share an input."""
    perturbed = PerturbedNetwork(_network(family))
    for vectors in ("full", "frozen"):
        noise, ids_BT = _noise(perturbed, vectors=vectors), _ids(6, tokens=MANY)
        with noise.active([0, 1, 5], 2):
            together = perturbed.network(input_ids=ids_BT).logits
        for i, member in enumerate([0, 1, 5]):
            alone = _member(perturbed, noise, member)(input_ids=ids_BT[2 * i : 2 * i + 2]).logits
            torch.testing.assert_close(together[2 * i : 2 * i + 2], alone, rtol=0, atol=1e-10)


def test_results_do_not_depend_on_the_batch() -> None:
    """A member's rows are the same whoever runs beside it."""
    perturbed = PerturbedNetwork(_network("llama"))
    noise, ids_BT, padding_B = _noise(perturbed), _ids(POPULATION * 2), torch.zeros(POPULATION * 2)
    with noise.active(range(POPULATION), 2):
        together = _conversation(perturbed.network, ids_BT, padding_B)
    for chunk in ([0], [1, 2], [3, 4, 5]):
        rows = slice(2 * chunk[0], 2 * chunk[-1] + 2)
        with noise.active(chunk, 2):
            apart = _conversation(perturbed.network, ids_BT[rows], padding_B[rows])
        torch.testing.assert_close(apart, together[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
@torch.no_grad()
def test_positions_that_the_network_makes_itself(family: str) -> None:
    """Without `position_ids` GPT-2 looks one row of positions up for all rows; each member must add its own noise."""
    perturbed = PerturbedNetwork(_network(family))
    noise, ids_BT = _noise(perturbed), _ids(6)
    with noise.active([0, 1, 5], 2):
        together = perturbed.network(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT)).logits
    for i, member in enumerate([0, 1, 5]):
        own_BT = ids_BT[2 * i : 2 * i + 2]
        alone = _member(perturbed, noise, member)(input_ids=own_BT, attention_mask=torch.ones_like(own_BT)).logits
        torch.testing.assert_close(together[2 * i : 2 * i + 2], alone, rtol=0, atol=1e-10)


def test_frozen_vectors_stay() -> None:
    """With `vectors=frozen` biases and norms keep their values in every member."""
    perturbed = PerturbedNetwork(_network("gpt2"))
    noise = _noise(perturbed, vectors="frozen")
    assert all(unit.ndim == 2 for _, unit in noise.combine(torch.ones(POPULATION)))
    _check(perturbed, noise, [2, 3], 2)


def test_excluded_parameters_stay() -> None:
    """Patterns exclude parameters; the rest is perturbed as before, by the same numbers: a parameter keeps its index."""
    network = _network("qwen2")
    perturbed = PerturbedNetwork(network, exclude=["*norm*", "model.embed_tokens.weight", "*.k_proj.bias"])
    assert not any("norm" in name or "embed" in name or "k_proj.bias" in name for name in perturbed.parameters)
    noise = _noise(perturbed)
    _check(perturbed, noise, [0, 3], 2)
    everything = dict(_noise(PerturbedNetwork(network)).combine(torch.arange(POPULATION).double()))
    for name, unit in noise.combine(torch.arange(POPULATION).double()):
        assert torch.equal(unit, everything[name])


@pytest.mark.parametrize("family", RECURRENT)
def test_a_recurrent_network_runs_whole(family: str) -> None:
    """With all that a mixer reads by itself: in the prompt, step by step, and as members that share no draw."""
    with float64_throughout():
        perturbed = PerturbedNetwork(_network(family))
        assert len(perturbed.parameters) == len(list(perturbed.network.parameters()))
        _check(perturbed, _noise(perturbed), [1, 4, 5], 2)


def test_noise_of_full_size_reaches_experts_and_mixers() -> None:
    """As low-rank noise does."""
    for family in ("mixtral", "mamba", "qwen3_next"):
        with float64_throughout():
            perturbed = PerturbedNetwork(_network(family))
            key = NoiseKey(seed=5, generation=2, population=POPULATION, antithetic=True, sigma=SIGMA)
            _check(perturbed, FullRank(vectors="full").draw(perturbed, key), [0, 1, 4], 2)


class _RoutedExperts(nn.Module):
    """A mixture of experts of the older kind: each linear layer sees only the tokens that are routed to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        y = torch.zeros_like(tokens)
        # Four tokens or none: a multiple of the probe's rows, so that only the exact number of tokens gives it away.
        second = torch.zeros(len(tokens), dtype=torch.bool)
        second[tokens.sum(-1).topk(4 if len(tokens) > 8 else 0).indices] = True
        for expert, chosen in zip(self.experts, (~second, second), strict=True):
            y[chosen] = expert(tokens[chosen])
        return y.view_as(x)


class _Tempered(nn.Linear):
    """Not linear in its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.tanh(), self.bias)


class _MeanScale(nn.Module):
    """Has a vector, but does not scale by it entry by entry: with one vector a row it would mix the rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.mean()


class _Direct(nn.Module):
    """Multiplies by its matrix without `linear`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class _InPlace(_Direct):
    """Writes what its vmap could not write back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone().mul_(self.weight.diagonal())


class _Table(nn.Module):
    """Meets numbers of its own that are not the batch's rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.table = torch.ones(3, width, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.table * self.weight).mean(0)


class _Coincidence(nn.Module):
    """As many numbers of its own as the tiny batch has rows, which makes them look like rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.table = torch.linspace(-1, 1, ROWS * width, dtype=torch.float64).view(ROWS, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.table * self.weight).sum(0)


class _Large(nn.Module):
    """A matrix of which no member can hold its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1 + LARGEST // width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.mean(0)


class _Unused(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x


def _with(module: type[nn.Module]) -> PreTrainedModel:
    network = _network("llama")
    strange = module(32, 32) if issubclass(module, nn.Linear) else module(32)
    network.model.layers[1].mlp = strange.double()
    return network


@pytest.mark.parametrize("module", [_RoutedExperts, _InPlace, _Table, _Coincidence, _Large, _Unused])
def test_what_cannot_be_perturbed_is_named(module: type[nn.Module]) -> None:
    """Each would silently give wrong rows, or be updated by noise that was not applied, if taken at its face."""
    network = _with(module)
    with pytest.raises(LeaveOutError, match=r"cannot perturb.*model\.layers\.\*\.mlp") as error:
        PerturbedNetwork(network)
    assert "\n" not in str(error.value)
    assert f"exclude={error.value.exclude}" in str(error.value)
    rest = PerturbedNetwork(network, exclude=error.value.exclude)
    assert set(rest.parameters) == {name for name, _ in network.named_parameters() if "layers.1.mlp" not in name}


@pytest.mark.parametrize("module", [_Tempered, _MeanScale, _Direct])
def test_code_of_its_own_is_followed_member_by_member(module: type[nn.Module]) -> None:
    """Though the module does nothing that linear layers, embeddings and norms do."""
    perturbed = PerturbedNetwork(_with(module))
    assert any("layers.1.mlp" in name for name in perturbed.parameters)
    for members in ([0, 1, 2, 3], [5], [2, 2, 3]):
        _check(perturbed, _noise(perturbed), members, 2)


@pytest.mark.parametrize("family", ["beam", "gpt_oss", "mamba", "nemotron_h", "phimoe"])
def test_rounding_leaves_nothing_out(family: str) -> None:
    """In bfloat16 a member's rows may be rounded otherwise than its own network's, and sent to another expert."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.bfloat16).eval()
    assert len(PerturbedNetwork(network).parameters) == len(list(network.parameters()))


def test_patterns_name_whole_modules_that_have_nothing_else() -> None:
    """Short enough to be read and pasted, and never more than what is meant."""
    everything = ["a.0.x.w", "a.0.x.b", "a.0.y.w", "a.1.x.w", "a.1.x.b", "a.1.y.w", "b.c.w", "b.d.0.w", "b.d.1.w", "e"]
    assert covering(["a.0.x.w", "a.0.x.b", "a.1.x.w", "a.1.x.b"], everything) == ["a.*.x.*"]
    assert covering(["a.0.x.w", "a.1.x.w"], everything) == ["a.*.x.w"]
    assert covering([name for name in everything if name[0] == "b"], everything) == ["b.*"]
    assert covering(["e", "b.c.w"], everything) == ["e", "b.c.*"]


def test_options_that_make_no_sense() -> None:
    """A misspelled pattern, patterns that leave nothing, a network in training mode."""
    network = _network("llama")
    with pytest.raises(ValueError, match="no parameter matches 'lm_heat"):
        PerturbedNetwork(network, exclude=["lm_heat.*"])
    with pytest.raises(ValueError, match="leaves no parameter"):
        PerturbedNetwork(network, exclude=["*"])
    with pytest.raises(ValueError, match="eval"):
        PerturbedNetwork(network.train())
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        PerturbedNetwork(_network("llama"))


@torch.no_grad()
def test_outside_the_context_the_network_is_itself() -> None:
    """Bit for bit, after an error within as well; another's replaced `forward` is put back."""
    network = _network("gpt2")
    before = network(input_ids=_ids(4)).logits
    own_forward = network.lm_head.forward
    network.lm_head.forward = own_forward
    stored = {name: (id(p), p.clone()) for name, p in network.named_parameters()}
    perturbed = PerturbedNetwork(network)
    noise = _noise(perturbed)
    with pytest.raises(KeyError), noise.active([0, 1], 2):
        network(input_ids=_ids(4))
        raise KeyError
    assert torch.equal(network(input_ids=_ids(4)).logits, before)
    assert network.lm_head.__dict__["forward"] is own_forward
    for name, module in network.named_modules():
        assert name == "lm_head" or "forward" not in module.__dict__
    for name, parameter in network.named_parameters():
        assert id(parameter) == stored[name][0]
        assert torch.equal(parameter, stored[name][1])


@torch.no_grad()
def test_a_batch_of_another_size_is_refused() -> None:
    """Rows that do not match the members would be perturbed by the wrong ones."""
    perturbed = PerturbedNetwork(_network("llama"))
    with pytest.raises(CannotPerturbError, match="expected ids of 4 rows"), _noise(perturbed).active([0, 1], 2):
        perturbed.network(input_ids=_ids(6))
    with (
        pytest.raises(AssertionError, match="already"),
        _noise(perturbed).active([0], 1),
        _noise(perturbed).active([0], 1),
    ):
        pass


@torch.no_grad()
def test_changed_weights_are_seen_at_once() -> None:
    """Scales of norms are prepared on entering: entering again after an update must not bring the old ones back."""
    perturbed = PerturbedNetwork(_network("llama"))
    noise = _noise(perturbed)
    for change in (0.0, 0.5):
        for parameter in perturbed.network.parameters():
            parameter.add_(change)
        _check(perturbed, noise, [0, 1], 1)


@torch.no_grad()
def test_logits_of_the_last_token_only() -> None:
    """`logits_to_keep` hands the head a slice that is not contiguous."""
    perturbed = PerturbedNetwork(_network("llama"))
    with _noise(perturbed).active([0, 3], 3):
        everything = perturbed.network(input_ids=_ids(6)).logits
        for keep in (1, 2):
            some = perturbed.network(input_ids=_ids(6), logits_to_keep=keep).logits
            torch.testing.assert_close(some, everything[:, -keep:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@torch.no_grad()
def test_bfloat16_stays_bfloat16(family: str) -> None:
    """Noise in the weights' dtype: catches a promotion to float32, which would cost the speed of the whole network."""
    perturbed = PerturbedNetwork(_network(family, torch.bfloat16))
    noise = _noise(perturbed)
    with noise.active([0, 1], 2):
        logits = perturbed.network(input_ids=_ids(4)).logits
    assert logits.dtype == torch.bfloat16
    exact = PerturbedNetwork(copy.deepcopy(perturbed.network).double())
    with _noise(exact).active([0, 1], 2):
        expected = exact.network(input_ids=_ids(4)).logits
    error = (logits.double() - expected).abs().max() / expected.abs().max()
    assert float(error) < 0.1


def test_layers_that_read_one_input_are_found() -> None:
    """Queries, keys and values; gate and up. The layers that read what these give out stand alone."""
    together = PerturbedNetwork(_network("llama")).one_input
    layer = "model.layers.0"
    assert tuple(f"{layer}.self_attn.{x}_proj.weight" for x in "qkv") in together
    assert tuple(f"{layer}.mlp.{x}_proj.weight" for x in ("gate", "up")) in together
    assert len(together) == 2 * CONFIGS["llama"].num_hidden_layers


def test_the_probe_computes_where_the_network_is() -> None:
    assert TrialNoise({"any": 1}, torch.device("meta"), {}).vector("any").device.type == "meta"


def test_a_pass_that_is_over_holds_neither_inputs_nor_noise() -> None:
    """One input of every layer would be as large as a cache, and full-rank noise is many times the weights."""
    network = _network("llama")
    perturbed, inputs = PerturbedNetwork(network), []
    hooks = [
        layer.post_attention_layernorm.register_forward_hook(lambda _module, _given, out: inputs.append(ref(out)))
        for layer in network.model.layers
    ]
    noise = FullRank(vectors="full").draw(
        perturbed, NoiseKey(seed=5, generation=2, population=POPULATION, antithetic=True, sigma=SIGMA)
    )
    with noise.active([0, 1], 2), torch.inference_mode():
        members = ref(noise.for_members([0, 1]))
        network(input_ids=torch.zeros(4, 3, dtype=torch.int64), use_cache=False)
        assert len(inputs) == len(hooks) and all(one() is None for one in inputs)
    for hook in hooks:
        hook.remove()
    assert members() is not None  # until other members are asked for
    noise.for_members([2, 3])
    assert members() is None
