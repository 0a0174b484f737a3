import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from handwritten import GEN, JEM, audited, calibrated, checkpoint, models, scored, write

from gmmcli.report.collect import gather
from gmmcli.report.compare import compare
from gmmcli.report.page import page, provenance
from gmmcli.run import Run

VOID = {"meta", "link", "img", "br", "hr", "input", "col", "source", "wbr", "base", "area", "embed", "track", "param"}
NASTY = "Digits </script><script>alert(1)</script> & <b>bold</b>"


class Page(HTMLParser):
    """A page's text, what it would fetch, and whether its tags close as they open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self.title = ""
        self.scripts = 0
        self.tags: set[str] = set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.scripts += tag == "script"
        given = dict(attributes)
        address = (given.get("src") or given.get("data")) or (given.get("href") if tag == "link" else None)
        if address and not address.startswith("data:"):
            self.fetched.append(address)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:  # what HTML lets stay open, say <li> and <tr>
                pass
        else:
            assert tag in VOID, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "script" in self.open or "style" in self.open:
            return
        self.text.append(data)
        if "title" in self.open and not self.title:
            self.title = data


def made(runs: list[Run], title: str = "Digits", about: str = "") -> Page:
    return Page(page(compare(gather(runs)), title, about))


def bare(html: str) -> str:
    """The page without the library that draws: it knows addresses that it does not fetch."""
    return "".join(re.split(r"(<script[^>]*>.*?</script>)", html, flags=re.DOTALL)[::2])


@pytest.fixture
def several(tmp_path: Path) -> list[Run]:
    """Three models with something to show."""
    gen, dis, softmax = models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01), softmax=(0.5, 0.01))
    audited(gen, at8=0.25)
    return [calibrated(gen, 0.01, 0.02), dis, calibrated(softmax, 0.1, 0.02)]


def test_a_page_of_several_models_fetches_nothing_and_is_closed(several: list[Run]) -> None:
    html = page(compare(gather(several)), "Digits", "About digits.")
    found = Page(html)
    assert html.lstrip().lower().startswith("<!doctype html>")
    assert found.fetched == []
    assert not re.search(r"url\(\s*['\"]?(?!data:|#)\w|@import", bare(html))
    assert found.open == []
    assert found.title == "Digits"


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_one_run_with_hardly_anything_to_show_has_a_page(status: str, tmp_path: Path) -> None:
    assert made([write(tmp_path, status=status)]).title == "Digits"


def test_titles_and_names_are_text_whatever_they_say(several: list[Run], tmp_path: Path) -> None:
    plain = made(several, "Digits", "About digits.")
    several[0].describe(study_model=NASTY)
    nasty = made([checkpoint(several[0], (NASTY, "<i>")), *several[1:]], NASTY, NASTY)
    assert nasty.title == NASTY
    assert nasty.scripts == plain.scripts
    assert "b" not in nasty.tags - plain.tags
    assert nasty.open == []


def test_the_page_shows_what_runs_measured(several: list[Run]) -> None:
    text = " ".join(made(several).text)
    assert all(name in text for name in ("digits_gen", "digits_dis", "digits_softmax"))


def test_where_intervals_overlap_the_page_first_says_undecided(tmp_path: Path) -> None:
    runs = models(tmp_path, gen=(0.9, 0.05), softmax=(0.89, 0.05))
    text = " ".join(" ".join(made(runs).text).split())
    card = text.partition("Which classifies best?")[2]
    assert card.startswith(" Undecided Best value: digits_gen")
    assert "Not clearly worse (the intervals overlap): digits_softmax" in card
    assert "2 of 2 comparisons undecided." in text


def test_who_is_clearly_ahead_is_named(several: list[Run]) -> None:
    text = " ".join(" ".join(made(several).text).split())
    assert "1 of 3 comparisons undecided; digits_gen clearly better in 2." in text
    assert text.partition("Which classifies best?")[2].startswith(" digits_gen ")


def test_the_same_runs_give_the_same_page_but_for_its_date(several: list[Run]) -> None:
    first, second = (re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page(compare(gather(several)), "Digits")) for _ in range(2))
    assert first == second


def test_provenance_has_a_line_a_run(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, GEN, seed=seed, device="cpu", git="abc+"), 0.9) for seed in (2, 1)]
    runs.append(write(tmp_path, JEM, status="diverged"))
    lines = provenance(compare(gather(runs)))
    assert [(line["model"], line["run"], line["seed"], line["status"]) for line in lines] == [
        (GEN, runs[1].id, 1, "finished"),
        (GEN, runs[0].id, 2, "finished"),
        (JEM, runs[2].id, 1, "diverged"),
    ]
    assert (lines[0]["device"], lines[0]["git"], lines[0]["wall_time_s"], lines[0]["argv"]) == ("cpu", "abc+", 90.0, None)
    assert json.loads(json.dumps(lines)) == lines
