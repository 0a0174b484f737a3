"""What every kind of input is made of: hostile names, values and numbers, and the damage that texts, bytes and JSON can take."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from box import CANARY

CHARACTERS = "²٣Ⅷ½éß漢字🙂\u202e\u200b\ufeff\u0301\x1b\x07\x00\x7f\x85\x9b\n\r\t\"'`\\/.,:;=#[]{}()<>&%$~*?-+_ 0aZ"
NAMES = (
    "",
    " ",
    ".",
    "..",
    "~",
    "-",
    "--help",
    "*",
    "a/b",
    "../outside/" + CANARY,
    f"/{CANARY}",
    "C++",
    "C#",
    "con",
    "\x1b[31mred\x07",
    "two\nlines",
    "tab\tbed",
    "\x9b2J",
    "<script>alert(1)</script>",
    "'; rm -rf *; '",
    "%s%n{0}${HOME}",
    "\u202egnp.exe",
    "漢字",
    "🙂" * 60,
    "²",
    "٣",
    "e\u0301",
    "n" * 250,
    "n" * 5000,
    "a." * 3000 + "a",
    "\udcff\udc80",
    "\ud800",
)
"""Of files, classes, runs, keys: what an operating system, a terminal, a page or a shell might trip over."""
NUMBERS = (
    "0",
    "-0.0",
    "-1",
    "1",
    "7",
    "0.5",
    "1e-400",
    "5e-324",
    "1e-45",
    "1e39",
    "-1e39",
    "3.5e38",
    "1e200",
    "1e308",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "1" + "0" * 12,
    "1" + "0" * 30,
    "1" + "0" * 40,
    "9" * 5000,
    "0x" + "f" * 4000,
    "0b" + "1" * 9000,
    "1_000",
)
VALUES = (
    *NUMBERS,
    "true",
    '""',
    '"x"',
    '"²"',
    r'"\u0000"',
    r'"\u001b[31m\u0007"',
    r'"\u009b2J"',
    r'"\ud800"',
    '"' + "y" * 100_000 + '"',
    "'/etc/passwd'",
    "'/dev/zero'",
    '"""\nlines\n"""',
    "[]",
    "{}",
    "[[], {}]",
    "[1, 2.5, 'a']",
    "[" * 500 + "]" * 500,
    "[" * 100_000,
    "{a=" * 400 + "1" + "}" * 400,
    "[" + "1," * 60_000 + "]",
    "[" + "'a'," * 3000 + "]",
    "1979-05-27T07:32:00Z",
    "07:32:00",
    "1979-05-27",
    "{ kind = 'linear' }",
    "{ kind = [] }",
    "{ kind = 1e400 }",
)
"""Of a TOML key."""


def name(rng: Random) -> str:
    """A hostile name, or some characters at random."""
    return rng.choice(NAMES) if rng.random() < 0.7 else "".join(rng.choices(CHARACTERS, k=rng.randint(1, 12)))


def word(rng: Random) -> str:
    """The same as an argument of a command: without the character that none can hold."""
    return name(rng).replace("\x00", "")


def file_name(rng: Random) -> str:
    """The same as a file may be called: without slashes, and not longer than a file system takes."""
    text = word(rng).replace("/", "|").replace("\ud800", "")
    return text.encode(errors="surrogateescape")[:200].decode(errors="surrogateescape") if text not in ("", ".", "..") else "x"


def encodable(text: str) -> str:
    """A text without the characters that UTF-8 has no bytes for."""
    return "".join(c for c in text if not "\ud800" <= c <= "\udfff")


def damaged_text(rng: Random, text: str) -> str:
    """One to four edits: of characters, of lines, of the end."""
    for _ in range(rng.randint(1, 4)):
        at, lines = rng.randrange(len(text) + 1), text.split("\n")
        line = rng.randrange(len(lines))
        edits: Sequence[Callable[[], str]] = (
            lambda: text[:at] + rng.choice(CHARACTERS) + text[at:],  # noqa: B023 - called at once
            lambda: text[:at] + text[at + rng.randint(1, 9) :],  # noqa: B023
            lambda: text[:at],  # noqa: B023
            lambda: text[:at] + rng.choice(VALUES) + text[at:],  # noqa: B023
            lambda: "\n".join(lines[:line] + lines[line + 1 :]),  # noqa: B023
            lambda: "\n".join(lines[:line] + lines[line : line + 1] * 2 + lines[line + 1 :]),  # noqa: B023
            lambda: "\n".join([*lines[:line], rng.choice(lines), *lines[line:]]),  # noqa: B023
            lambda: text.replace("\n", "\r\n"),  # noqa: B023
            lambda: text[:at] + name(rng) + text[at:],  # noqa: B023
        )
        text = rng.choice(edits)()
    return text


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """Flipped bits, other bytes, a lost end, a lost or doubled middle."""
    found = bytearray(data)
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.choice((1, 1, 2, 8, 64))):
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        case 2:
            for at in (rng.randrange(len(found)) for _ in range(rng.randint(1, 8))):
                found[at] = rng.choice((0, 255, 127, rng.randrange(256)))
        case 3:
            del found[rng.randrange(len(found)) :]
        case 4:
            at = rng.randrange(len(found))
            del found[at : at + rng.choice((1, 4, 64))]
        case 5:
            at = rng.randrange(len(found))
            found[at:at] = found[at : at + rng.choice((1, 4, 64))] or rng.randbytes(9)
    return bytes(found)


def json_value(rng: Random) -> Any:
    """What a key of a JSON file should not hold."""
    values: tuple[Any, ...] = (
        None, True, -1, 0, 3.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "\x1b[31m\x07", "\ud800", "../outside/" + CANARY,
        [], {}, [[]], {"a": {}}, ["a"] * 2000, "y" * 100_000, "\x9b", "<b>&",
    )  # fmt: skip
    return rng.choice(values)


def damaged_json(rng: Random, document: Any) -> bytes:
    """A JSON file with one value replaced, one key lost, deep or no JSON at all, or damaged as text."""
    if rng.random() < 0.2:
        return rng.choice(
            (b"", b"{", b"[" * 100_000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b"\xff\xfe", b"9" * 5000, b"NaN", b"[]", b"null")
        )
    document = json.loads(json.dumps(document))
    at = document
    while isinstance(at, (dict, list)) and at:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        below = at[key]
        if not isinstance(below, (dict, list)) or not below or rng.random() < 0.4:
            if rng.random() < 0.2:
                del at[key]
            else:
                at[key] = json_value(rng)
            break
        at = below
    text = json.dumps(document)
    return (damaged_text(rng, text) if rng.random() < 0.2 else text).encode(errors="surrogatepass")


def write(path: Path, content: bytes | str) -> Path:
    """Write a new file and return its path, never through a link; characters that no encoding has become bytes that no text has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    return path
