"""SMILES tokens: how a SMILES is split, the vocabulary, and the ids."""

from .smiles import SmilesTokenizer
from .vocabulary import Vocabulary, shipped_vocabulary

__all__ = ["SmilesTokenizer", "Vocabulary", "shipped_vocabulary"]
