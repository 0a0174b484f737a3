import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handwritten import DIS, GEN, JEM, SOFTMAX, audited, calibrated, checkpoint, detected, models, save, scored, write

from gmmcli.layout import lines
from gmmcli.report.collect import gather
from gmmcli.report.compare import Comparison, compare
from gmmcli.report.published import paper
from gmmcli.report.text import document, markdown, terminal
from gmmcli.run import Run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Three models with something of everything; the first of two seeds."""
    gen, dis, softmax = models(tmp_path, gen=(0.9, 0.01), dis=(0.895, 0.01), softmax=(0.5, 0.01))
    calibrated(gen, 0.01, 0.02)
    calibrated(softmax, 0.1, 0.02)
    detected(gen, interp={"log_px": 0.75, "max_py": 0.5})
    audited(dis, at8=0.25)
    return [gen, dis, softmax, scored(write(tmp_path, GEN, seed=2), 0.8, 0.01)]


@pytest.fixture
def comparison(runs: list[Run]) -> Comparison:
    return compare(gather(runs))


def cells(line: str) -> list[str]:
    """What a row of a Markdown table shows: only a bar that is not escaped ends a cell."""
    assert line.startswith("|")
    assert line.endswith("|")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(text: str) -> Iterator[list[list[str]]]:
    for block in text.split("\n\n"):
        if block.strip().startswith("|"):
            yield [cells(line) for line in block.strip().splitlines()]


def table(text: str, head: str) -> dict[str, list[str]]:
    """The rows below a heading, by their first cell."""
    (found,) = tables(text.split(f"## {head}\n")[1].split("\n## ")[0])
    return {row[0]: row[1:] for row in found}


def shown(comparison: Comparison) -> str:
    return "\n".join(lines(terminal(comparison), 100))


def test_every_row_of_a_table_has_as_many_cells_as_its_head(comparison: Comparison) -> None:
    found = list(tables(markdown(comparison, "Digits")))
    assert len(found) == 4 + len(paper().tables)
    for rows in found:
        assert {len(row) for row in rows} == {len(rows[0])}
        assert set(rows[1]) == {"---"}


def test_the_figures_stand_under_their_models_with_the_papers_beside_them(comparison: Comparison) -> None:
    figures = table(markdown(comparison, "Digits"), "Results")
    assert figures[""] == [f"{GEN} (2 runs)", f"{DIS} (1 run)", f"{SOFTMAX} (1 run)"]
    assert figures["accuracy ↑"] == [
        "**85.0% ± 7.1% (71.1% to 98.9% over seeds and images)** [94.1%]",
        "**89.5% (88.5% to 90.5%)** [94.3%]",
        "50.0% (49.0% to 51.0%) [93.6%]",
    ]
    assert figures["ECE, uncalibrated (gamma²) ↓"] == ["**1.00% (0.50% to 2.00%)** [1.33%]", "", "10.00% (5.00% to 20.00%) [4.18%]"]
    assert figures["max p(y\\|x) against interp ↑"] == ["0.500 (0.500 to 0.500) [0.720]", "", "[0.770]"]
    assert figures["*Classification*"] == ["", "", ""]


def test_the_answers_come_first(comparison: Comparison) -> None:
    text = markdown(comparison, "Digits", "About digits.")
    assert text.startswith("# Digits\n\nAbout digits.\n\n## Best models\n")
    answers = table(text, "Best models")
    assert answers["Which classifies best?"] == [
        "**undecided**",
        f"{DIS}, accuracy: 89.5% (88.5% to 90.5%)",
        f"{GEN} (the intervals overlap)",
    ]
    assert answers["Which is best calibrated?"] == [f"**{GEN}**", "ECE, scale selected on validation: 1.00% (0.50% to 2.00%)", "none"]


def test_every_claim_has_its_verdict(comparison: Comparison) -> None:
    claims = table(markdown(comparison, "Digits"), "The paper's claims")
    texts = [claim.text for claim in paper().claims]
    assert list(claims)[2:] == texts
    assert claims["Generative GMMC is better calibrated than softmax"][1:] == [
        "1.33% against 4.18%",
        "1.00% (0.50% to 2.00%) against 10.00% (5.00% to 20.00%)",
        "holds",
    ]
    assert claims["GMMC trains more stably than JEM"][2:] == ["", "not tested here"]


def test_recipes_differ_and_protocols_are_told(comparison: Comparison) -> None:
    text = markdown(comparison, "Digits")
    differences = table(text, "Differences between the recipes")
    assert differences["key"] == [GEN, DIS, SOFTMAX]
    assert differences["`model.head.kind`"] == ["max-mahalanobis", "max-mahalanobis", "linear"]
    assert "- eval accuracy: digits test, n = 100" in text


def test_one_model_alone_has_no_answers_and_no_differences(tmp_path: Path) -> None:
    text = markdown(compare(gather(models(tmp_path, gen=(0.9, 0.01)))), "Digits")
    assert "## Best models" not in text
    assert "## Differences between the recipes" not in text
    assert "**" not in "".join(row for row in text.splitlines() if row.startswith("| accuracy"))


NAMES = ["a | b", "<b>c</b>", "[red]d[/red]"]


@pytest.fixture
def barred(tmp_path: Path) -> Comparison:
    """Models whose names say something else in Markdown and to a terminal, as good as each other."""
    runs = [
        scored(write(tmp_path, kind, f"data.source={{ kind = 'npz', path = 'x|{kind}' }}", study_model=name), 0.9, 0.1)
        for name, kind in zip(NAMES, (GEN, JEM, SOFTMAX), strict=True)
    ]
    return compare(gather([checkpoint(run, ("p | q", "r")) for run in runs]))


def test_a_bar_in_a_name_or_a_value_does_not_end_its_cell(barred: Comparison) -> None:
    text = markdown(barred, "Digits")
    for rows in tables(text):
        assert {len(row) for row in rows} == {len(rows[0])}
    assert table(text, "Results")[""][0] == "a \\| b (1 run)"
    assert table(text, "Differences between the recipes")["`data.source.path`"][0] == f"x\\|{GEN}"
    assert table(text, "Best models")["Which classifies best?"][1].startswith("a \\| b, accuracy")


def test_names_in_brackets_are_shown_as_they_are(barred: Comparison) -> None:
    assert all(name in shown(barred) for name in NAMES)


def test_the_terminal_begins_with_what_is_decided_and_what_is_not(comparison: Comparison) -> None:
    text = " ".join(shown(comparison).split())
    assert text.startswith(
        f"Which classifies best? Undecided (the intervals overlap). "
        f"Best value: {DIS}, accuracy 89.5% (88.5% to 90.5%). Not clearly worse: {GEN}"
    )
    assert f"Which is best calibrated? {GEN}, ECE, scale selected on validation 1.00% (0.50% to 2.00%)" in text


def test_what_is_not_compared_is_said_everywhere(runs: list[Run]) -> None:
    save(runs[0], "attack audit", {"worst_case": {"8/255": {"accuracy": 0.75, "ci95": [0.7, 0.8]}}}, n=500)
    comparison = compare(gather(runs))
    sentence = f"8/255, worst case: measured under 2 protocols, one row each (n 500: {GEN}; n 50: {DIS})"
    assert comparison.left_out == [sentence]
    assert f"Not compared:\n\n- {sentence}\n" in markdown(comparison, "Digits")
    assert f"Not compared: {sentence}" in " ".join(shown(comparison).split())
    found = document(comparison)
    assert found["left_out"] == [sentence]
    assert "worst 8/255; n 500" in found["values"][GEN]["figures"]


def test_the_terminal_shows_means_under_their_models(comparison: Comparison) -> None:
    found = [line.split() for line in shown(comparison).splitlines()]
    assert [GEN, DIS, SOFTMAX] in found
    assert ["2", "runs", "1", "run", "1", "run"] in found
    assert ["accuracy", "↑", "85.0%", "*", "89.5%", "*", "50.0%"] in found
    assert ["8/255,", "worst", "case", "↑", "25.0%"] in found


def test_only_the_best_have_a_star_on_a_terminal(comparison: Comparison) -> None:
    (row,) = [line for line in shown(comparison).splitlines() if "accuracy ↑" in line]
    assert re.findall(r"([\d.]+%) \*", row) == ["85.0%", "89.5%"]


def test_the_document_has_every_figure_of_every_model(comparison: Comparison, runs: list[Run]) -> None:
    found = document(comparison)
    assert (found["schema"], found["command"], found["published_on"]) == (1, "report", "cifar10")
    assert list(found["values"]) == [GEN, DIS, SOFTMAX]
    gen = found["values"][GEN]
    assert (gen["family"], gen["runs"]) == ("gmmc-gen", [runs[0].id, runs[3].id])
    accuracy = gen["figures"]["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.85)
    assert accuracy["std"] == pytest.approx(0.05 * 2**0.5)
    assert accuracy["interval"] == pytest.approx((0.711, 0.989), abs=1e-3)
    assert (accuracy["over"], accuracy["protocol"]) == ("seeds and images", {"dataset": "digits", "split": "test", "n": "100"})
    assert (accuracy["n_seeds"], accuracy["published"], accuracy["best"]) == (2, 0.9408, True)
    assert "worst 8/255" not in gen["figures"]
    assert found["values"][DIS]["figures"]["worst 8/255"]["best"] is False  # nobody to compare with
    assert found["answers"][0] == {
        "question": "Which classifies best?",
        "metric": "accuracy",
        "answer": "undecided",
        "best_figure": DIS,
        "as_good": [GEN],
        "why_undecided": "the intervals overlap",
    }
    assert found["left_out"] == []
    assert [claim["text"] for claim in found["claims"]] == [claim.text for claim in paper().claims]


def test_the_document_is_json_without_what_json_does_not_know(comparison: Comparison, runs: list[Run]) -> None:
    save(runs[1], "attack cw", {"l2_mean": None})
    save(runs[2], "eval generate", {"precision": float("nan"), "feature_fid": float("inf")})
    fresh = compare(gather(runs))
    text = json.dumps(document(fresh), allow_nan=False)
    found: dict[str, Any] = json.loads(text)
    assert not {"cw", "precision", "feature_fid"} & {key for model in found["values"].values() for key in model["figures"]}
