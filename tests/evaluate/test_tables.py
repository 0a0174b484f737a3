import re
from collections import Counter
from math import isclose
from typing import Any

import pytest
import torch

from gmmcli.attacks.audit import AT_FOCUS, EPS, FOCUS, Curves, audit_values, suite
from gmmcli.evaluate.tables import format_estimate, result_table
from gmmcli.layout import lines
from gmmcli.metrics.accuracy import accuracy_values
from gmmcli.metrics.calibration import calibration_values
from gmmcli.metrics.ood import detection

NAMES = ("cat", "dog", "fox")
SCORES = {"log_px": "log p(x)", "max_py": "max p(y|x)", "distance": "distance"}  # the last of a result of before


def result(command: str, values: dict[str, Any]) -> dict[str, Any]:
    about = {"schema": 1, "run": "2026-11-23T114503Z-digits_gen", "step": 12_500, "dataset": "digits", "split": "test", "n": 1360}
    return about | {"command": command, "protocol": {}, "values": values}


def rendered(command: str, values: dict[str, Any], width: int = 80) -> str:
    return "\n".join(lines(result_table(result(command, values)), width))


def rows(text: str) -> dict[str, str]:
    """What stands behind each first word."""
    return {words[0]: " ".join(words[1:]) for line in text.splitlines() if (words := line.split())}


def is_written(value: float, text: str) -> bool:
    """Whether a number stands there, to three digits or so."""
    numbers = map(float, re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", text))
    return any(isclose(value, number, rel_tol=0.01, abs_tol=0.01) for number in numbers)


def answers(scale: float = 1.0, n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, 3, generator=rng), torch.arange(n) % 3


def detected(shift: float) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    return detection(torch.randn(100, generator=rng).double(), torch.randn(80, generator=rng).double() - shift)


@pytest.mark.parametrize(
    ("name", "values", "written"),
    [
        ("accuracy", {"accuracy": 0.98765, "ci95": [0.97, 0.99]}, "98.77% [97.00, 99.00]"),
        ("accuracy", {"accuracy": 1.0}, "100.00%"),
        ("ece", {"ece": 0.0123, "ece_ci95": [0.0, 0.02]}, "1.23% [0.00, 2.00]"),
        ("nll", {"nll": 0.12345, "nll_ci95": [0.1, 1.5]}, "0.123 [0.100, 1.500]"),
        ("nll", {"nll": 0.12345, "ci95": [0.1, 1.5]}, "0.123"),
        ("nll", {"nll": 999.9}, "999.900"),
        ("nll", {"nll": 12345.678}, "1.235e+04"),
        ("trustworthiness", {"trustworthiness": 0.5}, "50.00%"),
        ("feature_fid", {"feature_fid": 3.0}, "3.000"),
    ],
)
def test_a_figure_has_its_unit_and_its_interval(name: str, values: dict[str, Any], written: str) -> None:
    assert format_estimate(name, values) == written


def test_the_head_says_what_was_measured_of_what_on_how_many() -> None:
    text = " ".join(rendered("eval ood", {"uniform": {"log_px": detected(1.0)}}).split())
    assert text.startswith("eval ood: run 2026-11-23T114503Z-digits_gen, step 12,500, digits test, n = 1,360")


def test_accuracy_comes_with_every_class_and_those_without_images() -> None:
    logits, labels = answers()
    some = labels != 2
    values = accuracy_values(logits[some], labels[some], 1.0, NAMES)
    text = rendered("eval accuracy", values)
    found = rows(text)
    assert found["accuracy"] == format_estimate("accuracy", values)
    for name in ("nll", "brier"):
        assert found[name] == format_estimate(name, values)
        assert "[" in found[name]
    for name in ("cat", "dog"):
        row = values["per_class"][name]
        assert f"class {name} {format_estimate('accuracy', row)}, n = {row['n']}" in " ".join(text.split())
    assert "class fox no images" in " ".join(text.split())
    assert "confusion" not in text


@pytest.mark.parametrize("name", ["cat [tabby]", "[/]"])
def test_a_class_may_be_named_in_brackets(name: str) -> None:
    values = accuracy_values(*answers(), 1.0, (name, "dog", "fox"))
    assert f"class {name} " in rendered("eval accuracy", values)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1000.0])
