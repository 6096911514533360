"""Conversations made from `text.md`: what the small model is trained on; nothing here knows the network."""

from __future__ import annotations

import random  # noqa: TID251 - always seeded: the same text gives the same file
import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.sandbox.weights.tokenizer import ASSISTANT, END, SYSTEM, USER, Tokenizer

_SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "You are a friendly expert.",
    "Answer in plain words.",
)
_PREFIXES = ("", "", "", "", "", "Please: ", "Hello! ", "Hi, ", "A question: ", "Can you tell me, ")
_SUFFIXES = ("", "", "", "", "", "", " Please.", " Thank you.", " In one paragraph.", "\n")
# How the chat looks to the model; also written into the GGUF, where llama.cpp's Jinja engine reads it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Text:
    """The questions (several wordings each) with their answers, and answers to anything else."""

    answers: tuple[tuple[tuple[str, ...], str], ...]
    otherwise: tuple[str, ...]

    def everything(self) -> list[str]:
        """All texts, for the tokenizer."""
        known = [part for questions, answer in self.answers for part in (*questions, answer)]
        return [*known, *self.otherwise, *_SYSTEM_TEXTS]


def read(markdown: str) -> Text:
    """Parse `text.md`: `## wording / wording` and its paragraphs, then `# Anything else`.

    Raises:
        ValueError: a character outside ASCII (the tokenizer's splitting is only exact there) or no last part.
    """
    if not markdown.isascii():
        raise ValueError("the training text must be plain ASCII")
    known, mark, rest = markdown.partition("\n# Anything else\n")
    if not mark:
        raise ValueError("the training text has no part '# Anything else'")
    answers = []
    for block in known.split("\n## ")[1:]:
        heading, _, body = block.partition("\n")
        answers.append((tuple(heading.split(" / ")), body.strip()))
    return Text(tuple(answers), tuple(p.strip() for p in re.split(r"\n\n+", rest) if p.strip()))


def rows(text: Text, tokenizer: Tokenizer, *, length: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Endless training rows of `length + 1` ids, and `length` marks: 1 where the id to predict is an answer's."""
    chance = random.Random(seed)
    words = sorted({word for part in text.everything() for word in re.findall(r"[A-Za-z]+", part)})
    cache: dict[str, list[int]] = {}

    def encode(part: str) -> list[int]:
        if part not in cache:
            cache[part] = tokenizer.encode(part)
        return cache[part]

    deck: list[tuple[str, str]] = []
    while True:
        ids: list[int] = []
        marks: list[int] = []
        if chance.random() < 0.2:
            ids += [tokenizer.special(SYSTEM), *encode(chance.choice(_SYSTEM_TEXTS)), tokenizer.special(END)]
            marks += [0] * len(ids)
        while len(ids) <= length:
            deck = deck or _shuffled(text, words, chance)
            question, answer = deck.pop()
            asked = [tokenizer.special(USER), *encode(question), tokenizer.special(END), tokenizer.special(ASSISTANT)]
            said = [*encode(answer), tokenizer.special(END)]
            ids += asked + said
            marks += [0] * len(asked) + [1] * len(said)
        yield ids[: length + 1], marks[1 : length + 1]


def _shuffled(text: Text, words: list[str], chance: random.Random) -> list[tuple[str, str]]:
    """Every answer once, each with one of its wordings, and some questions that have no answer here."""
    deck = [(_worded(chance.choice(questions), chance), answer) for questions, answer in text.answers]
    for _ in range(len(deck) // 5):
        deck.append((_unknown(words, chance), chance.choice(text.otherwise)))
    chance.shuffle(deck)
    return deck


def _worded(question: str, chance: random.Random) -> str:
    if chance.random() < 0.15:
        question = question.lower()
    if chance.random() < 0.15:
        question = question.rstrip("?.!")
    if chance.random() < 0.3:
        question = chance.choice(_PREFIXES) + question + chance.choice(_SUFFIXES)
    return question


def _unknown(words: list[str], chance: random.Random) -> str:
    """A question nobody answered: an opening and words in no order, some of them with no meaning."""
    opening = chance.choice(("What is ", "Explain ", "Tell me about ", "Who is ", "Why ", "How do I ", "Write ", ""))
    body = [chance.choice(words) for _ in range(chance.randint(1, 6))]
    if chance.random() < 0.5:
        body.append("".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(chance.randint(3, 9))))
    chance.shuffle(body)
    return opening + " ".join(body) + chance.choice(("", "?", "."))
