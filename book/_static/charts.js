// Makes the page's charts live. Without this script each is a still SVG of the same look.
// Vega is most of a page's weight: it is loaded when a chart with sliders comes near, or when another chart is touched.
(() => {
  const bundle = new URL("vega.js", document.currentScript.src).href;
  let loading;

  function vega() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      Object.assign(script, { src: bundle, onload: resolve, onerror: reject });
      document.head.append(script);
    });
    return loading;
  }

  async function draw(box) {
    const spec = JSON.parse(box.querySelector("script").textContent);
    const view = box.querySelector(".w2s-chart-view");
    await vega();
    await vegaEmbed(view, spec, {
      actions: false, // its menu cannot be reached with a keyboard
      renderer: "svg",
      mode: "vega-lite",
    });
    const drawing = view.querySelector("svg");
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", box.dataset.label);
    // On a narrow screen it shrinks to three quarters, below which it could not be read; then its box scrolls.
    drawing.style.minWidth = `${0.75 * drawing.getAttribute("width")}px`;
    box.dataset.live = "yes";
  }

  function drawOnce(box) {
    if (box.dataset.live) return;
    box.dataset.live = "soon";
    draw(box).catch(console.error);
  }

  function start() {
    const boxes = [...document.querySelectorAll(".w2s-chart")];
    if (!boxes.length) return;
    const near = new IntersectionObserver(
      (seen) => seen.filter((one) => one.isIntersecting).forEach((one) => drawOnce(one.target)),
      { rootMargin: "50% 0px" },
    );
    for (const box of boxes) {
      if (box.querySelector("script").textContent.includes('"bind"')) near.observe(box);
      else for (const name of ["pointerenter", "focusin"]) box.addEventListener(name, () => drawOnce(box));
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