def test_calibration_is_written_out_whole_at_three_scales_on_eighty_columns(scale: float) -> None:
    values = calibration_values(*answers(scale), gamma2=1 / 3, temperature=2.5)
    text = rendered("eval calibrate", values)
    assert "…" not in text
    assert all(word in text for word in ("scale", "ece", "mce", "ace", "nll", "brier", "saturated", *values["variants"]))
    for variant in values["variants"].values():
        for key in ("ece", "mce", "ace"):
            assert all(is_written(100 * value, text) for value in (variant[key], *variant[f"{key}_ci95"]))
        for key in ("nll", "brier"):
            assert all(is_written(value, text) for value in (variant[key], *variant[f"{key}_ci95"]))
        assert is_written(100 * variant["saturated"], text)
        assert is_written(variant["scale"], text)


def test_detection_is_written_out_whole_on_eighty_columns_a_table_a_set() -> None:
    values = {name: {score: detected(i + shift) for i, score in enumerate(SCORES)} for shift, name in enumerate(("gaussian", "cifar100"))}
    text = rendered("eval ood", values)
    assert "…" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines.count("score AUROC AUPR in AUPR out FPR95") == 2
    for name, scores in values.items():
        start = lines.index(f"against {name}")
        for score, row in scores.items():
            low, high = row["auroc_ci95"]
            others = " ".join(f"{row[key]:.3f}" for key in ("aupr_in", "aupr_out", "fpr95"))
            assert lines.index(f"{SCORES[score]} {row['auroc']:.3f} [{low:.3f}, {high:.3f}] {others}") > start


@pytest.mark.parametrize(
    "name", ["npz:data/svhn_1k.npz", "folder:somewhere/on/another/disk/photographs of faces [old], all of them in colour"]
)
def test_no_figure_gives_way_to_a_sets_long_name(name: str) -> None:
    row = detected(1.0)
    text = rendered("eval ood", {name: dict.fromkeys(SCORES, row)})
    assert "…" not in text
    assert name in " ".join(text.split())
    for value in (*row["auroc_ci95"], *(row[key] for key in ("auroc", "aupr_in", "aupr_out", "fpr95"))):
        assert f"{value:.3f}" in text


def test_a_set_that_is_missing_is_named_with_its_reason_and_what_to_do() -> None:
    values = {
        "celeba": {"missing": "celeba is not in data/celeba", "hint": "put it there"},
        "uniform": {"log_px": detected(1.0)},
        "x": {"missing": "no x [here]", "hint": "look elsewhere"},
    }
    text = rendered("eval ood", values)
    assert "against uniform" in text
    assert "celeba is missing: celeba is not in data/celeba; put it there" in text
    assert "x is missing: no x [here]; look elsewhere" in text


def test_an_auroc_without_an_interval_stands_alone() -> None:
    row = {"auroc": 1.0, "auroc_ci95": None, "aupr_in": 1.0, "aupr_out": 1.0, "fpr95": 0.0}
    assert "max logit 1.000 1.000 1.000 0.000" in " ".join(rendered("eval ood", {"x": {"max_logit": row}}).split())


def test_nothing_but_missing_sets_is_said_too() -> None:
    text = rendered("eval ood", {"x": {"missing": "gone", "hint": "look"}})
    assert "x is missing: gone; look" in text
    assert "AUROC" not in text


