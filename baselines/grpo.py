"""GRPO: group-relative policy optimisation.

Paper: Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300. Options from DAPO (arXiv 2503.14476), Dr. GRPO (2503.20783),
GSPO (2507.18071), RLOO (2402.14740) and CISPO (2506.13585).

For each of Q instances the policy answers G times. With A_i the group-relative advantage of answer i, rho its tokens'
probability ratios to the sampling policy, and w the weights of the loss normalisation, one step minimises

    sum_i sum_t w_it [ L_clip(rho_it, A_i) + beta KL_it(pi || reference) ]

Deviations: with one step a batch the ratio is exactly 1 and its gradient that of the log-probability, so the sampler's
rounding does not enter; groups without signal are not run through the network when beta is 0, where their gradient is
zero (they still count in the normalisation). Rows that `baselines.unfinished` leaves out, and those whose return is not finite,
are neither compared nor trained on; `sequence` and `constant` divide by their number all the same.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from evotext.devices import widest_float
from evotext.distributed import collectives
from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.optimization.schedules import Schedule
from evotext.policy.actions import Actions, actions_of
from evotext.policy.advantages import GROUPLESS, Baseline
from evotext.types import Cost, Credit, Outcome, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, checked_record

from .dynamic_sampling import DynamicSampling
from .inner_loop import Figures
from .losses import KLEstimator, Normalisation
from .notices import Once, clip_notes, gap_notes, unfinished_notes
from .objective import Objective, Rows, Surrogate
from .overlong import longest_answers, overlong_penalty
from .policy_update import OldLogprobs, PolicyUpdate
from .rollout_metrics import group_metrics, rollout_metrics
from .stepper import Steps
from .training import Training, TrainingSettings
from .turn_credit import returns_from_turns, turn_advantages
from .unfinished import Unfinished, compared_rows


@checked_record
class GRPO(TrainingSettings):
    """Hyperparameters; conf/algorithm/grpo.yaml says of each what it is, its unit and its paper."""

    prompts: PositiveInt
    group_size: PositiveInt
    temperature: PositiveFloat
    baseline: Baseline
    normalisation: Normalisation
    max_tokens: PositiveInt
    surrogate: Surrogate
    ratio: Literal["token", "sequence"]
    clip_low: NonNegativeFloat
    clip_high: NonNegativeFloat
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None
    old_logprobs: OldLogprobs
    sampler_cap: PositiveFloat | None
    sampler_unit: Literal["token", "sequence"]
    kl_coefficient: NonNegativeFloat
    kl_schedule: Schedule
    kl_estimator: KLEstimator
    kl_in: Literal["loss", "reward"]
    mask_overlong: bool
    unfinished: Unfinished
    overlong_buffer: PositiveInt | None
    overlong_factor: NonNegativeFloat
    refill: PositiveInt | None
    gap_tolerance: PositiveFloat
    credit: Literal["episode", "turn"]
    turn_discount: Fraction

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2 and self.baseline not in GROUPLESS:
            raise ValueError(
                f"group_size: expected at least 2 with baseline={self.baseline}, got {self.group_size}; "
                f"a group of one has nothing to be compared with ({' and '.join(GROUPLESS)} compare with the whole batch)"
            )
        if self.overlong_buffer is not None and self.overlong_buffer > self.max_tokens:
            raise ValueError(
                f"overlong_buffer: expected at most max_tokens={self.max_tokens}, the longest answer (from "
                f"env.max_new_tokens), got {self.overlong_buffer}"
            )
        if self.credit == "episode" and self.turn_discount != 1:
            raise ValueError(
                f"turn_discount: expected 1 with credit=episode, which knows no turns, got {self.turn_discount:g}; set "
                "credit=turn"
            )
        if self.minibatches > self.prompts * self.group_size:
            raise ValueError(
                f"minibatches: expected at most prompts x group_size = {self.prompts * self.group_size}, "
                f"got {self.minibatches}"
            )
        if self.sampler_cap is not None and self.old_logprobs == "sampler" and not self.one_step:
            raise ValueError(
                "sampler_cap: expected null with old_logprobs=sampler and several steps a batch, got "
                f"{self.sampler_cap:g}; the ratio is to the sampler then: set old_logprobs=trainer"
            )

    def start(self, model: LanguageModel, seed: int) -> "GRPOLearner":
        """Build the optimizer, and with a KL penalty a reference (`Training`)."""
        return GRPOLearner(self, model, seed)


class GRPOLearner:
    """The policy on its way, with the optimizer's state, the reference and the groups that wait for more."""

    def __init__(self, hyper: GRPO, model: LanguageModel, seed: int) -> None:
        self._hyper, self._once = hyper, Once()
        self.training = Training(hyper, model, seed, reference=hyper.kl_coefficient > 0)
        self._gathered = DynamicSampling(hyper.prompts, hyper.refill) if hyper.refill else None
        self._update = PolicyUpdate(
            training=self.training,
            objective=Objective(
                surrogate=hyper.surrogate,
                ratio=hyper.ratio,
                clip_low=hyper.clip_low,
                clip_high=hyper.clip_high,
                dual_clip=hyper.dual_clip,
                kl_estimator=hyper.kl_estimator,
            ),
            temperature=hyper.temperature,
            normalisation=hyper.normalisation,
            max_tokens=hyper.max_tokens,
            old_logprobs=hyper.old_logprobs,
            sampler_cap=hyper.sampler_cap,
            sampler_unit=hyper.sampler_unit,
        )

    def follow(self, spent: float) -> None:
        """Take note of the share of the budget that is spent."""
        self.training.spent = spent

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan of Q fresh instances, or as many as a gathered batch still misses, each answered by G rows."""
        prompts = self._hyper.prompts if self._gathered is None else self._gathered.missing
        instances = train_instances(self.training.seed, generation, prompts)
        return RolloutPlan(
            seed=self.training.seed,
            generation=generation,
            instances=tuple(instance for instance in instances for _ in range(self._hyper.group_size)),
            groups=tuple(group for group in range(prompts) for _ in range(self._hyper.group_size)),
            sampling=Sampling(temperature=self._hyper.temperature),
            logprobs=True,
            groups_a_part=1 if self._gathered is None else 0,  # fewer groups than are missing would be held for nothing
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Take one or more optimizer steps; none if no group carries a signal, or if more groups are to be gathered."""
        begin = self.training.begin(batch.plan.generation)
        figures, steps = Figures(), Steps()
        kl_coefficient = self._hyper.kl_coefficient * self._hyper.kl_schedule(
            batch.plan.generation, self.training.spent
        )
        self.training.tokens_seen += int(batch.length_B.sum())
        compared_B = compared_rows(batch, self._hyper.unfinished) & batch.return_B.isfinite()
        metrics = rollout_metrics(batch) | group_metrics(batch, compared_B)
        rows, credit = self._rows_of(batch, compared_B, kl_coefficient, figures)
        if self._gathered is not None:
            metrics["groups/held"] = float(self._gathered.gathered)
        if rows is not None:
            in_loss = kl_coefficient if self._hyper.kl_in == "loss" else 0.0
            steps = self._update(rows, generation=batch.plan.generation, penalty=in_loss, figures=figures)
        if self.training.reference is not None:
            metrics["kl_coefficient"] = kl_coefficient
        metrics |= figures.result()
        notes = self._once(
            gap=gap_notes(metrics, self._hyper.gap_tolerance),
            clip=clip_notes(metrics, min(self._hyper.clip_low, self._hyper.clip_high)),
            unfinished=unfinished_notes(metrics, self._hyper.unfinished),
        )
        held = self._gathered is not None and self._gathered.gathered > 0
        outcome = Outcome.HELD if rows is None and held else steps.outcome
        report = self.training.report(
            steps, metrics, begin=begin, cost=Cost(), outcome=outcome, notes=notes, credit=credit
        )
        return replace(report, cost_is_fixed=self._gathered is not None)  # a step is taken on what was gathered

    def _rows_of(
        self, batch: Trajectories, compared_B: Tensor, kl_coefficient: float, figures: Figures
    ) -> tuple[Rows | None, Credit]:
        """Return the rows to learn from, None while more groups are to be gathered; and the batch's own advantages."""
        device = self.training.device
        actions, groups = actions_of(batch, device), torch.tensor(batch.plan.groups)
        return_B = self._shaped(batch, actions, kl_coefficient, figures)
        compared_B = compared_B & return_B.isfinite()
        advantage_BN = self._advantages(return_B, actions, groups, compared_B)
        counts_B = advantage_BN.isfinite().all(1) & compared_B  # finite returns can still have a sum that is not
        if self._hyper.mask_overlong:
            counts_B &= ~batch.overlong_B
        rows = Rows(
            actions=actions, advantage_BN=advantage_BN.to(device, widest_float(device)), counts_B=counts_B.to(device)
        )
        mean_B = advantage_BN.sum(1) / actions.mask_BN.sum(1).cpu()
        credit = Credit(name="advantage", value_B=mean_B.where(counts_B, torch.nan))
        if self._gathered is None:
            return rows, credit
        outcome_BN = self._advantages(batch.return_B, actions, groups, compared_B)  # of the task, not as shaped
        alive = groups[outcome_BN.isfinite().all(1) & (outcome_BN != 0).any(1)].unique()
        self._gathered.add(rows.at(torch.isin(groups, alive).nonzero()[:, 0].to(device)), groups=len(alive))
        return self._gathered.take(), credit

    def _advantages(self, return_B: Tensor, actions: Actions, groups: Tensor, compared_B: Tensor) -> Tensor:
        """Return the advantage of each action (B, N), on the CPU; 0 in rows that are not compared."""
        mask_BN, turn_BN = actions.mask_BN.cpu(), actions.turn_BN.cpu()
        return_BS = return_B[:, None]
        if self._hyper.credit == "turn":
            return_BS = returns_from_turns(actions, return_B, self._hyper.turn_discount)
        else:
            turn_BN = torch.zeros_like(turn_BN)
        advantage_BS = torch.zeros(return_BS.shape, dtype=torch.float64)
        advantage_BS[compared_B] = turn_advantages(return_BS[compared_B], groups[compared_B], self._hyper.baseline)
        return advantage_BS.gather(1, turn_BN).where(mask_BN, 0.0)

    def _shaped(self, batch: Trajectories, actions: Actions, kl_coefficient: float, figures: Figures) -> Tensor:
        """Return the returns that advantages are made of, (B,) on the CPU; reported are the task's own."""
        return_B = batch.return_B
        if self._hyper.overlong_buffer is not None:
            length_B = longest_answers(batch.policy_mask_BT, batch.turn_BT)
            return_B = return_B + overlong_penalty(
                length_B, self._hyper.max_tokens, self._hyper.overlong_buffer, self._hyper.overlong_factor
            )
        if self._hyper.kl_in == "reward" and self.training.reference is not None:
            return_B = return_B - kl_coefficient * self._divergence(actions, figures)
        return return_B

    @torch.no_grad()
    def _divergence(self, actions: Actions, figures: Figures) -> Tensor:
        """Return k1 of each row as sampled, summed over its actions: (B,), on the CPU."""
        reference = self.training.reference
        assert reference is not None
        device = actions.mask_BN.device
        sum_B = torch.zeros(actions.rows, dtype=widest_float(device), device=device)

        def work(row_K: Tensor) -> None:
            part = actions.select(row_K)
            reference_KN = reference.score(part, self._hyper.temperature).logprob_BN
            kl_KN = torch.where(part.mask_BN, part.old_logprob_BN.to(sum_B.dtype) - reference_KN.to(sum_B.dtype), 0.0)
            sum_B[row_K] = kl_KN.sum(1)
            figures.mean([("kl", float(kl_KN[part.mask_BN].mean()))], float(part.mask_BN.sum()))

        self.training.micro.run(actions.mask_BN.any(1).nonzero()[:, 0], actions.length_B, work, figures)
        collectives.all_reduce([sum_B])
        return sum_B.cpu()

    def state_dict(self) -> dict[str, object]:
        """Return the state of the training, and groups held back, if any can be."""
        gathered = {} if self._gathered is None else {"gathered": self._gathered.state_dict()}
        return self.training.state_dict() | gathered

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.training.load_state_dict(state)
        if self._gathered is not None:
            self._gathered.load_state_dict(state["gathered"], self.training.device)
