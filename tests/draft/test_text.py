"""The file that is written: every table commented, and read back as it was."""

import pytest
import tomli

from gmmcli.data.folder import Folder
from gmmcli.data.survey import Survey
from gmmcli.draft.sizes import JOINT, SKETCHES, Document, sized
from gmmcli.draft.text import SECTIONS, STAGES, commented


def documents(path: str = "my/pictures") -> list[Document]:
    survey = Survey(Folder(path=path), ("cat", "dog"), 300, 3, 32)
    return [sized(pattern, survey, "generate", 32) for pattern in (*JOINT, *SKETCHES["both"])]


@pytest.mark.parametrize("path", ["my/pictures", 'a "quoted" \\ place', "Bücher/\N{GRINNING FACE}", "new\nline # not a comment", "# a"])
def test_it_says_what_the_tables_say(path: str) -> None:
    for document in documents(path):
        assert tomli.loads(commented(document, ["A recipe."])) == document


def test_every_table_has_a_comment_above_it() -> None:
    for document in documents():
        lines = commented(document | {"init": {"from": "runs/a"}}, ["A recipe.", "For you."]).splitlines()
        tables = [i for i, line in enumerate(lines) if line.startswith("[")]
        assert lines[:2] == ["# A recipe.", "# For you."]
        assert {lines[i].strip("[]") for i in tables} - SECTIONS.keys() == {"stages"}
        assert [lines[i - 1][:2] for i in tables] == ["# "] * len(tables)
        assert lines[tables[1]] == "[init]"


def test_stages_are_numbered_and_told_apart() -> None:
    text = commented(documents()[0], [])
    first, second = STAGES["center-regression"], STAGES["contrastive-divergence"]
    assert f"# Stage 1 of 2: {first}\n[[stages]]" in text
    assert f"# Stage 2 of 2: {second}\n[[stages]]" in text