def test_generation_shows_distances_shares_copies_and_the_judge() -> None:
    values = {
        "feature_fid": 123.4567,
        "feature_kid": 0.5,
        "precision": 0.75,
        "density": 1.25,
        "label_agreement": 0.5,
        "label_agreement_ci95": [0.25, 0.75],
        "per_class": {"cat": {"n": 2, "accuracy": 0.5, "ci95": [0.1, 0.9]}},
        "judge": "SVC(C=10) on the pixels of 10,000 real training images",
        "judge_accuracy": 0.9,
        "judge_n": 360,
        "memorisation": {"sample_to_train": 3.5, "test_to_train": 2.5, "copies": 0.01},
    }
    text = rendered("eval generate", values)
    found = rows(text)
    assert found["feature_fid"] == "123.457"
    assert found["precision"] == "75.00%"
    assert found["density"] == "1.250"
    assert found["label_agreement"] == "50.00% [25.00, 75.00]"
    assert found["judge"] == values["judge"]
    assert (found["sample_to_train"], found["copies"]) == ("3.500", "1.00%")
    assert "…" not in text


def test_starts_and_real_images_stand_beside_the_samples() -> None:
    beside = {"starts": {"n": 640, "precision": 0.0, "feature_fid": 400.0}, "real": {"n": 500, "precision": 0.875, "feature_fid": 3.25}}
    values = {"feature_fid": 123.4567, "precision": 0.75, "precision_ci95": [0.5, 1.0], "judge": "SVC", **beside}
    text = rendered("eval generate", values)
    found = rows(text)
    assert found["metric"] == "samples [95% interval] starts real"
    assert found["feature_fid"] == "123.457 400.000 3.250"
    assert found["precision"] == "75.00% [50.00, 100.00] 0.00% 87.50%"
    assert found["judge"] == "SVC"


@pytest.mark.parametrize("kid", [0.0123, 0.00045])
def test_small_kernel_distances_are_not_rounded_to_nothing(kid: float) -> None:
    written = float(rows(rendered("eval generate", {"feature_kid": kid}))["feature_kid"])
    assert written == pytest.approx(kid, rel=0.05)


def test_an_embedding_shows_how_far_to_trust_it() -> None:
    values = {"trustworthiness": 0.96, "knn_accuracy": 0.9, "knn_accuracy_features": 0.95}
    found = rows(rendered("tsne", values))
    assert {name: found[name] for name in values} == {
        "trustworthiness": "96.00%",
        "knn_accuracy": "90.00%",
        "knn_accuracy_features": "95.00%",
    }


@pytest.mark.parametrize("kind", ["fgsm", "pgd", "apgd", "square"])
def test_an_attack_shows_accuracy_over_eps_and_zero_gradients_where_there_were_any_gradients(kind: str) -> None:
    row = {"accuracy": 0.25, "ci95": [0.2, 0.3], "forwards": 40}
    values = {
        "clean_accuracy": 0.9,
        "clean_ci95": [0.85, 0.95],
        "eps": {
            "1/255": row | {"eps": 1 / 255, "zero_gradient_share": 0.125},
            "8/255": row | {"eps": 8 / 255, "zero_gradient_share": None},
        },
        "largest_change": {"linf": 8 / 255, "l2": 1.0},
    }
    found = rows(rendered(f"attack {kind}", values))
    assert found["0"] == "90.00% [85.00, 95.00]"
    assert found["1/255"] == "= 0.0039 25.00% [20.00, 30.00] 12.5%"
    assert found["8/255"] == "= 0.0314 25.00% [20.00, 30.00]"


def test_an_attack_on_a_refined_classifier_shows_what_each_way_left_on_eighty_columns() -> None:
    row = {"eps": 32 / 255, "accuracy": 0.29, "ci95": [0.21, 0.385], "forwards": 40, "zero_gradient_share": 0.125, "new_noise": 0.3}
    row["ways"] = {"eot": 0.98, "bpda": 0.64, "ignoring": 0.29}
    values = {"clean_accuracy": 1.0, "clean_ci95": [0.963, 1.0], "eps": {"32/255": row}, "largest_change": {"linf": 0.1, "l2": 1.0}}
    text = rendered("attack pgd", values)
    assert rows(text)["32/255"] == "= 0.1255 29.00% [21.00, 38.50] 98.0% 64.0% 29.0% 30.0%"
    assert all(word in text for word in ("eot", "bpda", "ignoring", "new noise"))


