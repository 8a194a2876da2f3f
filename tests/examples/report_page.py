"""What a report does in a browser: nothing of the console's, no outside resource, slider, hover, keys, phone and desk.

usage: report_page.py PAGE [--stories] [--seconds S]   --stories: it has coloured stories; S: it is drawn by then
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from page_picture import Page, find_chromium  # noqa: E402

TIP = "document.querySelector('.tip').hidden ? '' : document.querySelector('.tip').textContent"


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def check_plots(page):
    if not page.value("document.querySelectorAll('.plot svg').length"):
        return
    page.point_at(".over .plot svg", 0.7, 0.5)
    text = page.value(TIP)
    expect("tokens" in text and ":" in text, f"a plot shows no values under the pointer, but {text!r}")
    page.value("document.querySelector('.over .plot svg').focus({focusVisible: true})")
    page.press("ArrowRight", 39)
    other = page.value(TIP)
    expect(other and other != text, "the arrow keys do not move through a plot")
    shown = "[...document.querySelectorAll('.over > .grid-of')].findIndex(g => getComputedStyle(g).display !== 'none')"
    expect(page.value(shown) == 0, "not the first axis at first")
    page.value("document.querySelector('label[for=over-1]').click()")
    expect(page.value(shown) == 1, "the axis is not changed")
    if page.value("document.querySelectorAll('.map svg').length"):
        page.point_at(".map svg", 0.5, 0.3)
        text = page.value(TIP)
        expect("expert" in text and "even share" in text, f"a map shows no share under the pointer, but {text!r}")


def check_stories(page):
    colours = "[...document.querySelectorAll('.traced .token')].map(t => t.className).join()"
    layers = page.value("+document.querySelector('.traced input[type=range]').max") + 1
    expect(layers > 1, "the story has one layer")
    before = page.value(colours)
    page.box(".traced input[type=range]")
    page.value("document.querySelector('.traced input[type=range]').focus()")
    page.press("ArrowRight", 39)
    expect(page.value(colours) != before, "the slider does not change the colours")
    expect(page.value("document.querySelector('.traced output').textContent") == "layer 1", "the slider's layer")
    page.point_at(".traced .token:nth-child(3)")
    text = page.value(TIP)
    expect("gate" in text and "layer 1" in text, f"a token shows no gates under the pointer, but {text!r}")
    page.value("document.querySelector('.traced .token').focus()")
    first = page.value(TIP)
    page.press("ArrowRight", 39)
    expect(first and page.value(TIP) and page.value("document.activeElement.matches('.token:nth-child(2)')"),
           "the arrow keys do not move through a story")
    page.value("document.querySelector('.experts button').click()")
    expect(page.value("document.querySelectorAll('.story.one').length") == 1, "a button does not show one expert")


def main():
    if not find_chromium():
        print("no Chromium, so the page was not opened")
        return
    arguments = sys.argv[1:]
    seconds = float(arguments[arguments.index("--seconds") + 1]) if "--seconds" in arguments else None
    for width, dark in ((1280, False), (390, True)):
        with Page(arguments[0], width=width, dark=dark) as page:
            expect(seconds is None or page.seconds < seconds, f"opens in {page.seconds:.2f} s")
            expect(page.value("document.documentElement.scrollWidth") <= width, f"is wider than {width} pixels")
            expect(not page.value("window.hacked"), "a text ran as a script")
            check_plots(page)
            if "--stories" in arguments:
                check_stories(page)
            outside = [url for url in page.requests if not url.startswith(("file:", "data:"))]
            expect(not outside, f"asks for {outside}")
            expect(not page.errors, f"the console says {page.errors}")
            print(f"{width} pixels: opened in {page.seconds:.2f} s")


main()
