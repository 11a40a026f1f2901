"""The status page in a real browser."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from inferd import demo
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests.page.browser import Browser, browsing
from tests.page.conftest import HOSTILE, load
from tests.server import serving

_SEND = "details[open] form.try button.primary"


@pytest.fixture(scope="module")
def page(server):
    with browsing(server.rest) as browser:
        yield browser


@pytest.fixture
def browser(page):
    """The page as it is opened; at the end nothing has been logged to the console."""
    page.open()
    yield page
    assert page.console() == []


def classified(browser: Browser, number: int) -> str:
    """Send example ``number`` of the digits, and return the answer."""
    model = browser.model("digits")
    form = model.find_element(By.CSS_SELECTOR, "form.try")
    browser.wait(lambda: form.find_element(By.CSS_SELECTOR, ".primary").is_enabled())
    Select(form.find_element(By.CSS_SELECTOR, "select")).select_by_value(str(number))
    browser.wait(lambda: form.find_element(By.CSS_SELECTOR, ".primary").is_enabled())
    browser.click(_SEND)
    browser.wait(lambda: form.find_elements(By.CSS_SELECTOR, ".single"))
    return form.find_element(By.CSS_SELECTOR, ".single").text


def test_shows_the_models(browser):
    """Each with its versions and their states; a name is never more than a text."""
    names = [heading.text for heading in browser.all("details.model h3")]
    assert names == [HOSTILE, "broken", "digits", "spare"]
    assert browser.driver.title.startswith("inferd on ")
    assert browser.all("details.model img") == []
    assert "v2 ready" in browser.model("digits").text
    assert "batching proven" in browser.model("digits").text
    assert "v1 failed" in browser.model("broken").text
    assert "not loaded" in browser.model("spare").text


def test_charts_move_under_load(server, browser):
    """Numbers and lines, without loading the page again."""
    browser.wait(lambda: browser.figure("Requests") == "0")
    before = browser.pixels("Requests")
    with load(server.rest):
        browser.wait(lambda: browser.figure("Requests") != "0" and "ms" in browser.figure("Latency"))
    assert browser.pixels("Requests") != before
    browser.wait(lambda: browser.figure("Requests") == "0")


def test_form_classifies_digits(browser):
    """The picture that it shows, and another one; with the time that it took."""
    assert [classified(browser, number) for number in (3, 7)] == ["3", "7"]
    assert "as seen by this page" in browser.text(".timing")
    assert "run" in browser.text(".timing")
    assert "label is 7" in browser.text("#news")
    canvas = browser.find(".picture canvas")
    assert canvas.get_attribute("aria-label").startswith("X as a picture of 8 ")


def test_inputs_can_be_edited(browser):
    """As text, with several rows; the error of a wrong one says what was expected."""
    classified(browser, 1)
    area = browser.find("details[open] form.try textarea")
    area.clear()
    area.send_keys("[1, 2]")
    area.send_keys(Keys.CONTROL, Keys.ENTER)
    browser.wait(lambda: "expected 64 for each row elements, got 2" in browser.text("details[open] form.try .problem"))
    rows = [value for digit in (4, 6) for value in demo.samples().inputs[digit].tolist()]
    browser.driver.execute_script("arguments[0].value = arguments[1]", area, str(rows))
    area.send_keys(Keys.CONTROL, Keys.ENTER)
    browser.wait(
        lambda: (
            browser.all("details[open] form.try .values") and browser.text("details[open] form.try .values") == "4, 6"
        )
    )


def test_pictures_can_be_painted(browser):
    """With the pointer; what is painted is what is sent."""
    classified(browser, 0)
    browser.click("details[open] .picture button")
    assert set(browser.find("details[open] form.try textarea").get_attribute("value")) == set("[0,]")
    browser.click(".picture canvas")
    assert "16" in browser.find("details[open] form.try textarea").get_attribute("value")


def test_loads_and_unloads_a_model(browser):
    """Unloading is asked about first; each outcome is said to screen readers."""

    def press(text: str) -> None:
        path = f"//details[.//h3[text()='spare']]//button[text()='{text}']"
        browser.wait(lambda: browser.driver.find_elements(By.XPATH, path))
        button = browser.driver.find_element(By.XPATH, path)
        browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    browser.model("spare")
    press("Load")
    browser.wait(lambda: "v1 ready" in browser.model("spare").text)
    for answer in ("no", "yes"):
        assert "v1 ready" in browser.model("spare").text
        press("Unload")
        assert browser.find("dialog").is_displayed()
        browser.click(f"dialog button[value={answer}]")
    browser.wait(lambda: "v1 ready" not in browser.model("spare").text)


def test_labels_are_added_and_removed(browser):
    """At the version that is chosen."""
    model = browser.model("digits")
    Select(model.find_element(By.CSS_SELECTOR, ".about select")).select_by_value("1")
    field = model.find_element(By.CSS_SELECTOR, ".labels input")
    field.send_keys("stable", Keys.ENTER)
    browser.wait(lambda: [chip.text.split()[0] for chip in browser.all(".chip")] == ["stable"])
    browser.click(".chip button")
    browser.wait(lambda: browser.all(".chip") == [])


def test_works_with_the_keyboard(browser):
    """From the link that skips the header to the answer of a model."""
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the content"
    summary = browser.all("details.model summary")[2]
    browser.driver.execute_script("arguments[0].focus()", summary)
    summary.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.shown("details[open] form.try textarea"))
    browser.find("details[open] form.try textarea").send_keys(Keys.CONTROL, Keys.ENTER)
    browser.wait(lambda: browser.shown(".single"))


def test_numbers_are_there_as_a_table(browser):
    """For those who do not see the charts."""
    browser.click("#numbers summary")
    browser.wait(lambda: browser.all("#numbers tbody tr"))
    assert "Requests: answered" in browser.text("#numbers thead")
    label = browser.find("figure .plot").get_attribute("aria-label")
    assert label.startswith("Requests per second, answered: now")


@pytest.mark.parametrize("width", [1280, 375, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_has_no_barriers(server, scheme, width):
    """For any width and theme, with an open model and an answer; nothing is cut off at the side."""
    with browsing(server.rest, scheme=scheme, width=width) as browser:
        browser.open()
        classified(browser, 5)
        browser.click("#numbers summary")
        browser.wait(lambda: browser.all("#numbers tbody tr"))
        assert browser.barriers() == []
        assert browser.overflow() == 0
        assert browser.console() == []


def test_refused_token_shows_hint(models, tmp_path):
    """Without a token, with a wrong one, and with the right one; it is gone with the tab."""
    token = StoredToken(name="ann", sha256=hash_token("inferd_right"), expires=None)
    (tmp_path / "tokens.yaml").write_text(format_entry(token))
    settings = ("--set", f"security.tokens_file={tmp_path}/tokens.yaml")
    with serving(models / "digits", *settings) as server, browsing(server.rest) as browser:
        browser.open()
        assert not browser.shown("#dashboard")
        assert "asks for a token: expected an authorization header" in browser.text("#login-hint")
        browser.find("#token").send_keys("inferd_wrong", Keys.ENTER)
        browser.wait(lambda: "refused the token" in browser.text("#login-hint"))
        browser.find("#token").send_keys("inferd_right", Keys.ENTER)
        browser.wait(lambda: browser.shown("#dashboard"))
        assert "token:ann" in browser.text("#subtitle")
        assert browser.barriers() == []
        browser.click("#sign-out")
        browser.wait(lambda: browser.shown("#login"))
        assert not browser.shown("#dashboard")
        assert all("401 (Unauthorized)" in message for message in browser.console())


def test_says_when_the_server_does_not_answer(models):
    """And shows the numbers again when it does."""
    with serving(models / "digits") as server, browsing(server.rest) as browser:
        browser.open()
        server.stop()
        browser.wait(lambda: browser.shown("#trouble"))
        assert "does not answer" in browser.text("#trouble")
