"""docs/models.md: the outcome of every family, as tables."""

from collections.abc import Sequence

import transformers

from families.checks import LOGITS, LOGPROBS, Outcome

_HEAD = """# Which models run

`python scripts/model_families.py` wrote this page. It builds a tiny random network of every family that transformers
{version} knows as a causal language model, and compares it with the slow, obvious way in float64:

* each member's logits in a perturbed batch against those of its own network, with W + sigma E written into it, to {logits:g};
* conversations of two turns in the batched, cached engine against a loop without cache or batch: the same tokens, and their
  log-probabilities to {logprobs:g}, plain and perturbed.

{whole} of {all} families and variants run with every parameter perturbed, {part} more with some left out; {refused} are
refused.

A model of a refused family stops the run before it costs anything, with a line that says why. Take another model; those of
the first table are equally good here. A model with code of its own (`model.trust_remote_code=true`) is tried when
it is loaded, as all are: a tiny batch shows whether rows of unequal length get the logits that they get alone, and every
parameter whether members get their own.

## How parameters are perturbed

| Parameters | How |
|---|---|
| linear layers, embeddings, output heads | noise of the perturbation's shape beside a product that all members share |
| experts of a mixture | noise of each expert's own; products grouped by expert, and by expert and member |
| routers, scaled embeddings, and other matrices that a module multiplies with by itself | as linear layers and embeddings |
| biases, scales and shifts of norms | noise of full size, or none (`perturbation.vectors=frozen`) |
| parameters that a mixer or an attention reads itself: A, D, dt, convolutions, sinks | member by member |

Where a network computes in float32 whatever its weights are, as many routers and state-space scans do, W + sigma E is rounded
once in a member's own network, and W and sigma E once each in ours. Beside float64 weights that shows as 1e-7 (DeepSeek-V3:
4e-7). The checks take float64 there, too, so that no such rounding hides a fault.

XGLM with float64 weights overflows in transformers' own code; in float32 and bfloat16 it runs. Zamba2 and Nemotron-H decode as
transformers' cache does, which does not hold dt above `time_step_min` as a prompt's scan does.
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """Return the page."""
    whole = [outcome for outcome in outcomes if outcome.runs and not outcome.exclude]
    part = [outcome for outcome in outcomes if outcome.runs and outcome.exclude]
    refused = [outcome for outcome in outcomes if not outcome.runs]
    head = _HEAD.format(
        version=transformers.__version__,
        logits=LOGITS,
        logprobs=LOGPROBS,
        all=len(outcomes),
        whole=len(whole),
        part=len(part),
        refused=len(refused),
    )
    return "\n".join(
        [
            head,
            "## Run, every parameter perturbed\n",
            *_table(
                ("Family", "Perturbed besides linear layers, embeddings and norms"),
                [(outcome.family, ", ".join(f"`{name}`" for name in outcome.besides)) for outcome in whole],
            ),
            "\n## Run, with parameters left out\n",
            "Give `algorithm.exclude` the patterns; the error without them names them, too.\n",
            *_table(
                ("Family", "`algorithm.exclude`", "Why"),
                [
                    (outcome.family, ", ".join(f"`{name}`" for name in outcome.exclude), "; ".join(outcome.reasons))
                    for outcome in part
                ],
            ),
            "\n## Refused\n",
            *_table(("Family", "Why"), [(outcome.family, outcome.reason) for outcome in refused]),
            "",
        ]
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
