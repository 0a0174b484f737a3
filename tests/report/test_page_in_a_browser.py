import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.figure import Figure

from browsing import in_a_browser
from gmmcli.attacks.attack import Attack
from gmmcli.evaluate import classification, detection
from gmmcli.evaluate.generation import Generation, generate
from gmmcli.evaluate.robustness import robust_accuracy
from gmmcli.evaluate.samples import Draw
from gmmcli.evaluate.subject import Subject
from gmmcli.evaluate.tsne import Embedding, tsne
from gmmcli.metrics.features.spaces import pixel_space
from gmmcli.metrics.judge import PixelJudge
from gmmcli.report.collect import gather
from gmmcli.report.compare import compare
from gmmcli.report.page import page
from gmmcli.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CLASSES = ("</script>", "<b>bold", "two", "three", "four", "five", "six", "seven", "eight", "nine & more")
N = 40

pytestmark = in_a_browser


def measured(run: Run, samples: bool) -> Run:
    """A bit of everything that the page shows."""
    classification.accuracy(Subject.open(run.path))
    subject = Subject.open(run.path, n=N)
    classification.calibrate(subject)
    detection.ood(subject, ["uniform", "gaussian"], ["log_px", "max_py"])
    tsne([subject], Embedding(per_class=1))
    robust_accuracy(subject, Attack("pgd", steps=2), [4 / 255, 8 / 255])
    if samples:
        generate(subject, Generation(pixel_space(), PixelJudge(subject.dataset.train, 1), Draw("buffer"), n=20))
    return run


