// Finding one's way: what a glossary word means, where a search found something, boxes that scroll by keyboard.
(() => {
  const tip = Object.assign(document.createElement("div"), { className: "w2s-tip", role: "tooltip", hidden: true });
  let of = null;
  let closing;

  function show(word) {
    clearTimeout(closing);
    if (of === word) return;
    of = word;
    tip.textContent = word.getAttribute("aria-description");
    document.body.append(tip);
    tip.hidden = false;
    const { left, top, bottom } = word.getClientRects()[0];
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const below = bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(left, room)) + scrollX}px`;
    tip.style.top = `${(below ? bottom + 2 : top - tip.offsetHeight - 2) + scrollY}px`;
  }

  function hide() {
    clearTimeout(closing);
    of = null;
    tip.hidden = true;
  }

  // The pointer may go from the word into the definition, which stays.
  function under(event) {
    const word = event.target.closest?.(".w2s-word");
    if (event.pointerType === "touch") return;
    if (word) show(word);
    else if (tip.contains(event.target)) clearTimeout(closing);
    else if (of && of !== document.activeElement) closing = setTimeout(hide, 300);
  }

  document.addEventListener("pointerover", under);
  document.addEventListener("focusin", (event) => {
    if (event.target.matches(".w2s-word")) show(event.target);
    else hide();
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  // A finger has no way to point: its first tap shows the definition, its second follows the link.
  let before = null;
  document.addEventListener("pointerdown", () => (before = of), true);
  document.addEventListener("click", (event) => {
    if (event.pointerType !== "touch" || tip.contains(event.target)) return;
    const word = event.target.closest(".w2s-word");
    if (!word) hide();
    else if (before !== word) {
      event.preventDefault();
      show(word);
    }
  });

  // A search result shows the sentence of the page's own words that was found, or its first one.
  function excerpt(text, keywords, anchor) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const body = (anchor && page.querySelector(`#main-content ${anchor}`)) || page.querySelector("article");
    const parts = body ? [...body.querySelectorAll("p, li"), ...body.querySelectorAll("tr")] : [];
    const own = parts
      .filter((part) => !part.closest("summary, .cell_input, .w2s-chart, .highlight"))
      .map((part) => part.textContent.replace(/\s+/g, " ").trim())
      .filter(Boolean);
    if (!own.length) return null;
    const wanted = [...keywords].map((word) => word.toLowerCase());
    const has = (words) => wanted.some((word) => words.toLowerCase().includes(word));
    const part = own.find(has) ?? own[0];
    const sentences = part.match(/.+?(?:[.?!](?=\s+[A-Z])|$)/g);
    const from = Math.max(0, sentences.findIndex(has));
    const rest = sentences.slice(from).join("").trim();
    const summary = Object.assign(document.createElement("p"), { className: "context" });
    summary.textContent = rest.length > 240 ? `${rest.slice(0, 240).replace(/\s\S*$/, "")} …` : rest;
    return summary;
  }

  function start() {
    if (typeof Search !== "undefined") Search.makeSearchSummary = excerpt;
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
