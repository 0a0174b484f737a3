"""Recipes, studies and ``--set``: texts that are damaged, and keys that the schema knows with values that it should refuse."""

import json
import re
from functools import cache
from pathlib import Path
from random import Random

from texts import NAMES, NUMBERS, VALUES, damaged_bytes, damaged_text, encodable, word, write

from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe, shipped

TINY = """name = "tiny"
[data]
source = { kind = "digits" }
batch_size = 64
[model]
backbone = { kind = "wide-resnet", depth = 10, width = 1, init = "kaiming", stem_stride = 2 }
[chains]
buffer_size = 100
sampler = { kind = "sgld", n_steps = 2, step_size = 0.1 }
[compute]
precision = "fp32"
[[stages]]
epochs = 1
objective = { kind = "contrastive-divergence", margin = 2.0 }
[log]
every = 5
preview_every = 0
checkpoint_every = 10
"""
"""The recipe of a second."""
SIZES = (
    "model.backbone.width", "model.backbone.depth", "model.backbone.stem_width", "chains.buffer_size", "chains.sampler.n_steps",
    "chains.fresh_steps", "data.batch_size", "data.crop_padding", "stages.0.epochs", "stages.0.ramp_epochs", "log.every", "log.keep",
    "log.validate_samples", "optim.warmup_steps", "seed", "guard.max_rollbacks",
)  # fmt: skip
"""Keys by which a recipe becomes larger than a machine."""
SMALL, HUGE = (1, 2, 10), (10**9, 10**12, 2**62, 2**63 - 1, 2**63, 10**30, 10**40)
REALS = (
    "optim.learning_rate", "optim.decay", "optim.weight_decay", "optim.sam_rho", "optim.ema_decay", "chains.sampler.step_size",
    "chains.sampler.noise_std", "chains.sampler.clip", "chains.target.std", "chains.reinit_prob", "chains.fresh_noise_std",
    "model.head.radius", "stages.0.objective.margin", "stages.0.objective.floor", "stages.0.objective.beta", "stages.0.objective.l2",
    "data.noise_std", "guard.max_loss", "guard.lr_factor", "optim.final_share",
)  # fmt: skip
EVALUATIONS = (
    "eval calibrate", "tsne", "tsne --run=/etc", "tsne --run /etc", "tsne --ru /etc", "attack pgd --eps 8/0", "attack pgd --eps nan",
    "attack pgd --eps 8", "attack cw --n 1", "eval", "eval nothing", "", " ", "'", "eval ood --against 'a", "sample --n 100000000",
    "sample --class 1 --class 2", "sample --json", "sample -h", "train digits_gen", "recipes ls", "load-model x", "eval all --out ../x",
    "attack audit --n 99999999999999999999", "eval accuracy --runs-dir=/", "eval ood --score \x1b[31m", "x" * 5000, "sample --noise inf",
    "eval generate --n -3", "--help", "eval --help", "tsne --perplexity 1e400", "attack pgd --eps " + "1/255," * 3000 + "1/255",
)  # fmt: skip


@cache
def texts() -> tuple[str, ...]:
    """The shipped recipes as they are written, and with every key."""
    return tuple(path.read_text() for path in shipped().values()) + tuple(Recipe.load(name).dumps() for name in shipped())


@cache
def studies() -> tuple[str, ...]:
    """The shipped studies, as they are written."""
    return tuple(path.read_text() for path in shipped("studies").values())


@cache
def keys() -> dict[str, list[str]]:
    """Every key of the shipped recipes, and the values that it has in them, as TOML."""
    flat = [item for name in shipped() for item in flatten(Recipe.load(name).document()).items()]
    return {key: sorted({json.dumps(value) for other, value in flat if other == key}) for key in sorted({key for key, _ in flat})}


def with_other_values(rng: Random, text: str) -> str:
    """The text with one to three of its values replaced by those that a schema should refuse."""
    for _ in range(rng.randint(1, 3)):
        if found := list(re.finditer(r"^(\w+) = (.*)$", text, re.MULTILINE)):
            line = rng.choice(found)
            text = text[: line.start(2)] + rng.choice(VALUES) + text[line.end(2) :]
    return text


def damaged_recipe(rng: Random) -> str:
    """A shipped recipe, damaged in one of the two ways."""
    return rng.choice((damaged_text, with_other_values))(rng, rng.choice(texts()))


def recipe(rng: Random, work: Path) -> list[str]:
    """A recipe's file."""
    text = damaged_recipe(rng)
    write(work / "mine.toml", text if rng.random() < 0.9 else damaged_bytes(rng, text.encode(errors="surrogatepass") or b"#"))
    verbs = (["recipes", "check"], ["recipes", "show"], ["recipes", "show", "--json"], ["recipes", "diff", "digits_gen"], ["data", "check"])
    return [*rng.choice(verbs), "mine.toml"]


