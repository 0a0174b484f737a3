"""What to say of what was mistyped: the name that was meant, what there is, and a library's complaint in our words."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from gmmcli.errors import LONGEST_QUOTED

HANDFUL = 8
"""Names that a hint lists at most."""
SYNONYMS = {
    "lr": "learning_rate",
    "rate": "learning_rate",
    "bs": "batch_size",
    "batch": "batch_size",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "optimizer": "optim",
    "optimiser": "optim",
    "iterations": "epochs",
    "scheduler": "schedule",
    "dtype": "precision",
    "amp": "precision",
    "ema": "ema_decay",
    "sigma": "noise_std",
    "type": "kind",
}
"""What others call the keys of recipes."""
SHORTEST = 3  # letters of a part of a name that stand for it
PHRASES = (
    (r"^Value error, ", ""),
    (r"^Field required$", "is missing"),
    (r"^Unable to parse input string as an integer, exceeded maximum size", "must be an integer of fewer digits"),
    (r"^[A-Z]\w* should ", "must "),
    (r"(, unable to|, got| after validation|, which).*", ""),
    (r"\ba valid array\b", "a list"),
    (r"\ba valid dictionary\b", "a table"),
    (r"\ba valid (?=[aeiou])", "an "),
    (r"\ba valid ", "a "),
)
"""pydantic's phrases, and ours."""


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return the name that a word is likely to stand for: a synonym, a misspelling, or a part of one name alone; None for no such name."""
    word = word[:LONGEST_QUOTED]
    if (synonym := SYNONYMS.get(word.lower())) in known:
        return synonym
    if all(letter.isdigit() or letter in "+-." for letter in word):  # 11 is not a mistyped 1
        return None
    if near := get_close_matches(word, known, n=1):
        return near[0]
    parts = [name for name in known if min(len(word), len(name)) >= SHORTEST and (word in name or name in word)]
    return parts[0] if len(parts) == 1 else None


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many there are more."""
    names = list(names)
    if len(names) <= HANDFUL + 1:  # one more is shorter than to say so
        return ", ".join(names)
    return f"{', '.join(names[:HANDFUL])} and {len(names) - HANDFUL} more"


def plainly(complaint: str) -> str:
    """Return a complaint of pydantic about a value in the words of our errors: ``must be an integer``."""
    for phrase, ours in PHRASES:
        complaint = re.sub(phrase, ours, complaint)
    return complaint
