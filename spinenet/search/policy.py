"""The paper's controller: a recurrent network that makes the choices one by one, trained by
reinforcement learning (section 4.1; Zoph and Le, Neural Architecture Search with Reinforcement
Learning, ICLR 2017). The paper gives no constants; those here were set on a synthetic objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.search.space import OFFSETS, Choices, Decision, Space, walked

KINDS = ("order", "output order", "first parent", "second parent", "offset", "kind")


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

    @torch.no_grad()
    def ask(self, number: int) -> Choices:
        """A row drawn from the policy as it stands."""
        rng = np.random.default_rng((self.seed, number))
        state = self.network.start(1)

        def choose(decision: Decision) -> int:
            nonlocal state
            logits = self.network.logits(state, decision.kind)[0]
            options = torch.tensor([_token(decision, option) for option in decision.options])
            chances = logits[options].double().softmax(0).numpy()
            picked = int(rng.choice(len(chances), p=chances / chances.sum()))
            state = self.network.advance(state, decision.kind, options[picked : picked + 1])
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
        state = self.network.start(len(rows))
        log_chances, entropies = torch.zeros(len(rows)), torch.zeros(len(rows))
        for step in zip(*walks, strict=True):  # all rows make the same kinds of decisions
            kind = step[0][0].kind
            allowed = torch.full((len(rows), self.network.tokens), -torch.inf)
            for i, (decision, _) in enumerate(step):
                allowed[i, [_token(decision, option) for option in decision.options]] = 0.0
            chosen = torch.tensor([_token(decision, choice) for decision, choice in step])
            logs = F.log_softmax(self.network.logits(state, kind) + allowed, dim=1)
            log_chances = log_chances + logs.gather(1, chosen[:, None])[:, 0]
            entropies = entropies - (logs.exp() * logs.nan_to_num(neginf=0.0)).sum(1)
            state = self.network.advance(state, kind, chosen)
        return log_chances, entropies


State = tuple[Tensor, Tensor]


class _Policy(nn.Module):
    """An LSTM that reads its own choices; each kind of decision has its embedding and its head."""

    def __init__(self, space: Space, hidden: int) -> None:
        super().__init__()
        self.tokens = max(len(space.stem) + space.length, max(space.widths) + 1, len(OFFSETS))
        self.first = nn.Parameter(torch.zeros(hidden))
        self.cell = nn.LSTMCell(hidden, hidden)
        self.chosen = nn.ModuleDict({k: nn.Embedding(self.tokens, hidden) for k in KINDS})
        heads = {k: nn.Linear(hidden, self.tokens) for k in KINDS}
        for head in heads.values():
            nn.init.zeros_(head.weight)  # every option equally likely at first
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleDict(heads)

    def start(self, rows: int) -> State:
        """The state before the first decision of so many rows."""
        zeros = torch.zeros(rows, self.cell.hidden_size)
        state: State = self.cell(self.first.expand(rows, -1), (zeros, zeros))
        return state

    def logits(self, state: State, kind: str) -> Tensor:
        """(B, tokens) for a decision of this kind."""
        logits: Tensor = self.heads[kind](state[0])
        return logits

    def advance(self, state: State, kind: str, chosen: Tensor) -> State:
        """The state after choices (B,) of tokens."""
        after: State = self.cell(self.chosen[kind](chosen), state)
        return after


def _token(decision: Decision, choice: int) -> int:
    """A choice as a small number: a parent by how far back it is, an offset from 0 up."""
    if decision.kind in ("first parent", "second parent"):
        return decision.block - choice - 1
    return choice - OFFSETS[0] if decision.kind == "offset" else choice
