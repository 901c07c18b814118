// Makes the page's charts live. Without this script each is a still SVG of the same look.
// Vega is most of a page's weight: it is loaded when a chart with sliders is in sight, or when another chart is touched.
(() => {
  const bundle = new URL("vega.js", document.currentScript.src).href;
  const NARROW = 560; // as in book.css
  let loading;

  function vega() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      Object.assign(script, { src: bundle, onload: resolve, onerror: reject });
      document.head.append(script);
    });
    return loading;
  }

  // A spec and what is changed in it: null where nothing is left.
  function merged(old, changes) {
    if (!old || typeof old !== "object" || !changes || Array.isArray(changes) || typeof changes !== "object") return changes;
    const made = Array.isArray(old) ? [...old] : { ...old };
    for (const [key, change] of Object.entries(changes)) {
      if (change === null) delete made[key];
      else made[key] = merged(made[key], change);
    }
    return made;
  }

  // In a narrow box stands what the build made for it, as wide as the box (panels keep their width).
  function fitted([wide, changes], width) {
    if (!width) return wide;
    const small = merged(wide, changes);
    return changes.width ? { ...small, width } : small;
  }

  async function draw(box) {
    const width = box.clientWidth < NARROW ? box.clientWidth : 0; // also of a box that is folded away
    if (box.dataset.drawn === String(width)) return;
    await vega();
    const spec = fitted(JSON.parse(box.querySelector("script").textContent), width);
    // Drawn anew, it keeps what its sliders say.
    const kept = (knob) => (box.vega && knob.bind ? { ...knob, value: box.vega.signal(knob.name) } : knob);
    if (spec.params) spec.params = spec.params.map(kept);
    const view = box.querySelector(".w2s-chart-view");
    const made = await vegaEmbed(view, spec, {
      actions: false, // its menu cannot be reached with a keyboard
      renderer: "svg",
      mode: "vega-lite",
    });
    const drawing = view.querySelector("svg");
    drawing.querySelectorAll('[role="graphics-symbol"]:not([aria-label])').forEach((mark) => mark.setAttribute("role", "none"));
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", box.dataset.label);
    box.vega = made.view;
    [box.dataset.drawn, box.dataset.live] = [width, "yes"];
  }

  // One after the other: two drawings at once in a box would leave two charts.
  function enqueue(box) {
    box.queue = (box.queue ?? Promise.resolve()).then(() => draw(box)).catch(console.error);
  }

  // What follows from a chart's sliders is drawn as parts called "said". Once a slider rests, a screen reader reads them.
  function announce(box) {
    let waiting;
    box.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        const parts = [...box.querySelectorAll('g[class*=" said_"] > :is(text, path)')];
        const words = parts.map((part) => part.textContent || part.getAttribute("aria-label"));
        box.querySelector("[aria-live]").textContent = words.join("; ");
      }, 500);
    });
  }

  // A finger does not hover: a tap on a mark says what a pointer over it would, until the next tap.
  function hover() {
    let told;
    document.addEventListener("click", (tap) => {
      if (tap.pointerType !== "touch") return;
      told?.dispatchEvent(new PointerEvent("pointerout", { bubbles: true }));
      told = null;
      const box = tap.target.closest(".w2s-chart");
      if (!box) return;
      enqueue(box);
      box.queue.then(() => {
        told = document.elementFromPoint(tap.clientX, tap.clientY);
        const { clientX, clientY } = tap;
        told?.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX, clientY }));
      });
    });
  }

  function start() {
    const boxes = [...document.querySelectorAll(".w2s-chart")];
    if (!boxes.length) return;
    hover();
    const seen = new IntersectionObserver((boxes) =>
      boxes.filter((one) => one.isIntersecting).forEach((one) => enqueue(one.target)),
    );
    const resized = new ResizeObserver((changed) =>
      changed.filter(({ target }) => target.dataset.live).forEach(({ target }) => enqueue(target)),
    );
    for (const box of boxes) {
      resized.observe(box);
      if (box.querySelector("[aria-live]")) announce(box);
      if (box.querySelector("script").textContent.includes('"bind"')) seen.observe(box);
      else for (const name of ["pointerenter", "focusin"]) box.addEventListener(name, () => enqueue(box));
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
