"use strict";
// The frame of every page: boxes that scroll can be reached by keyboard, and print shows what is
// folded.
(() => {
  const boxes = document.querySelectorAll(".scroll, .plot, pre");
  function reachable() {
    for (const box of boxes) {
      const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (!scrolls) {
        box.removeAttribute("tabindex");
        continue;
      }
      box.tabIndex = 0;
      if (box.tagName !== "PRE") {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", box.classList.contains("plot") ? "Plot, scrolls" : "Table, scrolls");
      }
    }
  }
  reachable();
  addEventListener("resize", reachable);
  document.addEventListener("toggle", reachable, true);

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const folded of opened) folded.open = true;
  });
  addEventListener("afterprint", () => {
    for (const folded of opened) folded.open = false;
  });
})();
