"""A module that records what a decoder block is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class InputRecorder(nn.Module):
    """Stands in a block's place, passes the hidden states on and keeps what else the block would have been given."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.empty(0)
        self.given: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, **given: Any) -> Tensor:
        """The hidden states as they came."""
        self.hidden, self.given = hidden_states, given
        return hidden_states