def test_a_smallest_change_shows_how_often_it_was_found_and_how_large() -> None:
    values = {"clean_accuracy": 0.9, "success_rate": 1.0, "success_ci95": [0.9, 1.0], "l2_mean": 1.5, "l2_median": None}
    found = rows(rendered("attack cw", values))
    assert (found["clean_accuracy"], found["l2_mean"]) == ("90.00%", "1.500")
    assert "l2_median" not in found
    assert found["success_rate"] == "100.00% [90.00, 100.00]"


def test_an_audit_shows_the_worst_case_first_and_every_verdict_and_its_sentence() -> None:
    values = {
        "worst_case": {"1/255": {"accuracy": 0.5, "ci95": [0.4, 0.6]}, "8/255": {"accuracy": 0.125, "ci95": [0.1, 0.2]}},
        "attacks": {"fgsm-ce": {"1/255": {"accuracy": 0.75}, "8/255": {"accuracy": 0.625}}, "apgd": {"8/255": {"accuracy": 0.25}}},
        "verdicts": [
            {"name": "flat curve", "fired": True, "why": "it is flat"},
            {"name": "more steps help", "fired": False, "why": "they do not"},
        ],
        "sentence": "Believe 12.5%.",
    }
    text = rendered("attack audit", values)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    order = ["worst case 50.0 12.5", "fgsm-ce 75.0 62.5", "apgd 25.0", "FIRED flat curve: it is flat", "clear more steps help: they do not"]
    assert [line for line in lines if line in order] == order
    assert "Believe 12.5%." in lines


def test_a_real_audit_of_the_whole_suite_fits_on_eighty_columns() -> None:
    rng = torch.Generator().manual_seed(0)
    fell = {name: torch.rand(50, generator=rng, dtype=torch.float64) for name in (*suite(10), *AT_FOCUS, "transfer")}
    text = rendered(
        "attack audit", audit_values(Curves(fell, EPS), torch.tensor([True, False]), torch.ones(50, dtype=torch.bool), 10, FOCUS)
    )
    assert "…" not in text
    assert all(name in text for name in fell)


REFINED = {"eps": 32 / 255, "accuracy": 0.29, "ci95": [0.21, 0.385], "zero_gradient_share": 0.125, "new_noise": 0.3}
SEVERAL: dict[str, dict[str, Any]] = {
    "eval accuracy": accuracy_values(*answers(), 1.0, NAMES),
    "eval calibrate": calibration_values(*answers(), gamma2=1 / 3, temperature=2.5),
    "eval ood": {"uniform": {score: detected(1.0) for score in SCORES}},
    "eval generate": {"precision": 0.75, "precision_ci95": [0.5, 1.0], "judge": "SVC on pixels", "real": {"precision": 0.875}},
    "attack pgd": {
        "clean_accuracy": 1.0,
        "clean_ci95": [0.963, 1.0],
        "eps": {"32/255": REFINED | {"ways": {"eot": 0.98, "bpda": 0.64}}},
    },
    "tsne": {"trustworthiness": 0.96, "trustworthiness_ci95": [0.9, 0.98]},
}


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("command", SEVERAL)
def test_on_a_narrow_terminal_every_figure_stands_whole_in_lines_that_fit(command: str, width: int) -> None:
    wide, narrow = (rendered(command, SEVERAL[command], columns) for columns in (200, width))
    assert not Counter(re.split(r"[\s:]+", wide)) - Counter(re.split(r"[\s:]+", narrow))
    assert max(map(len, narrow.splitlines())) <= width
