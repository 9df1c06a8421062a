"""The status pages in a real Chromium, over the API as a process, with the pipeline's numbers.

A quarter of two demo worlds is landed and computed by the assets, on the shipped prices.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from builders import raw_document, wait_until
from selenium import webdriver
from selenium.webdriver.common.by import By
from served import api_process, migrate_home
from service_resolution import free_port, requires_real
from service_resolution.chromium import NoChromium, chromium, look_like

from riskhub.bootstrap import price_panel
from riskhub.demo import history
from riskhub.hub import Hub
from riskhub.settings import load_settings
from riskhub.store import open_store
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.assets.risk import risk_metrics
from riskhub_dagster.assets.snapshots import landed_snapshots, snapshot_weights, validated_snapshots
from riskhub_dagster.assets.stress import stress_results
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

pytestmark = pytest.mark.timeout(300)

FIRST, LAST = date(2022, 9, 1), date(2022, 11, 30)
WORLDS = ("tech3", "energy")
WORLD_PAGE = "/worlds/tech3?stage=backtest"
HOSTILE = '"><script>document.title="run"</script>'
TOKEN = "the readers token"
PICTURE = "return document.querySelector('.chart canvas').toDataURL()"
COMPLAINTS = ("WARNING", "SEVERE")
LOOKS = [(1280, False), (1280, True), (390, False), (390, True)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with history that the pipeline has computed, and a live world."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RISKHUB_HOME", str(home))
        migrate_home(home)
        settings = load_settings()
        hub = Hub(open_store(settings.effective_database_url), settings)
        panel = price_panel(settings)
        for each in history.documents(panel, (history.Period(FIRST, LAST),)):
            world_id = each.pop("world_id")
            if world_id in WORLDS:
                raw = raw_document(**each)
                hub.land([hub.accept(raw, world_id=world_id, actor="demo", stage="backtest")])
        hub.store.close()
        tags = {RANGE_START_TAG: FIRST.isoformat(), RANGE_END_TAG: LAST.isoformat()}
        daily = [
            landed_snapshots,
            validated_snapshots,
            snapshot_weights,
            risk_metrics,
            stress_results,
        ]
        with dg.DagsterInstance.ephemeral() as instance:
            for assets in (daily, [var_outcomes, var_backtests]):
                made = dg.materialize(
                    assets, instance=instance, tags=tags, resources={"hub": RiskHub()}
                )
                assert made.success
    return home


@pytest.fixture(scope="module")
def base(home: Path) -> Iterator[str]:
    """Where the pages are, open to everybody."""
    port = free_port()
    with api_process(home, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def guarded(home: Path) -> Iterator[str]:
    """Where the same pages are, for who has the token."""
    port = free_port()
    with api_process(home, port, RISKHUB_TOKEN=TOKEN):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def one_browser() -> Iterator[webdriver.Chrome]:
    try:
        with chromium() as opened:
            yield opened
    except NoChromium as reason:
        if requires_real():
            raise
        pytest.skip(str(reason))


@pytest.fixture
def browser(one_browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """At a desk, by day, with no cookie; nothing that it was shown may complain."""
    look_like(one_browser, 1280)
    one_browser.delete_all_cookies()
    one_browser.get_log("browser")
    yield one_browser
    said = [each for each in one_browser.get_log("browser") if each["level"] in COMPLAINTS]
    assert said == []


def land(base: str, version: str, **headers: str) -> None:
    sent = {"X-Actor": "me", "X-Stage": "live"} | headers
    answer = httpx.post(
        f"{base}/risk-hub/worlds/desk/snapshots",
        content=raw_document(version=version, as_of=datetime.now(UTC).isoformat()),
        headers=sent,
    )
    assert answer.status_code == 201, answer.text


def js(browser: webdriver.Chrome, script: str, *given: Any) -> Any:
    return browser.execute_script(script, *given)


def fits(browser: webdriver.Chrome) -> bool:
    """Whether nothing is wider than the screen."""
    return bool(js(browser, "return document.documentElement.scrollWidth <= innerWidth"))


def colors_drawn(browser: webdriver.Chrome) -> int:
    """How many colours there are on the canvas of the chart."""
    script = """
      const canvas = document.querySelector(".chart canvas");
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] === 255) seen.add(`${pixels[at]},${pixels[at + 1]},${pixels[at + 2]}`);
      return seen.size;
    """
    return int(js(browser, script))


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_the_overview_opens(browser: webdriver.Chrome, base: str, width: int, dark: bool) -> None:
    look_like(browser, width, dark=dark)
    browser.get(base)
    rows = browser.find_elements(By.CSS_SELECTOR, ".worlds tbody tr")
    assert {row.find_element(By.CSS_SELECTOR, "th a").text for row in rows} >= set(WORLDS)
    sparks = [
        spark for spark in browser.find_elements(By.CLASS_NAME, "spark") if spark.is_displayed()
    ]
    assert len(sparks) >= len(WORLDS)
    assert all(spark.size["width"] >= 100 for spark in sparks)
    assert fits(browser)
    ground = js(browser, "return getComputedStyle(document.body).backgroundColor")
    assert (int(ground.removeprefix("rgb(").partition(",")[0]) < 64) is dark


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_a_world_opens_with_its_chart(
    browser: webdriver.Chrome, base: str, width: int, dark: bool
) -> None:
    look_like(browser, width, dark=dark)
    browser.get(base + WORLD_PAGE)
    chart = browser.find_element(By.CLASS_NAME, "chart")
    days = len(browser.find_elements(By.CSS_SELECTOR, "#outcomes-table tbody tr"))
    assert days > 50
    wait_until(lambda: chart.get_attribute("data-drawn") == str(days))
    assert colors_drawn(browser) >= 4
    assert chart.find_element(By.TAG_NAME, "canvas").size["width"] <= width
    for section in ("methods", "contributions", "stress"):
        bars = browser.find_elements(By.CSS_SELECTOR, f"#{section} .bar rect")
        assert bars, section
        assert all(bar.size["height"] > 0 for bar in bars)
    assert fits(browser)


def test_the_chart_follows_the_light(browser: webdriver.Chrome, base: str) -> None:
    browser.get(base + WORLD_PAGE)
    by_day = js(browser, PICTURE)
    look_like(browser, 1280, dark=True)
    wait_until(lambda: js(browser, PICTURE) != by_day)


@pytest.mark.parametrize("path", ["/", WORLD_PAGE, "/worlds/nobody"])
@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_axe_finds_nothing(
    browser: webdriver.Chrome, base: str, path: str, width: int, dark: bool
) -> None:
    look_like(browser, width, dark=dark)
    browser.get(base + path)
    js(browser, files("axe_core_python").joinpath("axe.min.js").read_text())
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert [
        (each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]
    ] == []
    assert len(found["passes"]) > 10
    browser.get_log("browser")  # axe's own; and a page that is not found is told there, too


def test_the_page_brings_itself_up_to_date(browser: webdriver.Chrome, base: str) -> None:
    land(base, "first")
    browser.get(f"{base}/worlds/desk")
    js(browser, "window.kept = true; document.querySelector('#versions a').focus()")
    land(base, "second")
    js(browser, "document.dispatchEvent(new Event('visibilitychange'))")
    shown = "return document.getElementById('versions').textContent"  # at once: it is replaced
    wait_until(lambda: "second" in js(browser, shown))
    assert js(browser, "return window.kept") is True  # it was not loaded again
    assert js(browser, "return document.activeElement.closest('#versions') !== null")


def test_who_wants_peace_can_stop_it(browser: webdriver.Chrome, base: str) -> None:
    browser.get(base)
    button = browser.find_element(By.XPATH, "//button[text()='Pause']")
    button.click()
    assert button.text == "Resume"
    browser.get(base)  # and it is remembered
    browser.find_element(By.XPATH, "//button[text()='Resume']").click()


def test_what_producers_write_is_not_run(browser: webdriver.Chrome, base: str) -> None:
    land(base, HOSTILE, **{"X-Stage": HOSTILE, "X-Actor": HOSTILE})
    browser.get(base)
    row = browser.find_element(By.XPATH, "//tbody/tr[contains(., 'script')]")
    row.find_element(By.TAG_NAME, "a").click()
    assert browser.find_element(By.CSS_SELECTOR, "#versions tbody th").text == HOSTILE
    assert browser.title == "desk · riskhub"


def test_a_token_opens_the_pages_until_it_is_forgotten(
    browser: webdriver.Chrome, guarded: str
) -> None:
    browser.get(guarded + WORLD_PAGE)
    field = browser.find_element(By.ID, "token")
    assert js(browser, "return document.activeElement.id") == "token"
    field.send_keys("wrong\n")
    assert "no token" in browser.find_element(By.ID, "problem").text
    browser.get_log("browser")  # which tells the 401
    browser.find_element(By.ID, "token").send_keys(f"{TOKEN}\n")
    assert browser.find_element(By.TAG_NAME, "h1").text == "tech3"
    assert browser.current_url == guarded + WORLD_PAGE
    assert js(browser, "return document.cookie") == ""
    browser.get(guarded)
    browser.find_element(By.XPATH, "//button[text()='Log out']").click()
    browser.get(guarded)
    assert browser.find_element(By.ID, "token").is_displayed()
