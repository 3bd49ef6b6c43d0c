# SPDX-License-Identifier: Apache-2.0
"""The credit of one training step: its signals, and the weights that the methods make of them."""

from __future__ import annotations

from torch import Tensor

from verl_ext.configuration.section import Perception
from verl_ext.methods.base import RolloutSignals
from verl_ext.methods.credit import combined, faded, influence, method_weights, shuffled
from verl_ext.supervision.broken_numbers import BrokenRows
from verl_ext.trainer.metrics import method_metrics, signal_metrics, weight_metrics
from verl_ext.trainer.rollout_batch import RolloutBatch
from verl_ext.vocabulary import HAS_IMAGE


class StepCredit:
    """Computed when verl's estimator asks for :meth:`weights`, because it may correct the mask of the responses before.

    Args:
        rollout: of the step, with the fields :meth:`fields`.
        perception: the run's methods and options.
        progress: share of the training steps that are done.
        step: training step.

    Attributes:
        base_estimator: name of verl's estimator whose advantages are weighted.
        keys: TransferQueue's keys of all rows, of which verl's `grpo` reads what is the last output of a rollout.
        values: (B, T) of the critic; None unless the base estimator reads them.
        broken: responses that are left out of the step.
        signals: of the real rows, without the broken ones; set by :meth:`weights`.
        real_weights: (B', T) multipliers of the real rows' advantages; None if no method has any.
    """

    signals: RolloutSignals | None = None
    real_weights: Tensor | None = None

    def __init__(self, rollout: RolloutBatch, perception: Perception, progress: float, step: int) -> None:
        self._rollout, self._perception, self._progress, self._step = rollout, perception, progress, step
        self._by_method: dict[str, Tensor] = {}
        self.broken = BrokenRows(perception.options.on_broken, step, rollout.real_values("uid"))
        self.base_estimator = perception.options.base_estimator
        self.keys: list[str] = rollout.meta.keys
        self.values = rollout.fields["values"].to_padded_tensor(0) if "values" in rollout.fields else None

    @staticmethod
    def fields(perception: Perception) -> list[str]:
        """What of a rollout batch must be fetched."""
        fields = ["uid", "old_log_probs"]
        if perception.options.base_estimator == "gae":
            fields.append("values")
        if perception.signals:
            fields += [HAS_IMAGE, *(signal.field for signal in perception.signals)]
        return fields

    def weights(self, response_mask: Tensor) -> Tensor | None:
        """(B, T) multipliers of all rows' advantages, 1 for padding rows; None if no method has any.

        Args:
            response_mask: (B, T), non-zero where the token counts.

        Raises:
            BrokenNumberError: a signal or a weight is NaN or infinite, and the run is to stop then.
        """
        options, real = self._perception.options, self._rollout.real
        signals = self._rollout.signals(self._perception.signals, response_mask[real] != 0, self._progress)
        self.signals = signals = self.broken.without(signals, self._perception.methods)
        self._by_method = self.broken.finite(method_weights(self._perception.methods, signals), signals.response_mask)
        weights = combined(self._by_method)
        if weights is None:
            return None
        if options.shuffle_weights:
            weights = shuffled(weights, signals, options.seed, self._step)
        self.real_weights = faded(weights, signals.response_mask, influence(self._progress, options.fade_over))
        everyone = self.real_weights.new_ones(response_mask.shape)
        everyone[real] = self.real_weights
        return everyone

    def metrics(self) -> dict[str, float]:
        """What is logged of signals, weights and broken rows."""
        assert self.signals is not None
        metrics = signal_metrics(self.signals) if self._perception.signals else {}
        if self.broken.rows.any():
            metrics["perception/broken_rows"] = float(self.broken.rows.sum())
        if self.real_weights is not None:
            metrics.update(weight_metrics(self.real_weights, self.signals.response_mask))
            metrics.update(method_metrics(self._by_method, self.signals.response_mask))
        return metrics

    def put_right(self) -> None:
        """Make what the loss reads of broken rows in TransferQueue harmless."""
        assert self.signals is not None
        if not self.broken.rows.any():
            return
        self._rollout.write("old_log_probs", self.signals.old_log_prob)
        for signal, values in self.signals.measured.items():
            self._rollout.write(signal.field, values)
        if self._perception.signals:
            self._rollout.write_rows(HAS_IMAGE, self.signals.has_image)
