"""The page in a real browser: it draws, opens offline, fits a phone, follows the dark mode, works by keyboard.

Skipped where there is no Chromium with its driver (Debian: apt-get install chromium chromium-driver).
"""

import shutil
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from reports.comparison import compare
from reports.html_report import html_report
from tests.reports.run_folders import write_run, write_study

selenium = pytest.importorskip("selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its driver on this machine"),
]
BLUE = {"light": "rgb(0, 114, 178)", "dark": "rgb(90, 180, 240)"}
PHONE, DESKTOP = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    write_run(folder / "bad", algorithm="ppo", env="sort", status="failed", reason="ValueError: no gradient")
    comparison = compare([read_run(run) for run in find_runs([folder])], metric="success", seed=0)
    path = folder / "report.html"
    path.write_text(html_report(comparison, made=datetime.now()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
    """The page at a size in a colour scheme, with nothing but itself to load, once its plots are there."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.get(page.as_uri())
    WebDriverWait(browser, 30).until(lambda b: len(b.find_elements(By.CSS_SELECTOR, ".plot .main-svg")) >= 4)
    return browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_appear_in_the_readers_colours(browser: Any, page: Path, scheme: str) -> None:
    opened(browser, page, scheme=scheme)
    drawn = {plot.get_attribute("id") for plot in browser.find_elements(By.CSS_SELECTOR, ".plot.js-plotly-plot")}
    assert drawn == {"plot-overall", "plot-sweep-1", "plot-task-1", "plot-task-5"}  # the swept tasks are folded
    lines = browser.find_elements(By.CSS_SELECTOR, "#plot-task-5 .scatterlayer path.js-line")
    assert BLUE[scheme] in {line.value_of_css_property("stroke") for line in lines}
    paper = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert paper == {"light": "rgba(251, 251, 250, 1)", "dark": "rgba(20, 23, 26, 1)"}[scheme]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_sticks_out(browser: Any, page: Path, size: tuple[int, int]) -> None:
    """Wide tables scroll within themselves, also when everything is unfolded."""
    opened(browser, page, size)
    if size == PHONE:
        browser.execute_script("document.querySelectorAll('details').forEach((place) => (place.open = true))")
        WebDriverWait(browser, 30).until(lambda b: len(b.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")) == 7)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]


def test_the_keyboard_reaches_and_moves_everything(browser: Any, page: Path) -> None:
    opened(browser, page)
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    plot = browser.find_element(By.ID, "plot-task-1")
    assert "Episodes" in plot.text and "against episodes" in plot.get_attribute("aria-label")
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.get_attribute("name") == "axis":
            break
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 10).until(lambda _: "Generated tokens" in plot.text)
    assert "against generated tokens" in plot.get_attribute("aria-label")
    folded = browser.find_element(By.CSS_SELECTOR, "details.task > summary")
    folded.send_keys(Keys.ENTER)
    WebDriverWait(browser, 10).until(lambda b: b.find_elements(By.CSS_SELECTOR, "details.task .js-plotly-plot"))


# Contrast is all that a colour scheme changes.
@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", {}), ("dark", {"runOnly": {"type": "rule", "values": ["color-contrast"]}})]
)
def test_axe_finds_no_barrier(browser: Any, page: Path, scheme: str, rules: dict[str, Any]) -> None:
    """The rules of WCAG and of good practice that a program can check: contrast, names, roles, order of headings."""
    opened(browser, page, scheme=scheme)
    # One task is like the others.
    unfold = "document.querySelectorAll('#task-1 details, section:not([id]) > details:not(.task)')"
    browser.execute_script(f"{unfold}.forEach((place) => (place.open = true))")
    browser.execute_script((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    # Plotly draws the plots, which are images with a description to a reader.
    command = "axe.run({exclude: ['.plot']}, arguments[0]).then(arguments[arguments.length - 1])"
    found = browser.execute_async_script(command, rules)
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}, "axe ran"
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []
