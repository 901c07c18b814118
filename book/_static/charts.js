// Draws the page's charts live, in the colours of its theme. Without this script each chart is a still SVG.
(() => {
  const bundle = new URL("vega.js", document.currentScript.src).href;
  const shades = {
    light: { ink: "#1f2328", soft: "#57606a", line: "#d0d7de" },
    dark: { ink: "#ced6dd", soft: "#9ea7b0", line: "#3b434b" },
  };

  // The spec's own config wins over vega-embed's options, so the theme's colours go into the spec.
  function themed(spec, theme) {
    const { ink, soft, line } = shades[theme];
    const config = structuredClone(spec.config ?? {});
    const set = (key, values) => (config[key] = { ...config[key], ...values });
    config.background = "transparent";
    set("view", { stroke: "transparent" });
    set("title", { color: ink, subtitleColor: soft });
    set("axis", { labelColor: soft, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft });
    set("legend", { labelColor: ink, titleColor: ink });
    set("header", { labelColor: ink, titleColor: ink });
    const copy = { ...spec, config };
    delete copy.background;
    return copy;
  }

  // Only a single or layered view can shrink to its container; a composed one scrolls inside its own box.
  function fitted(spec, width) {
    const composed = ["hconcat", "vconcat", "concat", "facet", "repeat"].some((key) => key in spec);
    const faceted = ["row", "column", "facet"].some((key) => key in (spec.encoding ?? {}));
    if (composed || faceted) return null;
    return { ...spec, width, autosize: { type: "fit-x", contains: "padding" } };
  }

  async function draw(box) {
    const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
    const spec = JSON.parse(box.querySelector("script").textContent);
    const view = box.querySelector(".w2s-chart-view");
    const label = box.dataset.label;
    const options = { actions: false, renderer: "svg", mode: "vega-lite", tooltip: { theme } };
    const width = box.clientWidth;
    if (box.dataset.live === `${theme} ${width}`) return;
    box.dataset.live = `${theme} ${width}`;
    let result = await vegaEmbed(view, themed(spec, theme), options);
    const narrow = view.scrollWidth > width ? fitted(spec, width) : null;
    if (narrow) {
      result.finalize();
      result = await vegaEmbed(view, themed(narrow, theme), options);
    }
    const drawing = view.querySelector("svg");
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", label);
  }

  function start() {
    const boxes = [...document.querySelectorAll(".w2s-chart")];
    if (!boxes.length) return;
    const script = document.createElement("script");
    script.src = bundle;
    script.onload = () => {
      // One drawing at a time: two in one box would leave two charts.
      let queue = Promise.resolve();
      const all = () => {
        queue = queue.then(() => Promise.all(boxes.map(draw))).catch((error) => console.error(error));
      };
      let pause;
      all();
      new MutationObserver(all).observe(document.documentElement, { attributeFilter: ["data-theme"] });
      window.addEventListener("resize", () => {
        clearTimeout(pause);
        pause = setTimeout(all, 150);
      });
    };
    document.head.append(script);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
