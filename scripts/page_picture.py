#!/usr/bin/env python3
"""Pictures of a page by a headless Chromium, which it drives through a pipe: Python's own library is enough.

  scripts/page_picture.py runs/demo.html picture.png [--width 1280] [--dark] [--select '#training'] [--script JAVASCRIPT]
"""
import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time


def find_chromium():
    """The path of a Chromium, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    return None


TWO_FRAMES = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"


class Page:
    """One page in a browser of its own. `errors` has what the console said of errors, and exceptions."""

    def __init__(self, file, width=1280, height=900, dark=False, timeout=60):
        self.timeout, self.errors, self.number, self.received = timeout, [], 0, b""
        self.folder = tempfile.mkdtemp(prefix="page-")
        to_browser, self.send_end = os.pipe()
        self.receive_end, from_browser = os.pipe()

        def give_pipes():  # Chromium reads descriptor 3 and writes to 4
            one, other = os.dup(to_browser), os.dup(from_browser)
            os.dup2(one, 3)
            os.dup2(other, 4)

        command = [find_chromium(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
                   "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
                   f"--user-data-dir={self.folder}", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=give_pipes, close_fds=False,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.requests = []
        start = time.monotonic()
        self.call("Page.navigate", url=pathlib.Path(file).resolve().as_uri())
        while not self.value("document.readyState === 'complete'"):
            time.sleep(0.01)
        self.value(TWO_FRAMES)  # it is drawn
        self.seconds = time.monotonic() - start

    session = None

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.send_end, data):]
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.note(answer)

    def receive(self):
        end = time.monotonic() + self.timeout
        while b"\0" not in self.received:
            if not select.select([self.receive_end], [], [], max(0, end - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            piece = os.read(self.receive_end, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self.received += piece
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(about["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.errors.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.errors.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def value(self, expression):
        """What a JavaScript expression gives; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", expression))
        return result["result"].get("value")

    def box(self, selector):
        """The rectangle of an element in the page, which is scrolled into the window."""
        return self.value(f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();
            return {{x: b.x, y: b.y, width: b.width, height: b.height, top: b.y + scrollY}}; }})()""")

    def point_at(self, selector, x=0.5, y=0.5):
        """Moves the pointer to a place of an element, from its left and top edge."""
        box = self.box(selector)
        self.value(TWO_FRAMES)  # scrolling has ended
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box["x"] + box["width"] * x,
                  y=box["y"] + box["height"] * y)

    def press(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, file, selector=None, whole=True):
        """Writes a PNG of the page, or of an element."""
        options = {"format": "png", "captureBeyondViewport": whole}
        if selector:
            box = self.box(selector)
            options["clip"] = {"x": box["x"], "y": box["top"], "width": box["width"], "height": box["height"], "scale": 1}
        elif whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        pathlib.Path(file).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.send_end)
        os.close(self.receive_end)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main():
    parser = argparse.ArgumentParser(description="Makes a picture of a page.")
    parser.add_argument("page")
    parser.add_argument("picture")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--select", help="an element's CSS selector; default: the whole page")
    parser.add_argument("--script", help="JavaScript that runs before")
    arguments = parser.parse_args()
    if not find_chromium():
        parser.exit(1, "page_picture: there is no Chromium; on Debian: apt-get install chromium\n")
    with Page(arguments.page, arguments.width, arguments.height, arguments.dark) as page:
        if arguments.script:
            page.value(arguments.script)
        page.picture(arguments.picture, arguments.select)
        for error in page.errors:
            print(f"page_picture: {error}")


if __name__ == "__main__":
    main()
