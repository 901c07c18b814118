// On paper every page is light.
(() => {
  const root = document.documentElement.dataset;
  let theme;
  window.addEventListener("beforeprint", () => ([theme, root.theme] = [root.theme, "light"]));
  window.addEventListener("afterprint", () => (root.theme = theme));
})();
