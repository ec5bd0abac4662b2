"""Checks of whether a family runs perturbed and in the rollout engine, and computes the right thing.

    network     a tiny random one, every parameter random, biases and norms too, in float64 throughout
    perturbed   each member's rows get the logits of its own network, with W + sigma E written into it, to 1e-10
    engine      three members' conversations of two turns, of unequal length, batched and cached: the tokens that each
                member's own network writes in a slow loop without cache or batch, and their log-probabilities

A family that the engine would not run correctly, or a parameter that cannot be perturbed, has to be refused beforehand with
a line that says so. Anything else is a fault of ours: `Wrong`.
"""

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.chat import ChatFormat
from evotext.models.huggingface import context_length
from evotext.models.language_model import LanguageModel
from evotext.models.trial_run import check_runs
from evotext.noise import NoiseKey, PopulationNoise
from evotext.rollouts.session import Session
from families.reference import float64_throughout, own_network, slow_greedy
from families.tiny import CONTEXT, VOCABULARY, tiny_config
from optimizers.perturbations import LowRank
from optimizers.perturbed import LeaveOutError, PerturbedNetwork
from optimizers.perturbed.probe import inspect_uses

KEY = NoiseKey(seed=0, generation=0, population=4, antithetic=True, sigma=0.05)
MEMBERS = (0, 1, 3)  # a whole pair and a broken one
ROWS_EACH, TURNS, NEW_TOKENS = 2, 2, 5
LOGITS, LOGPROBS = 1e-10, 1e-8  # logits are of size 1
ENDS = frozenset(range(3, 30))  # so many that answers differ in length


class Wrong(AssertionError):
    """A family that runs and computes something other than it should."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one family's checks."""

    family: str
    runs: bool
    """True if the engine runs it, and then correctly."""
    reason: str = ""
    """The reason if it does not, in a line."""
    exclude: tuple[str, ...] = ()
    """Patterns that have to be in `algorithm.exclude`."""
    reasons: tuple[str, ...] = ()
    """The reasons, one for each."""
    besides: tuple[str, ...] = ()
    """Perturbed parameters besides linear layers, embeddings and norms: `experts`, and those that other code reads."""
    weights: int = 0
    """Numbers in the tiny network."""
    difference: float = 0.0
    """Largest difference of a logit from that of the member's own network."""
    seconds: float = 0.0
    """Seconds that the checks took."""


def check(family: str) -> Outcome:
    """Return the outcome of this family. Raise Wrong if it runs and is not equal."""
    begin = time.perf_counter()
    try:
        network = tiny_network(family)
    except Exception as error:  # whatever a configuration's code raises
        return Outcome(
            family=family, runs=False, reason=f"transformers does not build it from a configuration: {_line(error)}"
        )
    with float64_throughout():
        try:
            context_length(network.config)
            check_runs(network)
        except ValueError as error:
            return Outcome(family=family, runs=False, reason=_line(error))
        perturbed, refusal = _perturbed(network)
        noise = LowRank(rank=2, vectors="full").draw(perturbed, KEY)
        own = {m: own_network(perturbed, noise, m, population=KEY.population, sigma=KEY.sigma) for m in MEMBERS}
        difference = largest_difference(network, noise, own)
        if not difference <= LOGITS:
            raise Wrong(f"{family}: a member's logits differ by {difference:.1e} from those of its own network")
        for members, of_member, drawn in (([0] * 6, {0: network}, None), (_rows(), own, noise)):
            _check_engine(family, network, members, of_member, drawn)
        besides = _besides(perturbed)
    return Outcome(
        family=family,
        runs=True,
        exclude=() if refusal is None else tuple(refusal.exclude),
        reasons=() if refusal is None else tuple(dict.fromkeys(refusal.reasons.values())),
        besides=besides,
        weights=sum(parameter.numel() for parameter in network.parameters()),
        difference=difference,
        seconds=time.perf_counter() - begin,
    )


