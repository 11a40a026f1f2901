"""A headless Chromium with the status page, as a person sees it."""

import base64
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.patience import PATIENCE_S
from tests.server import ROOT

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1")

#: Barriers that keep people from using a page.
_SERIOUS = ("serious", "critical")


class Browser:
    """One window of a width, in light or dark, at the page of the server at ``address``."""

    def __init__(self, driver: webdriver.Chrome, address: str, width: int) -> None:
        self.driver = driver
        self._url = f"http://{address}/"
        self._width = width
        self._resize(900)

    def _resize(self, height: int) -> None:
        size = {"width": self._width, "height": height, "deviceScaleFactor": 1, "mobile": self._width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self) -> None:
        """Load the page, and wait for what it shows first."""
        self.driver.get(self._url)
        self.wait(lambda: self.shown("#dashboard") or self.shown("#login") or self.shown("#trouble"))

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text, whether or not it is seen."""
        found = self.find(selector).get_attribute("textContent")
        assert found is not None
        return found

    def shown(self, selector: str) -> bool:
        return any(found.is_displayed() for found in self.all(selector))

    def wait(self, condition: Callable[[], object]) -> object:
        """Return the first true value of ``condition``."""
        return WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.1).until(lambda _: condition())

    def click(self, selector: str) -> None:
        found = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def model(self, name: str) -> WebElement:
        """Open a model of the list, and return its element."""
        for model in self.all("details.model"):
            if model.find_element(By.TAG_NAME, "h3").text == name:
                if model.get_attribute("open") is None:
                    summary = model.find_element(By.TAG_NAME, "summary")
                    self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", summary)
                    summary.click()
                return model
        raise AssertionError(f"no model {name!r}")

    def figure(self, title: str) -> str:
        """Return the value that a chart shows for its first line."""
        for chart in self.all("figure"):
            if (chart.get_attribute("textContent") or "").startswith(title):
                return chart.find_element(By.CSS_SELECTOR, ".legend b").get_attribute("textContent") or ""
        raise AssertionError(f"no chart {title!r}")

    def pixels(self, title: str) -> str:
        """Return what the canvas of a chart shows."""
        script = """
            const figures = [...document.querySelectorAll("figure")];
            const figure = figures.find((each) => each.textContent.startsWith(arguments[0]));
            return figure.querySelector("canvas").toDataURL();
        """
        found: str = self.driver.execute_script(script, title)
        return found

    def console(self) -> list[str]:
        """Return the messages of the console since the last call."""
        return [f"{entry['level']} {entry['message']}" for entry in self.driver.get_log("browser")]

    def barriers(self) -> list[str]:
        """Return what axe-core finds that keeps people from using the page, and where."""
        (script,) = (ROOT / ".tools" / "axe").glob("axe-*.min.js")
        # By the driver, as the policy of the page allows no scripts of others.
        self.driver.execute_script(script.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script("axe.run(document).then(arguments[0])")
        return [
            f"{each['id']} ({each['impact']}): {node['html']}"
            for each in found["violations"]
            if each["impact"] in _SERIOUS
            for node in each["nodes"]
        ]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def picture(self, path: Path) -> None:
        """Save a picture of the whole page."""
        # In a window that is as high: what is outside of one may not be drawn.
        height = self.driver.execute_script("scrollTo(0, 0); return document.documentElement.scrollHeight")
        self._resize(height)
        drawn = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        self.driver.execute_async_script(drawn)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browsing(address: str, *, scheme: str = "light", width: int = 1280) -> Iterator[Browser]:
    """Start a browser, and end it whatever happens."""
    options = webdriver.ChromeOptions()
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(PATIENCE_S)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
        yield Browser(driver, address, width)
    finally:
        driver.quit()
