"""If this breaks, a report does not open in a browser, reaches out of it, or is unreadable."""

import datetime
import itertools
import json
import pathlib
import shutil

import pytest

pytestmark = pytest.mark.slow
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window, driven by chromedriver; neither is ever downloaded."""
    webdriver = pytest.importorskip("selenium.webdriver")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program, driver = next(filter(None, found), None), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("Chromium and chromedriver are not both installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    with webdriver.Chrome(options=options, service=service) as opened:
        yield Browser(opened)


class Browser:
    """A page at a width, in light or dark."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path: pathlib.Path, *, width: int = 1400, dark: bool = False) -> None:
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(path.as_uri())
        self.settle()

    def settle(self) -> None:
        """Waits until what was asked for is on the screen."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
        )

    def run(self, script: str, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def requests(self) -> list[str]:
        """What was loaded since the page was opened, the page included."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"] == SENT]
        return [url for url in sent if not url.startswith("data:")]

    def mouse(self, kind: str, x: float, y: float, clicks: int = 1) -> None:
        """One event of the mouse, at a place of the window."""
        event = {"type": kind, "x": x, "y": y, "clickCount": clicks}
        event |= {} if kind == "mouseMoved" else {"button": "left"}
        if kind == "mouseMoved":
            event["buttons"] = clicks - 1
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def drag(self, chart: int, left: float, right: float) -> None:
        """From one share of a plot's width to another."""
        x, y, width = self.plot(chart)
        self.mouse("mousePressed", x + left * width, y)
        for part in (0.5, 1.0):
            self.mouse("mouseMoved", x + (left + part * (right - left)) * width, y, clicks=2)
        self.mouse("mouseReleased", x + right * width, y)
        self.settle()

    def plot(self, chart: int) -> tuple[float, float, float]:
        """Left edge, middle height and width of a chart's plot, which is scrolled into sight."""
        box = self.run(BOX, chart)
        return box["x"], box["y"], box["width"]

    def range(self, chart: int) -> list[float]:
        """The ticks under a chart, which tell what it shows."""
        return [float(text.replace(",", "")) for text in self.run(TICKS, chart)]


SENT = "Network.requestWillBeSent"
BOX = """(() => {
  const plot = document.querySelectorAll('.plot')[arguments[0]];
  plot.scrollIntoView({block: 'center'});
  const inner = plot.querySelector('svg svg').getBoundingClientRect();
  return {x: inner.x, y: inner.y + inner.height / 2, width: inner.width};
})()"""
TICKS = """[...document.querySelectorAll('.plot')[arguments[0]].querySelectorAll('text')]
  .filter((text) => text.getAttribute('text-anchor') !== 'end' || text.getAttribute('x') > 0)
  .map((text) => text.textContent)"""
LABELS = """[...document.querySelectorAll('.chart')]
  .filter((chart) => chart.textContent.toLowerCase().includes(arguments[0]))
  .map((chart) => [...chart.querySelectorAll('.plot text')]
    .filter((text) => text.getAttribute('text-anchor') === 'end' && text.getAttribute('x') < 0)
    .map((text) => text.textContent))"""
COLOURS = """((element) => {
  let ground = element;
  const colour = (of) => getComputedStyle(of).backgroundColor;
  while (colour(ground) === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  return [getComputedStyle(element).color, colour(ground)];
})(document.querySelector(arguments[0]))"""
OUTPUT = """[document.querySelectorAll('.chart')[arguments[0]].querySelector('.value').textContent,
  document.querySelectorAll('.chart')[arguments[0]].querySelector('.at').textContent]"""


