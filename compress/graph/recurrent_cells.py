"""The GRU that PyTorch lacks: reset before the product with the state, as ONNX has it by default and Keras had it."""

import torch
from torch import Tensor, nn


class ResetBeforeGRU(nn.GRU):
    """A GRU whose candidate state is tanh(W x + R (r * h) + b), not tanh(W x + r * (R h + b_r) + b_w).

    Weights and gates are stored as PyTorch's GRU stores them. One layer, one direction or both; computed step by step.

    Source: ONNX's GRU with linear_before_reset = 0; Cho et al. 2014 (arXiv 1406.1078).
    """

    def forward(  # type: ignore[override]  # no packed sequences
        self, input: Tensor, hx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """[T, N, I] -> [T, N, D*H] and the last states [D, N, H]."""
        assert hx is None, "initial states are not imported"
        found = [self._direction(input, suffix) for suffix in ("", "_reverse")[: 1 + self.bidirectional]]
        return torch.cat([steps for steps, _ in found], 2), torch.stack([last for _, last in found])

    def _direction(self, x: Tensor, suffix: str) -> tuple[Tensor, Tensor]:
        weight, recurrent = (getattr(self, f"weight_{kind}_l0{suffix}") for kind in ("ih", "hh"))
        gates = x @ weight.T
        if self.bias:
            gates = gates + getattr(self, f"bias_ih_l0{suffix}") + getattr(self, f"bias_hh_l0{suffix}")
        size = self.hidden_size
        state = x.new_zeros(x.shape[1], size)
        made = []
        for step in gates.flip(0) if suffix else gates:
            both = step[:, : 2 * size] + state @ recurrent[: 2 * size].T
            reset, update = both.sigmoid().chunk(2, dim=1)
            candidate = torch.tanh(step[:, 2 * size :] + (reset * state) @ recurrent[2 * size :].T)
            state = (1 - update) * candidate + update * state
            made.append(state)
        return torch.stack(made[::-1] if suffix else made), state
