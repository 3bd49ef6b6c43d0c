# SPDX-License-Identifier: Apache-2.0
"""The report in a real Chromium: no network, no errors, and what a reader does with pointer and keyboard."""

import os
import random
import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright
from support.synthetic_run import plain_record, write_metrics, write_records, write_run

from verl_ext.report.page import write_page
from verl_ext.report.runs import load_run

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
RUN = "window.hostile = true"
HOSTILE = [
    f'</script><img src="x" onerror="{RUN}">',
    f"</script><script>{RUN}</script>",
    f'<a href="javascript:{RUN}">',
    "\u202eabc",
    "\x00\x1b[2J",
    "<!--<script>",
    "\u2028",
]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        message = "no Chromium: install chromium (apt-get install chromium) to drive the report in a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def two_runs(folder):
    runs = [write_run(folder / name, steps=40, every=10, seed=seed) for seed, name in enumerate(("grpo", "pgpo"))]
    return write_report(folder / "two.html", *runs)


@pytest.fixture(scope="module")
def long_run(folder):
    rng = random.Random(0)
    tokens = [f" word{index}" for index in range(5000)]
    values = [[rng.random() for _ in tokens] for _ in range(3)]
    numbers = {"visual_dependency": values[0], "weight": values[1], "advantage": values[2], "signals": []}
    rows = [plain_record(step, tokens, **numbers) for step in (1, 2)]
    return write_report(folder / "long.html", run_of(folder / "long", rows))


@pytest.fixture(scope="module")
def hostile_run(folder):
    values = {"visual_dependency": [1.0] * len(HOSTILE), "weight": [], "advantage": [], "signals": []}
    row = plain_record(1, HOSTILE, prompt=HOSTILE[0], ground_truth=HOSTILE[1], prompt_id=HOSTILE[0]) | values
    run = run_of(folder / "hostile", [row, row | {"step": 2}], **{f"{HOSTILE[0]}{HOSTILE[2]}": 1.0})
    return write_report(folder / "hostile.html", run, labels=[HOSTILE[1]])


def run_of(folder, rows, **metrics):
    write_metrics(folder / "m.jsonl", [(step, {"critic/score/mean": step / 4, **metrics}) for step in (1, 2)])
    for row in rows:
        write_records(folder, row["step"], [row])
    return folder


def write_report(path, *folders, labels=None):
    names = labels or [folder.name for folder in folders]
    write_page([load_run(folder, [], name, 200) for folder, name in zip(folders, names, strict=True)], path)
    return path


