"""Write docs/cli.md from the commands' own --help: ``make docs``. A test holds the page to the commands."""

from pathlib import Path

from typer.testing import CliRunner

from gmmcli.cli.app import app

COMMANDS = (
    "",
    "train",
    "watch",
    "classify",
    "sample",
    "import",
    "export",
    "env",
    "eval accuracy",
    "eval calibrate",
    "eval ood",
    "eval generate",
    "eval all",
    "attack fgsm",
    "attack pgd",
    "attack apgd",
    "attack square",
    "attack cw",
    "attack audit",
    "restore",
    "morph",
    "tsne",
    "study",
    "report",
    "recipes new",
    "recipes ls",
    "recipes show",
    "recipes check",
    "recipes diff",
    "runs ls",
    "runs show",
    "runs check",
    "runs repair",
    "runs gc",
    "data ls",
    "data download",
    "data check",
)
HEAD = """# Command reference

Made by `make docs` from the commands' own help; do not edit.

Every command that answers takes `--json`: one object on stdout, all else on stderr.

The form of every answer, and of every saved result, is a JSON Schema (draft 2020-12) in `docs/schema/`, named after the
command: `eval-accuracy.json` for `gmmc eval accuracy`, `train-dry-run.json` for `gmmc train --dry-run`; `attack.json` is
that of attacks of installed packages, and `common.json` has what several share. A schema says what each key means, in
which unit, and which keys are always there. `schema` in an answer is the version of this form, now 1. It becomes 2 when a
program that was written for 1 would misread an answer; new keys alone do not change it, so ignore keys that you do not
know. A number that is not finite is `null`.

Exit codes:

| code | meaning |
|---|---|
| 0 | done |
| 1 | another error |
| 2 | usage, option or recipe |
| 3 | data missing or broken |
| 4 | an optional part is missing |
| 5 | training diverged; the last good checkpoint is kept |
| 6 | damaged checkpoint |
| 7 | a file that cannot be written or read: a full disk, no permission |
| 128 + n | stopped by signal n, after saving: 130 by Ctrl-C, 143 by SIGTERM, 129 as the terminal closed |

Results go to stdout and messages to stderr. Both are plain text, without colours, and fit the width of a terminal, from 40
columns: lines are broken between words, and a table that is too wide is shown row below row, each value with its heading.
Numbers, paths and names are never broken or cut off. In a file or a pipe the width does not matter, and a table has one line
for each row. Progress bars and `gmmc watch` have colours, unless `NO_COLOR` is set; with `TERM=dumb` they are plain lines.
"""


def section(command: str) -> str:
    """One command's help, as a terminal shows it."""
    shown = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="gmmc", env={"COLUMNS": "100"})
    text = "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())
    return f"## `{f'gmmc {command}'.strip()}`\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    page = "\n".join([HEAD, *map(section, COMMANDS)])
    Path(__file__).with_name("cli.md").write_text(page, encoding="utf-8")
