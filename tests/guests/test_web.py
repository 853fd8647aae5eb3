# SPDX-License-Identifier: GPL-2.0-or-later
"""The web page in a real browser, with Debian's kernel behind it: what a person does, from the URL to the power-off."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from splitvisor.guests.fetch import MARKER
from tests.gateway_process import GatewayProcess, needs_xterm
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, ROOT, Guests

ARTIFACTS = ROOT / "build/test-artifacts"
PICTURES = os.environ.get("SPLITVISOR_PICTURES")
"""Where `./dev pictures` keeps the screenshots, for the documentation."""
STEP_SECONDS = 30.0
PROMPT = "guest# "
NAME = "debian" if PICTURES else f"web-{os.getpid()}"
"""This user may have more VMs, and they are on the page too."""

_T = TypeVar("_T")

pytestmark = needs_xterm


class Page:
    """The page, as whoever looks at it knows it."""

    def __init__(self, driver: webdriver.Chrome, show: Callable[[str], None]) -> None:
        self.driver = driver
        self._show = show

    def find(self, selector: str) -> WebElement:
        """Return the first element; waits until it is there to be seen."""
        return self.until(lambda: next(element for element in self._all(selector) if element.is_displayed()), selector)

    def button(self, text: str) -> WebElement:
        """Return the button with a text, once it can be pressed."""

        def look() -> WebElement:
            buttons = (each for each in self._all("button") if each.text == text)
            return next(each for each in buttons if each.is_displayed() and each.is_enabled())

        return self.until(look, text)

    def node(self, path: str) -> WebElement:
        """Return the node of the device tree."""
        return self.find(f"[role=treeitem][data-path='{path}']")

    def terminal(self) -> str:
        """Return what the terminal shows, one line each."""
        return "\n".join(row.text for row in self._all(".xterm-rows > div"))

    def until(self, look: Callable[[], _T], what: str = "") -> _T:
        """Return what look() returns once that is something."""
        deadline = time.monotonic() + STEP_SECONDS
        while True:
            with suppress(StopIteration, NoSuchElementException, StaleElementReferenceException):
                found = look()
                if found:
                    return found
            if time.monotonic() > deadline:
                self.picture("failed")
                raise AssertionError(f"waited for {what or look} in vain; the terminal shows:\n{self.terminal()}")

    def shows(self, text: str) -> None:
        """Wait until the terminal shows a text."""
        self.until(lambda: text in self.terminal(), text)

    def type(self, text: str) -> None:
        """Type on the terminal."""
        self.driver.find_element(By.CSS_SELECTOR, ".xterm-helper-textarea").send_keys(text)

    def picture(self, name: str) -> None:
        """Keep a screenshot, and print its path."""
        directory = Path(PICTURES) if PICTURES and name != "failed" else ARTIFACTS
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"web-{name}.png"
        self.driver.save_screenshot(str(path))
        self._show(f"screenshot: {path}")

    def errors(self) -> list[Any]:
        """Return what the browser has complained about, such as scripts that fail and what the policy forbids."""
        log: Any = self.driver
        return [entry for entry in log.get_log("browser") if entry["level"] == "SEVERE"]

    def _all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> Iterator[Page]:
    browser, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver_program is None:
        pytest.skip("there is no browser; it is in the packages chromium and chromium-driver")
    profile = tempfile.mkdtemp(prefix="sv-chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1280,800", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")  # It refuses to run as root otherwise.
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_program))

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    yield Page(driver, show)
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def gateway(short_path: Path) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(short_path)
    yield gateway
    assert gateway.end() == 0


def test_a_person_works_with_a_guest_in_the_browser(run: Run, guests: Guests, page: Page, gateway: GatewayProcess) -> None:
    images = ("--kernel", str(guests.kernel), "--initrd", str(guests.shell))
    console = run("--name", NAME, *images, "--append", "console=hvc0 panic=-1")
    console.expect(MARKER, BOOT_SECONDS)
    console.expect(PROMPT)

    # The URL signs in; what came before is there; `splitvisor run` types, so this page must ask for that.
    page.driver.get(gateway.start_url)
    page.find(f"#vms a[data-vm='{NAME}']").click()
    page.shows(PROMPT)
    assert "token" not in page.driver.current_url
    assert page.find("#console-mode").text == "read only"
    page.until(lambda: "someone else writes:" in page.find("#console-holder").text)
    page.button("Take over").click()
    page.until(lambda: page.find("#console-mode").text == "you type")

    page.type("echo result $((6 * 7)); uname -m" + Keys.ENTER)
    page.shows("result 42")
    page.shows("ppc64le")
    page.picture("console")

    # Much output at once arrives whole, at the end of the terminal.
    page.type("seq 1 2000; echo the end" + Keys.ENTER)
    page.shows("2000\nthe end")

    # The counters move: the guest prints, and its timer ticks.
    page.find("#tab-status").click()

    def counted(call: str) -> int:
        row = next(row for row in page.driver.find_elements(By.CSS_SELECTOR, "table[aria-label=Calls] tbody tr")
                   if row.text.startswith(f"{call} "))  # fmt: skip
        return int(row.find_elements(By.TAG_NAME, "td")[2].text.replace(",", ""))

    before = page.until(lambda: counted("H_CEDE"))
    page.until(lambda: counted("H_CEDE") > before, "more H_CEDE")
    page.until(lambda: page.find("#total-rate").text.endswith("traps/s"))
    assert counted("H_PUT_TERM_CHAR") > 500
    page.picture("status")

    # The device tree folds, by mouse and by keyboard.
    page.find("#tab-tree").click()
    chosen = page.node("/chosen")
    assert chosen.get_attribute("aria-expanded") == "false"
    chosen.find_element(By.CSS_SELECTOR, ".label").click()
    page.until(lambda: 'bootargs = "console=hvc0 panic=-1";' in chosen.text, "bootargs")
    assert chosen.get_attribute("aria-expanded") == "true"
    chosen.send_keys(Keys.ARROW_LEFT)
    page.until(lambda: "bootargs" not in chosen.text, "the fold")
    chosen.send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: "bootargs" in chosen.text, "the unfolding")
    page.picture("tree")

    # What the firmware and the guest have made of the seed.
    page.button("Compare").click()
    page.until(lambda: "(seed) to " in page.find("#tree-status").text)
    assert page.driver.find_elements(By.CSS_SELECTOR, ".diff .added")
    assert "/chosen" in [path.text for path in page.driver.find_elements(By.CSS_SELECTOR, ".diff .path")]
    page.picture("diff")

    # An operator's controls.
    page.button("Pause").click()
    page.until(lambda: page.find("main .state").text.endswith("paused"))
    page.button("Resume").click()
    page.until(lambda: page.find("main .state").text.endswith("running"))

    # Coming back to the console finds it as it was; the guest ends as from any terminal.
    page.find("#tab-console").click()
    page.shows("the end")
    assert page.errors() == []
    page.type("poweroff" + Keys.ENTER)
    assert console.wait() == 0
    page.until(lambda: not page.driver.find_elements(By.CSS_SELECTOR, f"#vms a[data-vm='{NAME}']"), "a list without it")


def test_without_a_token_there_is_only_a_form(run: Run, page: Page, gateway: GatewayProcess) -> None:
    run("--name", NAME)
    page.driver.get(gateway.origin)
    field = page.find("#token")
    field.send_keys("guessed" + Keys.ENTER)
    page.until(lambda: page.find("#token") != field)
    page.find("#token").send_keys(gateway.token + Keys.ENTER)
    page.find(f"#vms a[data-vm='{NAME}']")
    page.button("Sign out").click()
    page.find("#token")


PASTE = """
const data = new DataTransfer();
data.setData("text/plain", "x".repeat(arguments[0]));
const paste = new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
document.querySelector(".xterm-helper-textarea").dispatchEvent(paste);
"""


def test_a_paste_that_does_not_fit_is_counted_and_can_be_dropped(run: Run, page: Page, gateway: GatewayProcess) -> None:
    console = run("--name", NAME)
    console.expect("Type help")
    page.driver.get(gateway.start_url)
    page.find(f"#vms a[data-vm='{NAME}']").click()
    page.shows("Type help")
    page.button("Take over").click()
    page.until(lambda: page.find("#console-mode").text == "you type")
    assert console.splitvisor("vm", "pause", NAME).returncode == 0
    page.driver.execute_script(PASTE, 1_300_000)
    page.shows("1048576 bytes taken, 251424 not")
    page.button("Drop unread input").click()
    page.shows("1048576 bytes of input dropped")
    page.until(lambda: page.find("#console-mode").text == "you type")
    page.type("help" + Keys.ENTER)
    assert console.splitvisor("vm", "resume", NAME).returncode == 0
    page.shows("this list")
    assert page.errors() == []
    page.type("off" + Keys.ENTER)
    assert console.wait() == 0
