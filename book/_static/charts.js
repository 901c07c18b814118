// Draws the page's charts live, in the colours of its theme. Without this script each chart is a still SVG.
(() => {
  const bundle = new URL("vega.js", document.currentScript.src).href;
  const NARROW = 560; // as in book.css
  const shades = {
    light: { ink: "#1f2328", soft: "#57606a", line: "#d8dee4" },
    dark: { ink: "#ced6dd", soft: "#9ea7b0", line: "#3b434b" },
  };

  // A spec's own config wins over the options of vega-embed, so the colours have to go into the spec.
  function themed(spec, theme) {
    const { ink, soft, line } = shades[theme];
    const config = { ...spec.config, background: "transparent" };
    const set = (part, colours) => (config[part] = { ...config[part], ...colours });
    set("title", { color: ink, subtitleColor: soft });
    set("axis", { labelColor: soft, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft });
    set("legend", { labelColor: ink, titleColor: ink });
    set("header", { labelColor: ink, titleColor: ink });
    set("text", { color: ink });
    const { background, ...rest } = spec;
    return { ...rest, config };
  }

  // In a narrow box stands what the build made for it, as wide as the box (panels keep their width).
  function fitted([wide, changes], width) {
    if (!width) return wide;
    const small = Object.entries({ ...wide, ...changes, ...(changes.width && { width }) });
    return Object.fromEntries(small.filter(([, value]) => value !== null));
  }

  async function draw(box) {
    const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
    const width = box.clientWidth < NARROW ? box.clientWidth : 0; // also of a box that is folded away
    const drawn = `${theme} ${width}`;
    if (box.dataset.drawn === drawn) return;
    const spec = fitted(JSON.parse(box.querySelector("script").textContent), width);
    const view = box.querySelector(".w2s-chart-view");
    await vegaEmbed(view, themed(spec, theme), {
      actions: false, // its menu cannot be reached with a keyboard
      renderer: "svg",
      mode: "vega-lite",
      tooltip: { theme },
    });
    const drawing = view.querySelector("svg");
    drawing.querySelectorAll('[role="graphics-symbol"]:not([aria-label])').forEach((mark) => mark.setAttribute("role", "none"));
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", box.dataset.label);
    [box.dataset.drawn, box.dataset.live] = [drawn, theme];
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

  function start() {
    const boxes = [...document.querySelectorAll(".w2s-chart")];
    if (!boxes.length) return;
    boxes.filter((box) => box.querySelector("[aria-live]")).forEach(announce);
    const script = document.createElement("script");
    script.src = bundle;
    script.onload = () => {
      // One after the other: two drawings at once in a box would leave two charts.
      let queue = Promise.resolve();
      const redraw = () => (queue = queue.then(() => Promise.all(boxes.map(draw))).catch(console.error));
      const watch = new ResizeObserver(redraw); // which calls once at the start
      boxes.forEach((box) => watch.observe(box));
      new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    };
    document.head.append(script);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
