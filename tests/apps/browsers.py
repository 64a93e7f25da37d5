"""Headless chromium, for the pages of the examples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.programs import need, need_package

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SWITCHES = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WIDEST = "Math.max(...[...document.querySelectorAll('html, .table')].map(each => each.scrollWidth))"
"""The width of the page, or of what scrolls sideways within it if that is more."""
FAULTS = """() => {
  const found = [], all = selector => [...document.querySelectorAll(selector)];
  const check = (rule, wrong) => wrong.forEach(each => found.push(rule + ": " + each.outerHTML.slice(0, 90)));
  if (!document.documentElement.lang || !document.title) found.push("html: lang and title");
  for (const landmark of ["main", "header", "nav"]) if (all(landmark).length < 1) found.push("landmark: " + landmark);
  if (all("h1").length !== 1) found.push("h1: one");
  check("scrollable-region-focusable", all("*").filter(each => each.scrollWidth > each.clientWidth + 1 && each.tabIndex < 0
    && ["auto", "scroll"].includes(getComputedStyle(each).overflowX)));
  check("th: scope", all("th").filter(each => !each.scope));
  check("table: caption", all("table").filter(each => !each.caption || !each.caption.textContent));
  check("label", all("input:not([type=hidden]), select").filter(each => !each.labels.length));
  check("name", all("a, button").filter(each => !each.textContent.trim() && !each.ariaLabel));
  check("svg: role and name", all("svg").filter(each => !each.ariaHidden && !(each.getAttribute("role") && each.ariaLabel)));
  check("region: name", all("section, [role=region], nav").filter(each => !each.ariaLabel));
  check("id: unique", all("[id]").filter(each => all("#" + CSS.escape(each.id)).length > 1));
  const parse = text => text.match(/[\\d.]+/g).map(Number), light = c => {
    const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, back = dark ? [18, 18, 18] : [255, 255, 255];
  check("contrast", all(".state, .summary, dt, caption, th, td").filter(each => {
    const style = getComputedStyle(each), alpha = Number(style.opacity);
    const front = parse(style.color).slice(0, 3).map((v, i) => v * alpha + back[i] * (1 - alpha));
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    return (a + .05) / (b + .05) < 4.5; }));
  const ratio = (colour, alpha) => {
    const mixed = parse(colour).slice(0, 3).map((v, i) => v * Number(alpha) + back[i] * (1 - Number(alpha)));
    const [a, b] = [light(mixed), light(back)].sort((x, y) => y - x);
    return (a + .05) / (b + .05); };
  check("contrast: placeholder", all("[placeholder]").filter(each => {
    const style = getComputedStyle(each, "::placeholder");
    return ratio(style.color, style.opacity) < 4.5; }));
  check("contrast: smoke", all(".smoke:not(.smoke + .smoke)").filter(each =>
    ratio(getComputedStyle(each).fill, each.getAttribute("fill-opacity") ?? 1) < 3));
  const box = each => each.getBoundingClientRect();
  check("label: cut", all("svg text").filter(each => box(each).left < box(each.ownerSVGElement).left
    || box(each).right > box(each.ownerSVGElement).right));
  check("labels: overlap", all("svg text").filter((each, i, texts) => texts.slice(i + 1).some(other =>
    other.ownerSVGElement === each.ownerSVGElement && each.textContent && other.textContent && box(other).left < box(each).right
    && box(each).left < box(other).right && box(other).top < box(each).bottom && box(each).top < box(other).bottom)));
  return found;
}"""
"""The rules of WCAG 2 that a page of ours could break, as axe-core names them."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, where there is one."""
    path = need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(SWITCHES))
        yield browser
        browser.close()


def faults(tab: Page) -> list[str]:
    """What a keyboard or a screen reader stumbles over."""
    found: list[str] = tab.evaluate(FAULTS)
    return found