def tiny_network(family: str) -> PreTrainedModel:
    """Return a random network of this family in float64, in evaluation mode. Matrices are large enough that logits differ."""
    config = tiny_config(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(
            config, experts_implementation="eager"
        )  # grouped kernels lack float64
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.is_floating_point() and parameter.ndim >= 2:
                    parameter.normal_(std=0.3)
                elif parameter.is_floating_point():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network.double().eval()


def _perturbed(network: PreTrainedModel) -> tuple[PerturbedNetwork, LeaveOutError | None]:
    try:
        return PerturbedNetwork(network), None
    except LeaveOutError as error:
        return PerturbedNetwork(network, exclude=error.exclude), error


def _besides(perturbed: PerturbedNetwork) -> tuple[str, ...]:
    """Return names of what neither linear layers nor embeddings nor norms read, without the layer's number and its prefix."""
    names = {id(p): name for name, p in perturbed.network.named_parameters() if name in perturbed.parameters}
    uses = inspect_uses(perturbed.network, names).uses
    own = {".".join(re.split(r"\.\d+\.", use.name)[-1].split(".")[-2:]) for use in uses if use.kind == "own"}
    return (*(["experts"] if any(use.kind == "experts" for use in uses) else []), *sorted(own))


def _rows() -> list[int]:
    return [member for member in MEMBERS for _ in range(ROWS_EACH)]


@torch.no_grad()
def largest_difference(network: PreTrainedModel, noise: PopulationNoise, own: dict[int, PreTrainedModel]) -> float:
    """Return how far a prompt's logits lie from those of each member's own network, at most."""
    ids_BT = torch.randint(3, VOCABULARY, (len(MEMBERS) * ROWS_EACH, 6), generator=torch.Generator().manual_seed(1))
    with noise.active(MEMBERS, ROWS_EACH):
        together = network(input_ids=ids_BT).logits
    alone = [own[m](input_ids=ids_PT).logits for m, ids_PT in zip(MEMBERS, ids_BT.split(ROWS_EACH), strict=True)]
    return float((together - torch.cat(alone)).abs().max())


def _check_engine(
    family: str,
    network: PreTrainedModel,
    members: Sequence[int],
    own: dict[int, PreTrainedModel],
    noise: PopulationNoise | None,
) -> None:
    """Raise Wrong unless the engine writes in every row what the row's own network writes in a slow loop."""
    tokenizer = character_tokenizer()
    chat = ChatFormat(tokenizer, sorted(ENDS))
    model = LanguageModel(name=family, network=network, tokenizer=tokenizer, chat=chat, context_length=CONTEXT)
    session, rng = Session(model, members=members, noise=noise), random.Random(1)  # noqa: S311
    read = [_tokens(rng) for _ in members]
    blocks, rows = [list(ids) for ids in read], list(range(len(members)))
    for turn in range(TURNS):
        completions = session.complete(
            rows,
            [blocks[row] for row in rows],
            max_new_tokens=NEW_TOKENS,
            temperature=0.0,
            uniform_NT=None,
            logprobs=True,
            last_turn=turn + 1 == TURNS,
        )
        for row, completion in zip(rows, completions, strict=True):
            ids, logprobs = slow_greedy(own[members[row]], read[row], NEW_TOKENS, ENDS)
            if completion.ids != ids:
                raise Wrong(f"{family}: in turn {turn} the engine writes {completion.ids}, a slow loop {ids}")
            error = max(abs(a - b) for a, b in zip(completion.logprobs, logprobs, strict=True))
            if not error <= LOGPROBS:
                raise Wrong(f"{family}: in turn {turn} log-probabilities differ by {error:.1e} from a slow loop's")
            reply = _tokens(rng)
            read[row] += ids + reply
            blocks[row] = [ids[-1], *reply]
        rows = [row for row in rows if (row + turn) % 3]  # some episodes end


def _tokens(rng: random.Random) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(rng.randrange(1, 9))]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
