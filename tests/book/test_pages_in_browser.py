"""Every page of the built book, opened from disk in a browser without a network, wide and narrow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import playwright.sync_api as playwright
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

# Bokeh draws inside shadow trees, which selectors of the document do not reach.
HELPERS = """
window.deep = (selector, node = document) => {
  const found = [...node.querySelectorAll(selector)];
  for (const element of node.querySelectorAll('*'))
    if (element.shadowRoot) found.push(...deep(selector, element.shadowRoot));
  return found;
};
window.topOf = node => {
  while (node.getRootNode() !== document) node = node.getRootNode().host;
  return node;
};
// The pixels inside the axes of a Bokeh figure, all layers on top of each other.
window.pixels = figure => {
  const frame = deep('.bk-CartesianFrame', figure.shadowRoot)[0].getBoundingClientRect();
  const sheet = document.createElement('canvas');
  sheet.width = Math.round(frame.width) - 4;
  sheet.height = Math.round(frame.height) - 4;
  if (sheet.width < 1 || sheet.height < 1) return null;
  const context = sheet.getContext('2d', {willReadFrequently: true});
  context.fillStyle = 'white';
  context.fillRect(0, 0, sheet.width, sheet.height);
  for (const layer of deep('canvas', figure.shadowRoot)) {
    const box = layer.getBoundingClientRect();
    if (!box.width || !layer.width) continue;
    const ratio = layer.width / box.width;
    context.drawImage(layer, (frame.left - box.left + 2) * ratio, (frame.top - box.top + 2) * ratio,
                      sheet.width * ratio, sheet.height * ratio, 0, 0, sheet.width, sheet.height);
  }
  return context.getImageData(0, 0, sheet.width, sheet.height).data;
};
// What stands on the most frequent colour: coloured pixels, or many shades of grey. Grid lines are a few
// shades and no colour; corners of the frame are a few pixels.
window.content = figure => {
  const data = pixels(figure);
  if (!data) return 'of no size';
  const counts = new Map();
  for (let i = 0; i < data.length; i += 4) {
    const colour = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
    counts.set(colour, (counts.get(colour) || 0) + 1);
  }
  const ground = Math.max(...counts.values());
  let coloured = 0, shades = 0;
  for (const [colour, count] of counts) {
    if (count === ground) continue;
    const parts = [colour >> 16, (colour >> 8) & 255, colour & 255];
    if (Math.max(...parts) - Math.min(...parts) > 24) coloured += count;
    else shades += 1;
  }
  return coloured < 20 && shades < 8 ? 'blank' : '';
};
window.picture = host => deep('.bk-Figure', host.shadowRoot || host).map(figure => {
  const data = pixels(figure) || [];
  let hash = 0;
  for (let i = 0; i < data.length; i += 1) hash = (hash * 31 + data[i]) | 0;
  return hash;
}).join();
"""

# Everything folded away is opened, so that it is drawn and looked at too.
UNFOLD = """() => {
  document.querySelectorAll('details').forEach(each => { each.open = true; });
  document.querySelectorAll('.toggle-button, button.toggle-button').forEach(button => {
    if (button.dataset.button && document.getElementById(button.dataset.button)
        ?.classList.contains('toggle-hidden')) button.click();
  });
}"""

# Bokeh's own `is_idle` stays false for some of Panel's layouts, so its figures are counted and looked at.
SETTLED = """() => {
  const expected = [...document.scripts].filter(each => each.text.includes('docs_json')).length;
  const documents = window.Bokeh ? Bokeh.documents : [];
  const models = documents.flatMap(each => [...each._all_models.values()]);
  const drawn = deep('.bk-Figure');
  return documents.length >= expected
    && drawn.length >= models.filter(each => each.type === 'Figure').length
    && drawn.every(each => content(each) === '');
}"""


def test_page(tabs: dict[int, Any], address: str, width: int) -> None:
    tab = tabs[width]
    tab.open(address)
    tab.page.evaluate(HELPERS + "; 0")  # a function as the last value would be called
    tab.page.evaluate(UNFOLD)
    faults: list[str] = []
    tab.page.evaluate("() => window.MathJax?.startup?.promise.then(() => null)")
    try:
        tab.page.wait_for_function(SETTLED, timeout=20_000)
    except playwright.TimeoutError:
        faults.append("figures are not ready after 20 s")
    for check in (overflow, search_boxes, equations, figures, images, sliders):
        faults += check(tab.page, width)
    faults += tab.faults
    if faults:
        pytest.fail(f"{address} at {width} px:\n  " + "\n  ".join(dict.fromkeys(faults)), pytrace=False)


def overflow(page: Any, width: int) -> list[str]:
    wide = page.evaluate(
        """() => {
          const root = document.documentElement;
          if (root.scrollWidth <= root.clientWidth) return null;
          // What a box of its own scrolls or hides does not widen the page.
          const boxed = each => each && each !== document.body
            && (getComputedStyle(each).overflowX !== 'visible' || boxed(each.parentElement));
          const beyond = each => each.getBoundingClientRect().right > root.clientWidth + 1;
          const name = each => each.outerHTML.slice(0, 80);
          const out = [...document.body.querySelectorAll('*')]
            .filter(each => beyond(each) && !boxed(each.parentElement));
          return [root.scrollWidth, ...out.slice(-3).map(name)];
        }"""
    )
    return [f"wider than the window: {wide}"] if wide else []


def search_boxes(page: Any, width: int) -> list[str]:
    shown = page.evaluate(
        """() => [...document.querySelectorAll('.search-button-field, .search-button__button')]
          .filter(each => each.checkVisibility({visibilityProperty: true})).length"""
    )
    return [f"{shown} search boxes"] if shown > 1 else []


def equations(page: Any, width: int) -> list[str]:
    return page.evaluate(
        """() => {
          const faults = [];
          const plain = [...document.querySelectorAll('.math')]
            .filter(each => !each.querySelector('mjx-container'));
          for (const each of plain.slice(0, 3)) faults.push('not typeset: ' + each.textContent.slice(0, 60));
          for (const each of document.querySelectorAll('[data-mml-node="merror"]'))
            faults.push('TeX error: ' + (each.getAttribute('data-mjx-error') || each.textContent));
          return faults;
        }"""
    )


def figures(page: Any, width: int) -> list[str]:
    """Find Bokeh figures that are blank, or that reach beyond the window."""
    return page.evaluate(
        """width => deep('.bk-Figure').flatMap((figure, i) => {
          const box = figure.getBoundingClientRect(), fault = content(figure), name = `figure ${i + 1}`;
          const out = box.left < 0 || box.right > width;
          return [...(fault ? [`${name} is ${fault}`] : []),
                  ...(out ? [`${name} reaches from ${box.left} to ${box.right}`] : [])];
        })""",
        width,
    )


def images(page: Any, width: int) -> list[str]:
    faults = []
    for image in page.locator(".bd-article img").all():
        name = (image.get_attribute("src") or "")[-60:]
        if not image.evaluate("each => each.complete && each.naturalWidth > 0"):
            faults.append(f"image {name} does not load")
        elif not image.is_visible():
            faults.append(f"image {name} is not shown")
        else:
            shot = Image.open(io.BytesIO(image.screenshot(animations="disabled"))).convert("RGB")
            # The first and last pixels may belong to the border of the page.
            inner = np.asarray(shot)[2:-2, 2:-2]
            if inner.size == 0 or (inner == inner[:1, :1]).all():
                faults.append(f"image {name} is of one colour")
    return faults


def sliders(page: Any, width: int) -> list[str]:
    """Find sliders that are cut off, and those that move nothing."""
    faults = []
    for i in range(page.evaluate("deep('.noUi-target').length")):
        box = page.evaluate(
            "i => { const b = deep('.noUi-target')[i].getBoundingClientRect(); return [b.left, b.right]; }", i
        )
        if box[0] < 0 or box[1] > width or box[1] - box[0] < 40:
            faults.append(f"slider {i + 1} reaches from {box[0]:.0f} to {box[1]:.0f}")
            continue
        page.evaluate(
            """i => {
              const slider = deep('.noUi-target')[i], handle = slider.querySelector('.noUi-handle');
              window.host = topOf(slider);
              window.before = picture(host);
              const end = handle.getAttribute('aria-valuenow') === handle.getAttribute('aria-valuemax');
              const key = end ? 'ArrowLeft' : 'ArrowRight';
              handle.focus();
              handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
            }""",
            i,
        )
        try:
            page.wait_for_function("() => picture(host) !== before", timeout=5_000)
        except playwright.TimeoutError:
            faults.append(f"slider {i + 1} changes no picture")
    return faults