@pytest.fixture(scope="module")
def runs(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two models, the second of another name and seed, one of them without samples."""
    folder = tmp_path_factory.mktemp("page")
    copies = [Run(Path(shutil.copytree(trained.path, folder / name))) for name in ("one", "other")]
    recipe = copies[1].path / "recipe.toml"
    recipe.write_text(
        re.sub(r"^seed = \d+", "seed = 2", recipe.read_text().replace("learning_rate = 0.001", "learning_rate = 0.002"), flags=re.MULTILINE)
    )
    copies[1].describe(study_model="<i>other")
    with pytest.MonkeyPatch.context() as patch:
        for figure in ("confusion", "reliability", "histograms", "scatter"):
            patch.setattr(f"gmmcli.evaluate.plots.{figure}", lambda *values: Figure())
        patch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
        patch.setattr("gmmcli.evaluate.tsne.embed", lambda features, seed: features[:, :2].numpy())
        return [measured(run, samples=run is copies[0]) for run in copies]


@pytest.fixture(scope="module")
def compared(runs: list[Run]) -> Path:
    """Their page; what users named looks like markup."""
    card = Run.card
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "card", lambda self, best=False: replace(card(self, best), class_names=CLASSES))
        return written(runs, "</title><b>A & B")


def written(runs: list[Run], title: str) -> Path:
    path = runs[0].path / f"{len(runs)}.html"
    path.write_text(page(compare(gather(runs)), title, "About <em>them</em>"), encoding="utf-8")
    return path


@dataclass
class Witness:
    """Opens pages, and hears what they complain about and what they ask for."""

    browser: "Browser"
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def show(self, path: Path, **more: Any) -> "Iterator[Page]":
        with self.browser.new_context(reduced_motion="reduce", **more) as context:
            context.set_default_timeout(60_000)
            sheet = context.new_page()
            sheet.on("console", lambda message: self.said.append(message.text))
            sheet.on("pageerror", lambda error: self.said.append(str(error)))
            sheet.on("request", lambda request: self.asked.append(request.url))
            sheet.goto(path.as_uri())
            yield sheet


@pytest.fixture(scope="module")
def witness(browser: "Browser") -> Witness:
    return Witness(browser)


@pytest.fixture(autouse=True)
def nothing_is_complained_about_or_fetched(witness: Witness) -> Iterator[None]:
    yield
    assert not witness.said
    assert {url for url in witness.asked if not re.match(r"data:|file:.*/\d\.html(#|$)", url)} == set()


@pytest.fixture(scope="module")
def sheet(compared: Path, witness: Witness) -> "Iterator[Page]":
    """The page of two models, opened once: reading plotly takes longer than any test."""
    with witness.show(compared) as sheet:
        yield sheet


def drawn(sheet: "Page", kind: str, i: int = 0) -> "Locator":
    """A chart, once it has been scrolled to and drawn."""
    chart = sheet.locator(f'[data-chart="{kind}"]').nth(i)
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for()
    return chart


def colour(chart: "Locator") -> str:
    return str(chart.locator(".xtick text").first.evaluate("text => getComputedStyle(text).fill"))


def overflow(sheet: "Page") -> int:
    return int(sheet.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_never_scrolls_sideways_and_all_charts_are_drawn(width: int, sheet: "Page") -> None:
    sheet.set_viewport_size({"width": width, "height": 800})
    for chart in sheet.locator("[data-chart]").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
        assert chart.bounding_box()["width"] <= width
    sheet.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert overflow(sheet) == 0
    sheet.locator("details").evaluate_all("all => all.forEach(one => one.open = false)")
    assert sheet.locator("[data-chart]").count() == 2 * 4 + 2


def test_samples_are_48_pixels_wide_beside_real_ones_and_all_of_one_size_on_a_narrow_screen(sheet: "Page") -> None:
    strips = sheet.locator("#samples td img")
    assert sheet.locator("#samples thead th").all_inner_texts() == ["real", "generated"]
    assert strips.count() == 2 * len(CLASSES)

    def sizes(width: int) -> set[tuple[int, int]]:
        sheet.set_viewport_size({"width": width, "height": 800})
        return {(round(box["width"]), round(box["height"])) for box in map(type(strips).bounding_box, strips.all())}

    ((width, height),) = sizes(1280)
    assert (width + 6) % 54 == 0  # whole images and the gaps between them
    assert height == 48
    ((narrow, _),) = sizes(375)
    assert narrow <= width
    sheet.set_viewport_size({"width": 1280, "height": 800})


def test_charts_have_the_colours_of_the_scheme_also_when_it_changes(sheet: "Page") -> None:
    sheet.emulate_media(color_scheme="light")
    chart = drawn(sheet, "reliability")
    light = colour(chart)
    sheet.emulate_media(color_scheme="dark")
    changed = "light => getComputedStyle(document.querySelector('[data-chart=reliability] .xtick text')).fill !== light"
    sheet.wait_for_function(changed, arg=light)  # it is drawn anew after the page has heard of the change
    assert colour(drawn(sheet, "robustness")) == colour(chart)


def test_the_keyboard_alone_reaches_every_section(sheet: "Page") -> None:
    assert sheet.locator("a").first.get_attribute("href") == "#main"
    links = sheet.locator("nav a")
    assert links.count() == 11
    for link in range(links.count()):
        (links.nth(link - 1) if link else sheet.locator("a").first).focus()
        sheet.keyboard.press("Tab")
        target = sheet.evaluate("document.activeElement.hash")
        assert target == links.nth(link).get_attribute("href")
        sheet.keyboard.press("Enter")
        assert sheet.evaluate("'#' + document.activeElement.id") == target
        sheet.wait_for_function("document.activeElement.getBoundingClientRect().top < innerHeight / 2")


def test_arrow_keys_walk_through_the_points_of_a_plane(sheet: "Page") -> None:
    drawn(sheet, "tsne")
    figure = sheet.locator("#tsne figure").first
    figure.get_by_role("application").focus()
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "End"):
        sheet.keyboard.press(key)
        seen.append((figure.get_by_role("status").inner_text(), figure.locator(".tile").evaluate("tile => tile.style.backgroundPosition")))
    assert len(set(seen)) > 3
    assert all(re.fullmatch(rf"({'|'.join(map(re.escape, CLASSES))}), (test image|sample) \d+ of {N + 10}", text) for text, _ in seen)
    assert all(before[0] != after[0] for before, after in pairwise(seen))
    assert figure.locator(".tile").evaluate("tile => tile.style.backgroundImage").startswith('url("data:image/png;base64,')


def test_pointing_at_a_dot_shows_its_image_and_class(sheet: "Page") -> None:
    plane = drawn(sheet, "tsne", 1)
    figure = sheet.locator("#tsne figure").nth(1)
    assert figure.get_by_role("status").inner_text() == "No point selected"
    other = sheet.locator("#tsne figure").first.get_by_role("status")
    before = other.inner_text()
    box = plane.locator(".point").first.bounding_box()
    sheet.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    figure.get_by_text(re.compile(r"test image \d+ of")).wait_for()
    assert figure.locator(".tile").evaluate("tile => tile.style.backgroundImage")
    assert other.inner_text() == before


def test_selectors_redraw_their_charts_and_say_so_in_the_captions(sheet: "Page") -> None:
    for kind, choose in (
        ("ood", lambda: sheet.get_by_role("combobox", name="Score").select_option("max_py")),
        ("ood", lambda: sheet.get_by_role("combobox", name="Set").select_option("gaussian")),
        ("reliability", lambda: sheet.get_by_role("radio", name="temperature").check()),
    ):
        chart = drawn(sheet, kind)
        caption = sheet.locator(f'figure:has([data-chart="{kind}"]) [data-caption]').first
        before = caption.inner_text(), chart.locator(".cartesianlayer").inner_html()
        choose()
        assert caption.inner_text() != before[0]
        assert chart.locator(".cartesianlayer").inner_html() != before[1]


def test_the_accuracy_of_each_bin_has_its_interval(sheet: "Page", runs: list[Run]) -> None:
    scale = sheet.locator("input[name=scale]:checked").input_value()
    (result,) = [result for result in runs[0].results().values() if result["command"] == "eval calibrate"]
    bins = [one for one in result["values"]["variants"][scale]["bins"] if one["n"]]
    bars = drawn(sheet, "reliability").evaluate("chart => chart.data[0]")
    assert bars["error_y"]["visible"]
    assert [y + up for y, up in zip(bars["y"], bars["error_y"]["array"], strict=True)] == pytest.approx([one["ci95"][1] for one in bins])
    assert [y - down for y, down in zip(bars["y"], bars["error_y"]["arrayminus"], strict=True)] == pytest.approx(
        [one["ci95"][0] for one in bins], abs=1e-12
    )


def test_bins_of_results_from_before_they_had_intervals_are_drawn_without(runs: list[Run], witness: Witness, tmp_path: Path) -> None:
    old = Run(Path(shutil.copytree(runs[0].path, tmp_path / runs[0].path.name)))
    (path,) = (old.path / "results").glob("eval-calibrate*.json")
    result = json.loads(path.read_text())
    for variant in result["values"]["variants"].values():
        variant.pop("scale_ci95", None)
        variant["bins"] = [{key: value for key, value in one.items() if key != "ci95"} for one in variant["bins"]]
    path.write_text(json.dumps(result))
    with witness.show(written([old], "Old")) as sheet:
        bars = drawn(sheet, "reliability").evaluate("chart => chart.data[0]")
        assert not bars["error_y"]["visible"]
        assert bars["y"]


def test_names_are_text_and_no_markup(sheet: "Page") -> None:
    assert sheet.title() == "</title><b>A & B" == sheet.locator("h1").inner_text()
    assert "About <em>them</em>" in sheet.locator("header").inner_text()
    assert sheet.locator("#samples tbody th").all_inner_texts() == [*CLASSES]
    assert sheet.locator("#classes li").all_inner_texts() == [*CLASSES]
    assert "<i>other" in sheet.locator("#figures thead").inner_text()
    assert sheet.get_by_role("combobox", name="Class").locator("option").all_inner_texts() == ["all", *CLASSES]
    line = drawn(sheet, "robustness").evaluate("chart => chart.data.map(line => line.name)")
    assert line == ["digits, pgd-ce", "&lt;i>other, pgd-ce"]


def test_figures_and_samples_need_no_javascript(compared: Path, witness: Witness) -> None:
    with witness.show(compared, java_script_enabled=False) as sheet:
        assert sheet.get_by_text("The charts need JavaScript").is_visible()
        assert sheet.locator("#figures tbody tr").count() > 10
        assert sheet.locator("#minute .card.undecided").first.is_visible()  # both have the same weights
        assert all(strip.is_visible() for strip in sheet.locator("#samples img").all())
        assert not sheet.locator(".chart:visible, .controls:visible").count()
        assert overflow(sheet) == 0


def test_one_model_alone_has_its_key_figures_and_no_section_without_data(runs: list[Run], witness: Witness) -> None:
    with witness.show(written(runs[1:], "Alone")) as sheet:
        cards = sheet.locator(".card")
        assert cards.locator("h3").all_inner_texts()[:3] == ["Classification", "Calibration", "Out of distribution (AUROC)"]
        assert re.fullmatch(r"[\d.]+%", cards.first.locator(".winner").inner_text())
        assert not sheet.locator("#samples, #recipes, nav a[href='#samples'], nav a[href='#recipes'], .star").count()
        targets = sheet.locator("nav a").evaluate_all("links => links.map(link => link.hash)")
        assert all(sheet.locator(target).count() == 1 for target in targets)


def test_on_paper_a_table_of_eight_models_is_not_cut_off(runs: list[Run], witness: Witness, tmp_path: Path) -> None:
    copies = [Run(Path(shutil.copytree(runs[1].path, tmp_path / f"{i}"))) for i in range(8)]
    for i, run in enumerate(copies):
        run.describe(study_model=f"digits_gen, learning_rate 0.00{i}")
        recipe = run.path / "recipe.toml"
        recipe.write_text(recipe.read_text().replace("learning_rate = 0.002", f"learning_rate = 0.00{i + 1}"))
    with witness.show(written(copies, "Eight")) as sheet:
        assert sheet.locator("#figures thead th").count() >= 8
        sheet.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        sheet.emulate_media(media="print")
        for width in (560, 718):
            sheet.set_viewport_size({"width": width, "height": 900})
            assert overflow(sheet) == 0


def test_on_paper_everything_is_drawn_and_open_and_light(sheet: "Page") -> None:
    sheet.emulate_media(color_scheme="dark")
    sheet.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert sheet.locator("[data-chart] .main-svg").count() >= sheet.locator("[data-chart]").count()
    assert sheet.locator("details:not([open])").count() == 0
    printed = colour(sheet.locator('[data-chart="reliability"]').first)
    sheet.emulate_media(color_scheme="dark", media="print")
    for width in (560, 718):  # A5, and A4 between its margins
        sheet.set_viewport_size({"width": width, "height": 900})
        for chart in sheet.locator("[data-chart]").all():
            box, drawing = chart.bounding_box(), chart.locator(".main-svg").first
            inside = drawing.bounding_box()
            assert inside["width"] <= box["width"] + 1 <= width + 1
            assert inside["height"] <= box["height"] + 1
            assert drawing.get_attribute("viewBox") == f"0 0 {drawing.get_attribute('width')} {drawing.get_attribute('height')}"
        assert all(strip.bounding_box()["x"] + strip.bounding_box()["width"] <= width for strip in sheet.locator("#samples img").all())
    sheet.set_viewport_size({"width": 1280, "height": 800})
    sheet.emulate_media(color_scheme="dark", media="screen")
    sheet.evaluate("dispatchEvent(new Event('afterprint'))")
    assert sheet.locator("details[open]").count() == 0
    assert sheet.locator(".main-svg[viewBox]").count() == 0
    assert colour(sheet.locator('[data-chart="reliability"]').first) != printed
