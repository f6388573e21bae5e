"""The search page in a browser: words and pictures asked by keyboard, answers as text, keys, switches, and an end."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import picture, write_pictures
from fastness.registry import Registry
from fastness.registry.keys import issue
from fastness.registry.reindex import rebuild
from served import COLLECTION, PATIENCE, YES, Made, Service, release, serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian's package chromium has it")
HOSTILE = "<img src=x onerror=document.title='owned'>"
LAUNCH = (  # the browser reads what it is to do from 3 and tells on 4
    "import fcntl, os, sys; a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]);"
    "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
OUTSIDE = """[...document.body.querySelectorAll("*")].filter(e =>
  e.offsetParent && getComputedStyle(e).clipPath === "none"
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 99))"""


class Browser:
    """A Chromium without a window, driven over pipes by the DevTools protocol.

    Attributes:
        said: what went wrong in the page, refused requests excepted.
    """

    def __init__(self, executable: str, profile: Path) -> None:
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", LAUNCH, str(reads), str(writes), executable, *flags],
            pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self.said: list[str] = []
        self._rest, self._number, self._page = b"", 0, {}
        (page,) = [one for one in self.do("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.do("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._page = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Return what a command gave."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params, **self._page}
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while (told := self._told()).get("id") != self._number:
            params, event = told["params"], told["method"]
            refused = params.get("entry", {}).get("source") == "network"
            if event in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") and not refused:
                self.said.append(json.dumps(params))
        assert "error" not in told, (method, told["error"])
        return dict(told["result"])

    def _told(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], PATIENCE)[0], "the browser says nothing"
            more = os.read(self._in, 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def open(self, address: str, width: int = 1280) -> None:
        """Open a page in a tab of its own kind: nothing is kept of the one before."""
        self.wide(width)
        self.do("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def wide(self, width: int) -> None:
        """Make the window so wide."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def ask(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """Return what an expression is in the page as soon as it is true."""
        ended = time.monotonic() + PATIENCE
        while not (found := self.ask(expression)):
            assert time.monotonic() < ended, (expression, self.ask("document.body.innerText"), self.said)
            time.sleep(0.02)
        return found

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, and let go."""
        for kind, more in (("keyDown", {"text": text} if text else {}), ("keyUp", {})):
            self.do("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def enter(self) -> None:
        """Press Enter."""
        self.press("Enter", 13, "\r")

    def tab_to(self, selector: str) -> None:
        """Press Tab until the focus is there, and see that it shows."""
        for _ in range(30):
            self.press("Tab", 9)
            if self.ask(f"document.activeElement.matches({json.dumps(selector)})"):
                assert self.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"Tab never comes to {selector}")

    def type(self, text: str) -> None:
        """Type where the focus is."""
        self.do("Input.insertText", text=text)

    def fits(self) -> None:
        """See that nothing is wider than the window, wide or narrow, and that nothing went wrong."""
        for width in (1280, 390):
            self.wide(width)
            assert self.ask("document.documentElement.scrollWidth") <= width
            assert not self.ask(OUTSIDE), width
        self.wide(1280)
        assert not self.said, self.said

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    browser = Browser(CHROMIUM, tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def place(words: list[Made], photos: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions of words, and one of pictures whose collection's names are hostile."""
    folder = tmp_path_factory.mktemp("place")
    for path in write_pictures(folder / "items" / f"{HOSTILE}'\"&amp;", np.stack([picture(i) for i in range(30)])):
        path.rename(path.with_name(f"{path.stem}{HOSTILE}{'x' * 80}.png"))
    with Registry(folder / "registry") as registry:
        release(registry, words[:2], "words")
        release(registry, [photos], "photos", index=False)
        rebuild(registry, "photos@1", folder / "items", collection=COLLECTION, previews=True)
    return folder / "registry"


@pytest.fixture(scope="module")
def served(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of words that are searched."""
    with serving("words@production", place, tmp_path_factory.mktemp("w"), "--collection", COLLECTION) as service:
        yield service


def words_asked(browser: Browser, service: Service, words: str = "red rose") -> None:
    """Ask for words by the keyboard alone."""
    browser.open(service.url)
    browser.until("document.activeElement && !document.getElementById('ask').hidden")
    browser.tab_to("#words")
    browser.type(words)
    browser.enter()
    browser.until("document.querySelectorAll('.hit q').length === 12")


def test_words_by_keyboard_alone(browser: Browser, served: Service) -> None:
    words_asked(browser, served)
    found = served.ask("/v1/search", {"input": "red rose", "k": 12}).json
    shown = browser.ask("[...document.querySelectorAll('.hit')].map(e => e.innerText)")
    for text, hit in zip(shown, found["results"][0], strict=True):
        assert hit["id"] in text and f"{hit['similarity']:.3f}" in text and hit["metadata"]["label"] in text
    by = browser.ask("[...document.querySelectorAll('.by')].map(e => e.innerText).join()")
    assert f"{found['version']} with {found['index']}" in by
    sort = served.ask("/v1/classify", {"input": "red rose"}).json["results"][0]
    heading = browser.ask("document.querySelector('#answers h2').innerText")
    assert heading == "Nothing it knows" if sort["abstained"] else heading.startswith(sort["label"])
    facts = browser.ask("document.getElementById('facts').innerText")
    assert all(part in facts for part in ("words@production", found["version"], found["index"], "240", "onnx"))
    browser.fits()
    browser.tab_to("button.look")
    nearest = browser.ask("document.activeElement.innerText")
    browser.enter()  # what is like this one
    browser.until("document.querySelector('.hit .near span:last-child')?.innerText === '1.000'")
    assert browser.ask("document.getElementById('words').value") == nearest


def test_a_filter_and_what_it_says(browser: Browser, served: Service) -> None:
    words_asked(browser, served)
    browser.tab_to("#where")
    for asked, said in (
        ("price < 0", "No item fits price < 0."),
        ("prise < 3", "prise"),
        ("price < 3", "3 found"),
    ):
        browser.ask("document.activeElement.select()")
        browser.type(asked)
        browser.enter()
        browser.until(f"!asking && document.getElementById('answers').innerText.includes({json.dumps(said)})")
        browser.fits()
    message = served.ask("/v1/search", {"input": "red", "where": "prise < 3"}).json["error"]["message"]
    browser.ask("document.getElementById('where').value = 'prise < 3'; ask()")
    assert browser.until("document.querySelector('#answers [role=alert]')?.innerText") == message
    browser.ask("document.getElementById('words').value = ''; ask()")
    assert browser.until("document.getElementById('wrong').innerText") == "First give words."


def test_pictures_and_hostile_names(browser: Browser, place: Path, tmp_path: Path) -> None:
    (large,) = write_pictures(tmp_path / "large", picture(0, 1600)[None, :900])
    with serving("photos@production", place, tmp_path / "p", "--collection", COLLECTION) as service:
        browser.open(service.url)
        browser.until("document.activeElement && !document.getElementById('ask').hidden")
        browser.do("Page.setInterceptFileChooserDialog", enabled=True)
        browser.tab_to("#drop")
        browser.enter()
        node = browser.do("Runtime.evaluate", expression="document.getElementById('file')")["result"]["objectId"]
        browser.do("DOM.setFileInputFiles", files=[str(large)], objectId=node)
        browser.until("document.querySelectorAll('.hit').length === 12")
        browser.until("[...document.querySelectorAll('.hit img')].some(i => i.naturalWidth)")
        size = (
            "(async () => { const i = new Image(); i.src = picture; await i.decode(); return [i.width, i.height]; })()"
        )
        assert browser.ask(size) == [1024, 576]
        shown = browser.ask("[...document.querySelectorAll('.hit')].map(e => e.textContent).join()")
        assert shown.count(HOSTILE) == 24 and "'\"&amp;" in shown
        browser.fits()
        assert browser.ask("document.title") == "shop · fastness"
        assert not browser.ask("[...document.images].filter(i => i.getAttribute('src') === 'x').length")
        browser.ask("take(new File(['no picture'], 'notes.txt'))")
        assert "notes.txt is no picture" in browser.until("document.getElementById('wrong').innerText")


def test_a_key_is_asked_for(browser: Browser, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "registry")
    with Registry(tmp_path / "registry") as registry:
        _, token = issue(registry, "a shop")
    with serving("words@production", tmp_path / "registry", tmp_path / "w", "--collection", COLLECTION) as service:
        browser.open(service.url)
        browser.until("!document.getElementById('gate').hidden && document.activeElement.id === 'key'")
        assert browser.ask("document.getElementById('ask').hidden")
        browser.type("fst_no_key")
        browser.enter()
        message = service.ask("/v1/about").json["error"]["message"]
        assert message in browser.until("document.getElementById('key-wrong').innerText")
        browser.fits()
        browser.ask("document.activeElement.select()")
        browser.type(token)
        browser.enter()
        browser.until("document.activeElement.id === 'words'")
        browser.type("salt wave")
        browser.enter()
        browser.until("document.querySelectorAll('.hit q').length === 12")
        kept = "[Object.values(sessionStorage), localStorage.length, document.cookie]"
        assert browser.ask(kept) == [[token], 0, ""] and token not in browser.ask("document.body.innerHTML")
        browser.fits()
        browser.ask("document.getElementById('forget').click()")
        browser.until("!document.getElementById('gate').hidden && !sessionStorage.length")


def test_a_switch_a_trouble_and_the_end(browser: Browser, place: Path, words: list[Made], tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "registry")
    notices = "document.getElementById('notices').innerText"
    with Registry(tmp_path / "registry") as registry:
        folder = tmp_path / "w"
        with serving("words@production", tmp_path / "registry", folder, "--collection", COLLECTION) as service:
            words_asked(browser, service)
            registry.promote("words@2", "production", why=YES, override=True)
            two = service.until(lambda about: about["version"] == "words@2")["index"]
            browser.ask("watch()")
            browser.until(f"{notices}.includes('words@2 with {two} serves now')")
            browser.fits()
            browser.ask("document.querySelector('#notices button').click()")
            browser.until("document.getElementById('answers').innerText.includes('the answer before was of words@1')")
            assert not browser.ask(notices)
            registry.add(words[2].bundle, "words")  # of which no collection has an index
            registry.promote("words@3", "production", why=YES, override=True)
            trouble = service.until(lambda about: about["trouble"])["trouble"]
            browser.ask("watch()")
            browser.until(f"{notices}.includes('words@3 is wanted, words@2 serves')")
            assert trouble in browser.ask(notices)
            browser.fits()
        browser.ask("ask()")
        browser.until("document.querySelector('#answers h2').innerText === 'Not answered'")
        browser.ask("watch()")
        browser.until(f"{notices}.includes('The service does not answer.')")
        browser.fits()


def test_without_a_collection(browser: Browser, place: Path, tmp_path: Path) -> None:
    with serving("words@production", place, tmp_path / "w") as service:
        browser.open(service.url)
        browser.until("document.getElementById('answers').innerText.includes('Search is off')")
        command = browser.ask("document.querySelector('pre').innerText")
        assert f"{service.url}/v1/embeddings" in command
        browser.until("!document.getElementById('ask').hidden")
        browser.ask("document.getElementById('words').value = 'salt wave'; ask()")
        browser.until("!!document.querySelector('.odds')")
        browser.fits()
        row = browser.ask(r"row('a: 0.5\nthe name = x y\nc:')")  # how a table's row may be written down
        assert row == {"a": 0.5, "the name": "x y", "c": None} == browser.ask(f"row('{json.dumps(row)}')")
        headers = service.ask("/").headers
        assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in str(headers)


def test_it_is_small_and_fetches_nothing() -> None:
    page = Path(__file__).parents[1] / "src" / "fastness" / "serving" / "pages" / "search.html"
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 25 << 10
    assert "innerHTML" not in text and "://" not in text.replace("http://www.w3.org/2000/svg", "")