@pytest.fixture
def visit(browser):
    """Opens a page; at the end of the test, nothing was asked of the network and no error was reported."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page = context.new_page()
    requests, problems = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append("dialog"), dialog.dismiss()))

    def goto(path, view="responses"):
        page.goto(f"{path.as_uri()}#{view}")
        return page

    yield goto
    assert problems == []
    assert [url for url in requests if urlsplit(url).scheme not in ("data", "blob")] == [page.url.split("#")[0]]
    context.close()


def tokens(page):
    return page.locator("#detail .token")


def background(locator):
    return locator.evaluate("node => getComputedStyle(node).backgroundColor")


def items(page):
    return page.locator("#list button")


def test_curves_have_a_line_of_every_run(visit, two_runs):
    page = visit(two_runs, "curves")
    charts = page.locator("#charts .card")
    assert charts.locator("h2").all_inner_texts() == [
        "Training reward",
        "Validation accuracy",
        "Accuracy that the image adds",
        "Visual dependency of tokens",
        "Dependency held by the top fifth of tokens",
        "Effective tokens: how evenly credit is spread",
        "Entropy of the policy",
        "Surprise at the response without the image",
        "Response length",
        "Signs of a collapse",
        "Seconds of a step, by phase",
    ]
    assert charts.nth(0).locator(".scatterlayer .trace").count() == 2
    assert charts.nth(1).locator(".scatterlayer .trace").count() == 4
    assert charts.last.locator(".barlayer .trace").count() == 16
    page.get_by_role("button", name="grpo").click()
    assert charts.nth(0).locator(".scatterlayer .trace").count() == 1
    page.locator("#smoothing").fill("0.5")
    # The measured values stay behind the average; the few of validation are not smoothed.
    assert [charts.nth(index).locator(".scatterlayer .trace").count() for index in (0, 1)] == [2, 2]


def test_first_and_last_values(visit, two_runs):
    row = visit(two_runs, "curves").locator("#overview tr", has_text="Validation accuracy, image taken away")
    assert row.locator("td").count() == 2
    assert "→" in row.locator("td").first.inner_text()


def test_metrics_can_be_searched(visit, two_runs):
    page = visit(two_runs, "metrics")
    page.locator("#metric-query").fill("timing GEN")
    page.locator("#metric-table tbody tr:visible button").click()
    assert page.locator("#metric-title").inner_text() == "timing_s/gen"
    assert page.locator("#metric-count").inner_text().startswith("1 of ")
    assert page.locator("#metric-chart .scatterlayer .trace").count() == 2


def test_a_response_is_chosen_beside_its_picture(visit, two_runs):
    page = visit(two_runs)
    items(page).nth(3).click()
    assert items(page).nth(3).get_attribute("aria-current") == "true"
    picture = page.locator("#detail img")
    assert picture.evaluate("node => node.naturalWidth") == 224
    assert "boxed" in page.locator("#detail .tokens").inner_text()
    assert "What colour is the shape" in page.locator(".prompt-text").inner_text()
    page.get_by_role("button", name="Next").click()
    assert items(page).nth(4).get_attribute("aria-current") == "true"


def test_right_and_wrong_answers_apart(visit, two_runs):
    page = visit(two_runs)
    everything = items(page).count()
    counts = {}
    for verdict, mark in (("correct", "✓"), ("wrong", "✗")):
        page.locator("#filter-verdict").select_option(verdict)
        assert set(page.locator("#list .mark").all_inner_texts()) == {mark}
        assert page.locator("#detail .mark").inner_text() == f"{mark} {verdict}"
        counts[verdict] = items(page).count()
    assert counts["correct"] + counts["wrong"] == everything


def test_filters_of_run_step_and_prompt(visit, two_runs):
    page = visit(two_runs)
    page.locator("#filter-run").select_option("1")
    page.locator("#filter-step").select_option("10")
    assert set(page.locator("#list .item-head").all_inner_texts()) <= {"✓\nstep 10\npgpo", "✗\nstep 10\npgpo"}
    assert items(page).count() == 12
    page.locator("#filter-text").fill("nothing like it")
    assert page.locator("#detail").inner_text() == "No recorded response passes the filters."


def test_values_on_hover_and_focus(visit, two_runs):
    page = visit(two_runs)
    tokens(page).nth(2).hover()
    tip = page.locator("#tip")
    assert "token 3 of" in tip.inner_text()
    titles = ["visual dependency (nats)", "weight of the advantage", "advantage", "ablated_log_prob", "entropy"]
    assert tip.locator("th").all_inner_texts() == titles
    page.mouse.move(5, 5)
    assert tip.is_hidden()
    tokens(page).first.focus()
    page.keyboard.press("ArrowRight")
    assert "token 2 of" in tip.inner_text()
    page.keyboard.press("End")
    assert f"token {tokens(page).count()} of" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_colours_follow_the_chosen_quantity(visit, two_runs):
    page = visit(two_runs)
    seen = []
    for name in ("visual_dependency", "advantage", "entropy"):
        page.locator("#quantity").select_option(name)
        seen.append([background(tokens(page).nth(index)) for index in range(12)])
    assert seen[0] != seen[1] != seen[2] != seen[0]
    page.locator("#range").select_option("one")
    assert page.locator(".legend-labels").inner_text().split() == ["least", "most"]
    assert [background(tokens(page).nth(index)) for index in range(12)] != seen[2]


def test_the_theme_changes_the_scale(visit, two_runs):
    page = visit(two_runs)
    light = background(tokens(page).first), background(page.locator("body"))
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    dark = background(tokens(page).first), background(page.locator("body"))
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_the_same_prompt_over_training(visit, two_runs):
    page = visit(two_runs)
    page.get_by_role("button", name="Prompts over training").click()
    assert items(page).count() >= 3
    assert "4 steps, 10 to 40" in items(page).first.inner_text()
    rows = page.locator(".stacked")
    assert rows.count() == 16
    # Its tokens come when it is first seen.
    rows.first.locator(".token").nth(40).wait_for(state="attached")
    steps = [text.split("step ")[1].split("\n")[0] for text in page.locator(".stacked-head").all_inner_texts()]
    assert steps == sorted(steps, key=int)
    page.locator("#filter-run").select_option("0")
    assert page.locator(".stacked").count() == 8


def test_long_responses_stay_quick(visit, long_run):
    page = visit(long_run)
    assert tokens(page).count() == 5000
    work = page.context.new_cdp_session(page)
    work.send("Performance.enable", {"timeDomain": "threadTicks"})
    for change in (
        lambda: items(page).nth(1).click(),
        lambda: page.locator("#quantity").select_option("advantage"),
        lambda: tokens(page).nth(40).hover(),
    ):
        before = busy_seconds(work)
        change()
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert 0 < busy_seconds(work) - before < 1
    page.get_by_role("button", name="Prompts over training").click()
    expect(page.locator(".stacked").first.locator(".token")).to_have_count(300, timeout=30_000)
    page.get_by_role("button", name="Show all 5000 tokens").first.click()
    expect(page.locator(".stacked").first.locator(".token")).to_have_count(5000, timeout=30_000)


def busy_seconds(session):
    """Processor time of the page's tasks so far: scripts, styles and layout, whatever else the machine does."""
    return next(e["value"] for e in session.send("Performance.getMetrics")["metrics"] if e["name"] == "TaskDuration")


def test_hostile_output_is_text(visit, hostile_run):
    page = visit(hostile_run, "curves")
    page.locator("#charts .chart").first.hover()
    page.get_by_role("tab", name="All metrics").click()
    page.locator("#metric-table button").last.click()
    page.get_by_role("tab", name="Responses").click()
    for index in range(len(HOSTILE)):
        tokens(page).nth(index).hover()
    assert tokens(page).all_inner_texts()[:2] == HOSTILE[:2]
    assert [text for text in tokens(page).all_inner_texts() if not text.isprintable()] == []
    page.get_by_role("button", name="Prompts over training").click()
    assert page.locator(".stacked").count() == 2
    assert page.evaluate("window.hostile") is None
    assert page.locator("img").count() == 0


def test_a_run_without_records(visit, folder):
    path = write_report(folder / "bare.html", run_of(folder / "bare", []))
    page = visit(path)
    assert page.locator("#detail").inner_text().startswith("These runs recorded no responses")


def test_prompts_that_never_come_back(visit, folder):
    rows = [plain_record(step, prompt_id=f"{step}") for step in (1, 2)]
    page = visit(write_report(folder / "once.html", run_of(folder / "once", rows)))
    assert items(page).count() == 2
    page.get_by_role("button", name="Prompts over training").click()
    assert page.locator("#detail").inner_text() == "No prompt was recorded at more than one step."
