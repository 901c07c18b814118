// A box that holds more than it shows is a stop of the keyboard; one that shows all of it is none.
document.addEventListener("DOMContentLoaded", () => {
  const watch = new ResizeObserver((seen) => {
    for (const { target: box } of seen)
      box.tabIndex = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1 ? 0 : -1;
  });
  document.querySelectorAll("[role=region][tabindex], .bd-article pre").forEach((box) => watch.observe(box));
});
