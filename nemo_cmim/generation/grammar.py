"""Which tokens can continue an unfinished SMILES. R rows, V tokens of the padded vocabulary, L numbers of rings.

The rules are those of OpenSMILES for the order of atoms, bonds, branches, ring numbers and dots, with one molecule per branch. Dative bonds
(`->`, `<-`) are not supported.
"""

from __future__ import annotations

import re
from enum import IntEnum

import torch
from torch import Tensor

from ..tokenizers import Vocabulary

__all__ = ["SmilesGrammar", "SmilesState"]


class _Kind(IntEnum):
    """What a token is. START is `<BOS>`."""

    START = 0
    ATOM = 1
    BOND = 2
    OPEN = 3
    CLOSE = 4
    RING = 5
    DOT = 6
    END = 7
    OTHER = 8


_AFTER_ATOM = (_Kind.ATOM, _Kind.BOND, _Kind.OPEN, _Kind.CLOSE, _Kind.DOT, _Kind.END)
_NEXT = {  # kinds that may follow a kind, before branches and rings are counted
    _Kind.START: (_Kind.ATOM,),
    _Kind.ATOM: (*_AFTER_ATOM, _Kind.RING),
    _Kind.BOND: (_Kind.ATOM, _Kind.RING),
    _Kind.OPEN: (_Kind.ATOM, _Kind.BOND),
    _Kind.CLOSE: tuple(kind for kind in _AFTER_ATOM),
    _Kind.RING: (*_AFTER_ATOM, _Kind.RING),
    _Kind.DOT: (_Kind.ATOM,),
}
_RING = re.compile(r"%?\(?([0-9]+)\)?")


def _kind(token: str) -> _Kind:
    if token in "()":
        return _Kind.OPEN if token == "(" else _Kind.CLOSE
    if token == ".":
        return _Kind.DOT
    if token in "-=#$:/\\~":
        return _Kind.BOND
    if token in "<>":
        return _Kind.OTHER
    return _Kind.RING if _RING.fullmatch(token) else _Kind.ATOM


class SmilesGrammar:
    """Tables of a vocabulary.

    Args:
        vocabulary: The tokens.
        size: V, at least the size of the vocabulary.
        device: Device of the tables.
    """

    def __init__(self, vocabulary: Vocabulary, size: int, device: torch.device | str = "cpu") -> None:
        chemical = vocabulary.is_chemical
        kinds = [_kind(token) if chemical[i] else _Kind.OTHER for i, token in enumerate(vocabulary.tokens)]
        kinds += [_Kind.OTHER] * (size - len(kinds))
        kinds[vocabulary.eos_id] = _Kind.END
        numbers = {i: int(_RING.fullmatch(vocabulary.tokens[i])[1]) for i, kind in enumerate(kinds) if kind == _Kind.RING}  # type: ignore[index]
        labels = {number: label for label, number in enumerate(sorted(set(numbers.values())))}  # 1, %01 and %(1) are one number
        self.kind_V = torch.tensor(kinds, device=device)
        self.label_V = torch.tensor([labels[numbers[i]] if i in numbers else 0 for i in range(size)], device=device)
        self.labels = max(1, len(labels))
        follows = torch.zeros(len(_Kind), len(_Kind), dtype=torch.bool)
        for kind, after in _NEXT.items():
            follows[kind, list(after)] = True
        self.may_follow_KV = follows.to(device)[:, self.kind_V]

    def start(self, rows: int) -> SmilesState:
        """The state of `rows` empty SMILES."""
        return SmilesState(self, rows)


class SmilesState:
    """What is open in each of R unfinished SMILES.

    Args:
        grammar: The tables.
        rows: R.
    """

    def __init__(self, grammar: SmilesGrammar, rows: int) -> None:
        self.grammar = grammar
        device = grammar.kind_V.device
        self.last_R = torch.full((rows,), int(_Kind.START), device=device)
        self.depth_R = torch.zeros(rows, dtype=torch.long, device=device)
        self.is_open_RL = torch.zeros(rows, grammar.labels, dtype=torch.bool, device=device)
        self.is_new_RL = torch.zeros_like(self.is_open_RL)  # opened by the newest atom, which cannot close a ring with itself

    def is_allowed(self) -> Tensor:
        """bool [R, V]: the tokens that can come next."""
        kind_V = self.grammar.kind_V
        allowed_RV = self.grammar.may_follow_KV[self.last_R]
        has_branch_R1, has_ring_R1 = (self.depth_R > 0)[:, None], self.is_open_RL.any(1, keepdim=True)
        allowed_RV = allowed_RV & ((kind_V != _Kind.CLOSE) | has_branch_R1)
        allowed_RV &= ((kind_V != _Kind.DOT) & (kind_V != _Kind.END)) | ~has_branch_R1
        allowed_RV &= (kind_V != _Kind.END) | ~has_ring_R1
        return allowed_RV & ((kind_V != _Kind.RING) | ~self.is_new_RL[:, self.grammar.label_V])

    def append(self, ids_R: Tensor) -> None:
        """Adds one token to each row."""
        kind_R, label_R1 = self.grammar.kind_V[ids_R], self.grammar.label_V[ids_R][:, None]
        self.depth_R = self.depth_R + (kind_R == _Kind.OPEN).long() - (kind_R == _Kind.CLOSE).long()
        is_ring_R1 = (kind_R == _Kind.RING)[:, None]
        was_open_R1 = self.is_open_RL.gather(1, label_R1)
        self.is_open_RL = self.is_open_RL.scatter(1, label_R1, was_open_R1 ^ is_ring_R1)
        is_new_R1 = self.is_new_RL.gather(1, label_R1) | (is_ring_R1 & ~was_open_R1)
        self.is_new_RL = self.is_new_RL.scatter(1, label_R1, is_new_R1) & ~(kind_R == _Kind.ATOM)[:, None]
        self.last_R = kind_R

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Rows `targets` become equal to rows `sources`."""
        for part in (self.last_R, self.depth_R, self.is_open_RL, self.is_new_RL):
            part[targets] = part[sources]

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order."""
        self.last_R, self.depth_R = self.last_R[rows], self.depth_R[rows]
        self.is_open_RL, self.is_new_RL = self.is_open_RL[rows], self.is_new_RL[rows]
