"""Tokenizer for SMILES, and its vocabulary. Does not import torch; `tokenizers.collate`, which does, must be imported by itself."""

from .smiles import SmilesTokenizer
from .vocabulary import Vocabulary, shipped_vocabulary

__all__ = ["SmilesTokenizer", "Vocabulary", "shipped_vocabulary"]