@pytest.fixture
def page(folder, tmp_path):
    """Folders -> their report, in a file."""
    from simclr_tf.report.page import write_page
    from simclr_tf.report.reading import read_runs

    def write(*folders):
        path = tmp_path / "report.html"
        now = datetime.datetime.now(datetime.timezone.utc)
        path.write_bytes(write_page(read_runs([f.path for f in folders]), now))
        return path

    return write


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400, 2560])
@pytest.mark.parametrize("count", [1, 3])
def test_it_opens_alone_and_fits(browser, folder, page, width, dark, count):
    runs = [folder(f"a-run-with-a-long-name-{i}").complete() for i in range(count)]
    for run in runs:
        run.write("run.json", {"plan": {"data": "x" * 3000}, "starts": [{"command": "y" * 3000}]})
    path = page(*runs)
    browser.open(path, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    browser.settle()
    assert browser.requests() == [path.as_uri()]
    assert browser.driver.get_log("browser") == []
    assert browser.run("document.documentElement.scrollWidth") == width
    drawn = browser.run("document.querySelectorAll('.plot svg svg path[d^=M]').length")
    assert drawn == {1: 21, 3: 61}[count]  # three runs have one chance
    colours = browser.run(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    page_is_dark, text_is_dark = (sum(map(int, c[4:-1].split(","))) < 384 for c in colours)
    assert (page_is_dark, text_is_dark) == (dark, not dark)


def test_logarithmic_scales_name_what_they_show(browser, folder, page):
    """Within less than a decade too, and with a zero, which has no place on them."""
    lines = [{"step": n, "gradient_norm": y} for n, y in enumerate((1.2, 5.0, 0.0, 2.0), 1)]
    run = folder().complete().write("metrics.jsonl", lines)
    browser.open(page(run))
    [labels] = browser.run(LABELS, "gradient norm")
    assert len(labels) >= 3 and all(1.2 <= float(text) <= 5 for text in labels)
    ratios = [float(b) / float(a) for a, b in itertools.pairwise(labels)]
    assert max(ratios) < 1.1 * min(ratios)  # at equal distances, so of equal ratios


def test_text_can_be_told_from_its_ground(browser, folder, page):
    path = page(folder().complete())
    for dark in (False, True):
        browser.open(path, dark=dark)
        for selector in (
            "body",
            ".note",
            ".warnings h2",
            "a",
            ".warnings p",
            ".legend",
            "tbody th",
        ):
            colours = browser.run(COLOURS, selector)
            assert contrast(*colours) >= 4.5, (selector, dark, colours)


def contrast(*colours: str) -> float:
    """By the Web Content Accessibility Guidelines, which ask 4.5 of text."""
    lights = []
    for colour in colours:
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_a_drag_zooms_all_charts_and_a_double_click_goes_back(browser, folder, page):
    browser.open(page(folder().complete()))
    everything = [browser.range(chart) for chart in (0, 5)]
    assert min(everything[0]) <= 10 and max(everything[0]) == 40
    browser.drag(0, 0.25, 0.5)  # of steps 2 to 40
    for chart in (0, 5):
        assert min(browser.range(chart)) >= 11.5 and max(browser.range(chart)) <= 21
    reset = "document.querySelector('#tools > button').disabled"
    assert not browser.run(reset)
    x, y, width = browser.plot(5)
    for clicks in (1, 2):
        browser.mouse("mousePressed", x + width / 3, y, clicks)
        browser.mouse("mouseReleased", x + width / 3, y, clicks)
    browser.settle()
    assert [browser.range(chart) for chart in (0, 5)] == everything and browser.run(reset)
    assert browser.driver.get_log("browser") == []


def test_the_mouse_reads_numbers_off_the_curves(browser, folder, page):
    browser.open(page(folder().complete()))
    assert browser.run(OUTPUT, 0) == ["2", ""]  # 6 - 40 / 10, the last
    x, y, width = browser.plot(0)
    browser.mouse("mouseMoved", x + width * (12.4 - 2) / 38, y)  # reports are every 2 steps
    browser.settle()
    assert browser.run(OUTPUT, 0) == ["4.8", "step 12"]  # 6 - 12 / 10
    assert browser.run(OUTPUT, 1)[0] == "12.00 %"
    browser.run("document.querySelector('#tools span button:last-child').click()")
    browser.settle()
    assert max(browser.range(0)) == 2  # epochs


def test_keys_read_and_leave_a_chart(browser, folder, page):
    from selenium.webdriver.common.keys import Keys

    browser.open(page(folder().complete()))
    browser.drag(0, 0.25, 0.5)
    plot = browser.driver.find_element("class name", "plot")
    plot.send_keys(Keys.ESCAPE)
    browser.settle()
    assert max(browser.range(0)) == 40
    plot.send_keys(Keys.ARROW_LEFT)
    browser.settle()
    assert browser.run(OUTPUT, 0) == ["2.2", "step 38"]


def test_a_finger_zooms_too(browser, folder, page):
    browser.open(page(folder().complete()), width=390)
    cdp = browser.driver.execute_cdp_cmd
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": True})
    x, y, width = browser.plot(0)
    for kind, part in (("touchStart", 0.25), ("touchMove", 0.4), ("touchMove", 0.5)):
        points = [{"x": x + part * width, "y": y}]
        cdp("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    cdp("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.settle()
    assert min(browser.range(0)) >= 11 and max(browser.range(0)) <= 22


def test_a_legend_hides_a_curve(browser, folder, page):
    browser.open(page(folder().complete()))
    paths = "document.querySelectorAll('.plot')[1].querySelectorAll('svg svg path').length"
    assert browser.run(paths) == 2
    browser.run("document.querySelectorAll('.chart')[1].querySelector('.legend button').click()")
    assert browser.run(paths) == 1


def test_hostile_text_does_nothing(browser, folder, page):
    attack = "</script><script>window.hurt = 1</script><img src=http://a.example onerror=hurt=1>"
    run = folder().complete()
    run.write("config.gin", f"a.b = {attack}\n").write("run.json", {"plan": {attack: attack}})
    run.write("metrics.jsonl", [{"step": 1, attack: 1.0}, {"step": 2, attack: 2.0}])
    path = page(run)
    browser.open(path)
    assert browser.run("window.hurt") is None
    assert browser.run("document.scripts.length") == 2
    assert browser.requests() == [path.as_uri()] and browser.driver.get_log("browser") == []


def test_the_page_may_load_and_run_nothing_else(browser, folder, page):
    path = page(folder().complete())
    browser.open(path)
    browser.requests()
    tried = browser.driver.execute_async_script("""
      const [done, seen] = [arguments[0], []];
      addEventListener('securitypolicyviolation', (e) => seen.push(e.effectiveDirective));
      new Image().src = 'http://127.0.0.1:9/picture.png';
      const script = document.createElement('script');
      script.textContent = 'window.hurt = 1';
      document.body.append(script);
      const tell = () => done([seen.sort(), window.hurt]);
      fetch('http://127.0.0.1:9/').catch(() => setTimeout(tell, 200));
    """)
    assert tried == [["connect-src", "img-src", "script-src-elem"], None]


def test_an_empty_run_draws_nothing_and_does_not_complain(browser, folder, page):
    browser.open(page(folder().write("metrics.jsonl", "")))
    assert browser.driver.get_log("browser") == []
    odd = folder("odd").write(
        "metrics.jsonl", '{"step": 1, "loss": NaN, "flat": 0, "far": -1e300}\n'
    )
    browser.open(page(odd))
    assert browser.driver.get_log("browser") == []
    assert "NaN" not in browser.run("document.querySelector('main').innerHTML")
