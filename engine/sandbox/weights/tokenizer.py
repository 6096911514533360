"""A byte-level BPE trained on one small ASCII text, in the form llama.cpp calls `gpt2`; no other text is its aim."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (SYSTEM, USER, ASSISTANT, END)

# The ASCII part of GPT-2's expression: llama.cpp splits with the full one, and our text is ASCII.
_SPLIT = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte, so that tokens and merges can be written as text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


_LETTERS = _byte_letters()


@dataclass(frozen=True)
class Tokenizer:
    """Tokens in id order (special ones first) and the merges that make them, best first."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special tokens are not looked for."""
        ids = {token: i for i, token in enumerate(self.tokens)}
        ranks = {pair: i for i, pair in enumerate(self.merges)}
        return [ids[piece] for word in split(text) for piece in _merge(word, ranks)]

    def special(self, name: str) -> int:
        """Id of one of `SPECIAL`."""
        return self.tokens.index(name)


def split(text: str) -> list[tuple[str, ...]]:
    """Words of a text, each as the letters of its bytes; merges never cross a word's border."""
    return [tuple(_LETTERS[byte] for byte in word.encode()) for word in _SPLIT.findall(text)]


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Merge the most frequent pair until there are `size` tokens; ties go to the pair that sorts first."""
    words = Counter(word for text in texts for word in split(text))
    merges: list[tuple[str, str]] = []
    tokens = [*SPECIAL, *_LETTERS.values()]
    while len(tokens) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            raise ValueError(f"the text has only {len(tokens)} tokens, {size} were asked for")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        words = Counter({_join(word, best): count for word, count in words.items()})
    return Tokenizer(tuple(tokens), tuple(merges))


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with each occurrence of the pair as one piece."""
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)


def _merge(word: tuple[str, ...], ranks: dict[tuple[str, str], int]) -> tuple[str, ...]:
    while True:
        known = [pair for pair in pairwise(word) if pair in ranks]
        if not known:
            return word
        word = _join(word, min(known, key=lambda pair: ranks[pair]))
