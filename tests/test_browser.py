"""Chapter 08 in a real JupyterLab, in a real browser: it runs to its end, and its slider draws another sphere."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]   # other people's warnings

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
PATIENCE = 120   # seconds for the whole chapter in test mode, on a slow machine


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on loopback with settings of its own, over a copy of the chapter; yields its address."""
    (tmp_path / "nbs").mkdir()
    shutil.copy(ROOT / "nbs" / "08_stop_gradient.ipynb", tmp_path / "nbs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path / name.lower()) for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR")}
    for plugin, setting in {"notebook-extension/tracker": {"windowingMode": "none"},   # cells out of sight stay in the page
                            "apputils-extension/notification": {"fetchNews": "false"}}.items():
        file = Path(own["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(setting))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
               "--IdentityProvider.token=key", f"--ServerApp.root_dir={tmp_path}"]
    log = open(tmp_path / "lab.log", "w")
    server = subprocess.Popen(command, env={**os.environ, **own, "IN_TEST": "1"}, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token=key", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab did not start:\n{(tmp_path / 'lab.log').read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def run_all(page, address):
    """Open the chapter and run it; return when its first cell has run."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    page.wait_for_function("document.body.innerText.includes('| Idle')", timeout=60_000)   # the kernel is there
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    page.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]:")).first.wait_for(timeout=60_000)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here; install one, or set CHROMIUM to its path")
def test_the_slider_of_chapter_08_draws_another_sphere(lab, tmp_path):
    from playwright.sync_api import TimeoutError, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        try:
            chapter = f"{lab}/doc/tree/nbs/08_stop_gradient.ipynb?token=key&reset"
            try:
                run_all(page, chapter)
            except TimeoutError:                 # seen once: JupyterLab had lost what it asked of a kernel just begun
                run_all(page, chapter)
            slider = page.locator(".widget-slider .noUi-handle")
            slider.wait_for(timeout=PATIENCE * 1000)

            button = page.locator(".widget-toggle-button", has_text="between 0.2 and 0.8")
            button.click()
            page.wait_for_function("document.querySelectorAll('.widget-toggle-button.mod-active').length == 1")

            picture = page.locator(".widget-image").last
            slider.scroll_into_view_if_needed()
            readout, before = page.locator(".widget-readout"), picture.get_attribute("src")
            assert readout.inner_text() == "0"
            slider.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_function("document.querySelector('.widget-readout').innerText == '10'", timeout=20_000)
            page.wait_for_function("old => [...document.querySelectorAll('.widget-image')].at(-1).src != old",
                                   arg=before, timeout=20_000)
            assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
        except Exception:
            page.screenshot(path=str(tmp_path / "failed.png"))
            print(f"screenshot: {tmp_path / 'failed.png'}")
            raise
        finally:
            browser.close()


def test_the_chapter_of_the_browser_test_has_a_slider_and_a_prediction():
    source = json.dumps(json.loads((ROOT / "nbs" / "08_stop_gradient.ipynb").read_text(encoding="utf-8"))["cells"])
    assert "scrub(" in source and "predict(" in source
