"""The paper's controller: a recurrent network that makes the choices one by one, trained by
reinforcement learning (section 5.1; Zoph and Le, Neural Architecture Search with Reinforcement
Learning, ICLR 2017). The paper gives no constants; those here were set on a synthetic objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.search.controllers import generator
from spinenet.search.space import OFFSETS, Choices, Decision, Kind, Space, walked

DECISIONS = get_args(Kind)


@dataclass(frozen=True)
class PolicyConfig:
    """`batch` rewards make one step of Adam. The baseline is a running mean of the rewards, which
    keeps `memory` of itself; a bonus of `entropy` per choice keeps the choices open.
    """

    hidden: int = 64
    lr: float = 1e-2
    batch: int = 4
    memory: float = 0.9
    entropy: float = 1e-2


class PolicyGradient:
    """REINFORCE with a baseline on an LSTM over the decisions of a space."""

    def __init__(self, space: Space, *, seed: int = 0, config: PolicyConfig | None = None) -> None:
        self.space, self.seed, self.config = space, seed, config or PolicyConfig()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _Policy(space, self.config.hidden)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.config.lr)
        self.pending: list[tuple[Choices, float]] = []
        self.mean, self.square, self.steps = 0.0, 0.0, 0

    def ask(self, number: int, attempt: int = 0) -> Choices:
        """A row drawn from the policy as it stands."""
        rng = generator(self.seed, number, attempt)
        reader = _Reader(self.network)

        def choose(decision: Decision) -> int:
            kind = DECISIONS.index(decision.kind)
            tokens = [_token(decision, option) for option in decision.options]
            picked = int(rng.choice(len(tokens), p=reader.chances(kind, tokens)))
            reader.read(kind, tokens[picked])
            return decision.options[picked]

        return tuple(choice for _, choice in self.space.walk(choose))

    def tell(self, choices: Choices, reward: float) -> None:
        """The reward counts at the next step of the optimiser."""
        self.pending.append((choices, reward))
        if len(self.pending) == self.config.batch:
            self._learn()
            self.pending = []

    def _learn(self) -> None:
        rewards = torch.tensor([reward for _, reward in self.pending])
        log_chances, entropies = self._evaluated([choices for choices, _ in self.pending])
        advantages = (rewards - self._baseline(rewards)) / self._spread(rewards)
        loss = -(advantages * log_chances).mean() - self.config.entropy * entropies.mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()

    def _baseline(self, rewards: Tensor) -> float:
        """Running mean before these rewards, which are then taken in; their own at first."""
        keep = self.config.memory if self.steps else 0.0
        before = self.mean if self.steps else float(rewards.mean())
        self.mean = keep * self.mean + (1 - keep) * float(rewards.mean())
        return before

    def _spread(self, rewards: Tensor) -> float:
        """Running deviation of the rewards, so that their unit does not matter."""
        keep = self.config.memory if self.steps else 0.0
        square = float(((rewards - self.mean) ** 2).mean())
        self.square = keep * self.square + (1 - keep) * square
        self.steps += 1
        return max(self.square**0.5, 1e-8)

    def _evaluated(self, rows: list[Choices]) -> tuple[Tensor, Tensor]:
        """Log probability of each row (B,), and entropy summed over its choices (B,)."""
        walks = [walked(self.space, row) for row in rows]
        kinds = torch.tensor([DECISIONS.index(decision.kind) for decision, _ in walks[0]])
        allowed = np.full((len(kinds), len(rows), self.network.tokens), -np.inf, np.float32)
        chosen = np.empty((len(kinds), len(rows)), np.int64)
        for row, walk in enumerate(walks):  # all make the same kinds of decisions
            for step, (decision, choice) in enumerate(walk):
                allowed[step, row, [_token(decision, option) for option in decision.options]] = 0
                chosen[step, row] = _token(decision, choice)
        taken = torch.from_numpy(chosen)
        logs = F.log_softmax(self.network(kinds, taken) + torch.from_numpy(allowed), dim=2)
        entropies = -(logs.exp() * logs.nan_to_num(neginf=0.0)).sum((0, 2))
        return logs.gather(2, taken[..., None]).sum((0, 2)), entropies


class _Policy(nn.Module):
    """An LSTM that reads its own choices; each kind of decision has its embedding and its head.

    Shapes: T decisions, B rows, K kinds, V tokens, H hidden.
    """

    def __init__(self, space: Space, hidden: int) -> None:
        super().__init__()
        self.tokens = max(len(space.stem) + space.length, max(space.widths) + 1, len(OFFSETS))
        self.first = nn.Parameter(torch.zeros(hidden))
        self.lstm = nn.LSTM(hidden, hidden)
        self.chosen = nn.Parameter(torch.randn(len(DECISIONS), self.tokens, hidden))
        # Zeros make every option equally likely at first.
        self.heads = nn.Parameter(torch.zeros(len(DECISIONS), self.tokens, hidden))
        self.biases = nn.Parameter(torch.zeros(len(DECISIONS), self.tokens))

    def forward(self, kinds: Tensor, chosen: Tensor) -> Tensor:
        """Logits (T, B, V) of decisions of these kinds (T,), of which each knows what was chosen
        (T, B) before it.
        """
        first = self.first.expand(1, chosen.shape[1], -1)
        states, _ = self.lstm(torch.cat([first, self.chosen[kinds[:-1, None], chosen[:-1]]]))
        logits: Tensor = torch.einsum("tbh,tvh->tbv", states, self.heads[kinds])
        return logits + self.biases[kinds][:, None]


class _Reader:
    """The same network one decision after the other, in numpy, which starts such small products
    sooner.
    """

    def __init__(self, network: _Policy) -> None:
        self.of = {name: value.detach().numpy() for name, value in network.named_parameters()}
        self.state = self.cell = np.zeros_like(self.of["first"])
        self._step(self.of["first"])

    def chances(self, kind: int, tokens: list[int]) -> np.ndarray:
        """Of these tokens, for the next decision."""
        logits = self.of["heads"][kind, tokens] @ self.state + self.of["biases"][kind, tokens]
        odds = np.exp(logits.astype(float) - logits.max())
        return odds / odds.sum()

    def read(self, kind: int, token: int) -> None:
        """Take in what was chosen."""
        self._step(self.of["chosen"][kind, token])

    def _step(self, inputs: np.ndarray) -> None:
        of = self.of
        gates = of["lstm.weight_ih_l0"] @ inputs + of["lstm.bias_ih_l0"]
        gates = gates + of["lstm.weight_hh_l0"] @ self.state + of["lstm.bias_hh_l0"]
        enter, keep, new, show = np.split(gates, 4)
        self.cell = _sigmoid(keep) * self.cell + _sigmoid(enter) * np.tanh(new)
        self.state = _sigmoid(show) * np.tanh(self.cell)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _token(decision: Decision, choice: int) -> int:
    """A choice as a small number: a parent by how far back it is, an offset from 0 up."""
    if decision.kind in ("first parent", "second parent"):
        return decision.block - choice - 1
    return choice - OFFSETS[0] if decision.kind == "offset" else choice
