// Turns the list of examples into a browser: what is chosen above it is shown, the rest is hidden.
(() => {
  function chooser(title, values) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    values.forEach((value) => select.add(new Option(value)));
    label.append(title, select);
    return [label, select];
  }

  function browse(box) {
    const parts = [...box.querySelectorAll("details")];
    const values = (name) => [...new Set(parts.map((part) => part.dataset[name]))];
    const categories = [...new Set([...box.querySelectorAll("section")].map((part) => part.dataset.category))];
    const choosers = [
      chooser("Experiment", values("experiment")),
      chooser("Seed", values("seed")),
      chooser("Category", ["all", ...categories]),
    ];
    const [experiment, seed, category] = choosers.map(([, select]) => select);
    const said = document.createElement("p");
    said.setAttribute("role", "status");
    const controls = document.createElement("div");
    controls.className = "w2s-choose";
    controls.append(...choosers.map(([label]) => label), said);
    box.prepend(controls);

    function show() {
      const chosen = parts.find((p) => p.dataset.experiment === experiment.value && p.dataset.seed === seed.value);
      for (const part of parts) part.hidden = part !== chosen;
      if (chosen) {
        chosen.open = true;
        for (const section of chosen.querySelectorAll("section"))
          section.hidden = category.value !== "all" && section.dataset.category !== category.value;
      }
      const shown = box.querySelectorAll("details:not([hidden]) section:not([hidden]) blockquote").length;
      said.textContent = chosen ? `${shown} texts are shown.` : "This experiment has no records of this seed.";
    }
    for (const [, select] of choosers) select.addEventListener("change", show);
    show();
  }

  const start = () => document.querySelectorAll(".w2s-examples").forEach(browse);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