def override(rng: Random, work: Path) -> list[str]:
    """``--set`` with keys that there are, nearly are, or lead into what is no table; of several one alone is hostile."""
    settings = [f"{key}={rng.choice(keys()[key])}" for key in rng.sample(list(keys()), rng.randint(0, 2))]
    key = rng.choice(list(keys()))
    if rng.random() < 0.4:
        parts = key.split(".")
        parts[rng.randrange(len(parts))] = rng.choice((word(rng), "0", "1", "-1", "²", "9" * 5000, "kind", ""))
        key = ".".join(parts)
    hostile = rng.choice((f"{key}={rng.choice(VALUES)}", f"{key}={rng.choice(NUMBERS)}", f"{key}={word(rng)}", key, word(rng)))
    settings.insert(rng.randint(0, len(settings)), hostile[:120_000])  # the most that Linux takes as one argument
    words = [part for setting in settings for part in ("--set", setting)]
    return ["recipes", "show", rng.choice(("digits_gen", "cifar10_joint")), *rng.choice(([], ["--json"])), *words]


def study(rng: Random, work: Path) -> list[str]:
    """A study's file, damaged or with hostile models, seeds, combinations and evaluations."""
    damage = rng.choice((damaged_text, with_other_values))
    text = damage(rng, rng.choice(studies())) if rng.random() < 0.5 else _study(rng)
    write(work / "mine.toml", TINY)
    path = str(write(work / "study.toml", text).name)
    setting = f"{rng.choice(list(keys()))}={rng.choice(NUMBERS)}"
    return ["study", path, "--dry-run", *rng.choice(([], [], ["--json"], ["--set", setting], ["--jobs", rng.choice(NUMBERS)]))]


def _study(rng: Random) -> str:
    """A study of which one or two fields are hostile."""
    lists = [str(list(range(rng.choice((2, 3, 30, 300))))) for _ in range(3)]
    many = ", ".join(f'"{key}" = {values}' for key, values in zip(("log.keep", "seed", "optim.warmup_steps"), lists, strict=True))
    hostile = {
        "name": [_quoted(rng.choice(NAMES))],
        "about": [_quoted(rng.choice(NAMES))],
        "seeds": ["[1, 1]", "[]", str(list(range(rng.choice((40, 300, 100_000))))), rng.choice(VALUES)],
        "model": [_quoted(rng.choice(NAMES))],
        "recipe": [_quoted(rng.choice(NAMES)), '"/etc/passwd"', '"."', '"/dev/zero"', '"../study.toml"', '"study.toml"'],
        "vary": [f"{{ {many} }}", '{ "seed" = [1, 2] }', f"{{ {_quoted(rng.choice(NAMES))} = [1] }}", '{ "log.every" = [] }'],
        "once": [f"[{_quoted(rng.choice(EVALUATIONS))}]", "[" + '"tsne", ' * rng.choice((20, 3000)) + "]"],
        "set": [f"[{_quoted(word(rng))}]", f"[{_quoted(rng.choice(list(keys())) + '=' + rng.choice(NUMBERS))}]"],
        "models": [str(rng.choice((2, 50, 3000)))],
    }
    good = {"name": '"zoo"', "about": '""', "seeds": "[1, 2]", "model": '"m"', "recipe": '"mine.toml"', "vary": "{}", "once": "[]"}
    chosen = (
        good | {"set": "[]", "models": "1"} | {field: rng.choice(hostile[field]) for field in rng.sample(list(hostile), rng.randint(1, 2))}
    )
    top = "".join(f"{field} = {chosen[field]}\n" for field in ("name", "about", "seeds", "once", "set"))
    model = f"[[models]]\nname = {chosen['model']}\nrecipe = {chosen['recipe']}\nvary = {chosen['vary']}\n"
    return top + model * int(chosen["models"])


def _quoted(text: str) -> str:
    """A TOML string, whatever is in it."""
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in encodable(text)) + '"'


def plan(rng: Random, work: Path) -> list[str]:
    """A recipe of a second with sizes that no machine has, planned; or with numbers that no arithmetic has, planned or trained."""
    path = str(write(work / "tiny.toml", TINY).name)
    if rng.random() < 0.4:
        settings = [f"{key}={rng.choice(NUMBERS)}" for key in rng.sample(REALS, rng.randint(1, 2))]
        return ["train", path, *rng.choice(([], ["--dry-run"])), *(word for setting in settings for word in ("--set", setting))]
    words = ["train", path, "--dry-run"]
    for key in rng.sample(SIZES, rng.randint(1, 2)):
        value = rng.choice(SMALL + HUGE * 2)
        value = value // 6 * 6 + 4 if key.endswith("depth") else value // 10 * 10 if key.endswith("buffer_size") and value > 10 else value
        words += ["--set", f"{key}={value}"]
    return words
