"use strict";
// The gallery: sorts and filters its cards, and shows their pictures in full size.
(() => {
  const section = document.getElementById("images");
  const list = section && section.querySelector(".cards");
  if (!list || !window.HTMLDialogElement) return;
  const { models, own, columns, task } = JSON.parse(section.dataset.about);
  const cards = [...list.children].map((element, place) => (
    { element, place, ...JSON.parse(element.dataset.card) }
  ));

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const option = (value, text) => make("option", { value }, text);
  const labelled = (text, control) => make("label", {}, text, control);

  // What the cards are sorted and filtered by.

  function values(card, score) {
    if (score === "counts") return card.counts;
    if (score === "objects") return Object.fromEntries(models.map((m) => [m, card.objects]));
    return Object.fromEntries(models.map((m) => [m, (card.scores[m] || [])[score] ?? null]));
  }

  function valueOf(card, score, of) {
    const found = values(card, score);
    const [first, second] = of.split(" minus ");
    if (second !== undefined) {
      const [a, b] = [found[models[first]] ?? null, found[models[second]] ?? null];
      return a === null || b === null ? null : a - b;
    }
    if (of !== "") return found[models[of]] ?? null;
    const defined = models.slice(0, own).map((m) => found[m] ?? null).filter((value) => value !== null);
    return defined.length ? defined.reduce((a, b) => a + b, 0) / defined.length : null;
  }

  const scoreSelect = make("select", { name: "score" }, ...columns.map((c, k) => option(k, c.label)));
  if (task === "instances") {
    if (columns.length) scoreSelect.append(option("objects", "Labelled objects"));
    scoreSelect.append(option("counts", "Predicted objects"));
  }
  scoreSelect.append(option("name", "Name"));
  const ofSelect = make("select", { name: "of" }, option("", "all models (mean)"));
  models.forEach((model, k) => ofSelect.append(option(k, model)));
  models.forEach((a, k) => models.slice(k + 1).forEach((b, n) => {
    ofSelect.append(option(`${k} minus ${k + 1 + n}`, `${a} − ${b}`));
  }));
  const orderSelect = make("select", { name: "order" },
    option("up", "lowest first"), option("down", "highest first"));
  const least = make("input", { type: "number", step: "any", name: "least" });
  const most = make("input", { type: "number", step: "any", name: "most" });
  const search = make("input", { type: "search", name: "search" });
  const choices = (name, all, found) => make("select", { name }, option("", all),
    ...found.map((value) => option(value, value)));
  const distinct = (found) => [...new Set(found)].filter((value) => value !== "").sort();
  const groups = choices("group", "all groups", distinct(cards.map((card) => card.group)));
  const tags = choices("tag", "all", distinct(cards.flatMap((card) => card.tags)));
  const shownModel = choices("model", "all models", models);
  const restore = make("button", { type: "button", name: "restore" }, "Reset");
  const status = make("output", { class: "small soft", "aria-live": "polite" });
  // A page with all datasets has several galleries: each needs names of its own.
  const dataset = section.closest("article")?.getAttribute("aria-label");
  const named = (text) => (dataset ? `${text} of ${dataset}` : text);
  const tools = make("form", { class: "gallery-tools", "aria-label": named("Sort and filter the images") },
    labelled("Sort by", scoreSelect));
  if (models.length > 1) tools.append(labelled("of", ofSelect));
  tools.append(labelled("Order", orderSelect), labelled("From", least), labelled("To", most));
  if (groups.options.length > 2) tools.append(labelled("Group", groups));
  if (tags.options.length > 2) tools.append(labelled("Tag", tags));
  if (models.length > 1) tools.append(labelled("Show", shownModel));
  tools.append(labelled("Name contains", search), restore, status);
  list.before(tools);

  function usualOrder() {
    const column = columns[scoreSelect.value];
    const objects = ["objects", "counts"].includes(scoreSelect.value);
    orderSelect.value = objects || (column && column.better < 0) ? "down" : "up";
  }

  let visible = cards;
  function update() {
    const score = scoreSelect.value;
    const sign = orderSelect.value === "up" ? 1 : -1;
    const byName = score === "name";
    ofSelect.disabled = byName || score === "objects";
    least.disabled = most.disabled = byName;
    const of = ofSelect.disabled ? "" : ofSelect.value;
    const value = new Map(cards.map((card) => [card, byName ? null : valueOf(card, score, of)]));
    const compare = (a, b) => {
      if (byName) return sign * a.image.localeCompare(b.image, "en", { numeric: true });
      const [x, y] = [value.get(a), value.get(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y);
    };
    const inRange = (x) => (least.disabled || least.value === "" || (x !== null && x >= +least.value))
      && (most.disabled || most.value === "" || (x !== null && x <= +most.value));
    const sorted = [...cards].sort((a, b) => compare(a, b) || a.place - b.place);
    visible = sorted.filter((card) => inRange(value.get(card))
      && (!groups.value || card.group === groups.value)
      && (!tags.value || card.tags.includes(tags.value))
      && card.image.toLowerCase().includes(search.value.toLowerCase()));
    const kept = new Set(visible);
    for (const card of cards) card.element.hidden = !kept.has(card);
    list.append(...sorted.map((card) => card.element));
    for (const part of list.querySelectorAll("[data-model]")) {
      part.classList.toggle("other", shownModel.value !== "" && part.dataset.model !== shownModel.value);
    }
    status.value = `${visible.length} of ${cards.length} images`;
  }

  function resetTools() { tools.reset(); usualOrder(); update(); }
  scoreSelect.addEventListener("change", usualOrder);
  tools.addEventListener("input", update);
  tools.addEventListener("change", update);
  tools.addEventListener("submit", (event) => event.preventDefault());
  restore.addEventListener("click", resetTools);
  usualOrder();
  update();

  // A link to a card that a filter hides shows it again.
  function follow() {
    const card = cards.find((one) => `#${one.element.id}` === window.location.hash);
    if (!card) return;
    if (card.element.hidden) resetTools();
    card.element.scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  follow();

  // The viewer: a pane per model, all with the same zoom and place.

  const KINDS = { base: "Image", truth: "Truth", prediction: "Prediction", error: "Error", outlines: "Outlines" };
  const title = make("h2", { id: `${section.id}-viewer`, "aria-live": "polite" });
  const button = (name, text, label) => make("button", { type: "button", name, "aria-label": label }, text);
  const previous = button("previous", "←", "Previous image");
  const next = button("next", "→", "Next image");
  const closing = button("close", "Back to the card", "Back to the card");
  const planes = make("select", { name: "plane", "aria-label": "Part of the image" });
  const panes = make("div", { class: "panes" });
  const left = make("select", { name: "left" });
  const right = make("select", { name: "right" });
  const wipe = make("input", { type: "range", min: 0, max: 100, step: 1, name: "wipe",
    "aria-label": "Border between left and right" });
  const zoomOut = button("out", "−", "Zoom out");
  const zoomIn = button("in", "+", "Zoom in");
  const whole = button("whole", "Whole", "Show the whole image");
  const viewer = make("dialog", { class: "viewer", "aria-labelledby": title.id },
    make("header", {}, title, planes, previous, next, closing),
    panes,
    make("footer", {}, labelled("Left", left), wipe, labelled("Right", right), zoomOut, zoomIn, whole,
      make("span", { class: "hint small soft" }, "← → images · + − zoom · Shift and arrows move · Esc closes"),
      ...[...section.querySelectorAll(".legend")].map((legend) => legend.cloneNode(true))));
  document.body.append(viewer);

  let current = null;
  let plane = null;
  let view = { zoom: 1, x: 0, y: 0 };
  let fit = { width: 1, height: 1 };

  function apply() {
    const limit = (x, size) => Math.max(-size * view.zoom / 2, Math.min(size * view.zoom / 2, x));
    view.x = limit(view.x, fit.width);
    view.y = limit(view.y, fit.height);
    const style = viewer.style;
    style.setProperty("--zoom", view.zoom);
    style.setProperty("--x", `${view.x}px`);
    style.setProperty("--y", `${view.y}px`);
    style.setProperty("--wipe", `${wipe.value}%`);
    viewer.classList.toggle("near", view.zoom >= 2);
  }

  function zoomBy(factor, x = 0, y = 0) {
    const zoom = Math.max(1, Math.min(40, view.zoom * factor));
    const change = zoom / view.zoom;
    view = zoom === 1 ? { zoom, x: 0, y: 0 }
      : { zoom, x: x - (x - view.x) * change, y: y - (y - view.y) * change };
    apply();
  }

  // The number of columns for which the pictures are the largest.
  function layOut() {
    const number = panes.children.length;
    if (!number || !plane) return;
    const [w, h] = plane.style.getPropertyValue("--ratio").split("/").map(Number);
    let best = { width: 0 };
    for (let k = 1; k <= number; k += 1) {
      const width = panes.clientWidth / k - 12;
      const height = Math.max(150, panes.clientHeight / Math.ceil(number / k) - 50);
      const scale = Math.min(width / w, height / h);
      if (scale * w > best.width) best = { width: scale * w, columns: k };
    }
    viewer.style.setProperty("--columns", best.columns || 1);
    const stage = panes.querySelector(".stage");
    const scale = Math.min(stage.clientWidth / w, stage.clientHeight / h);
    fit = { width: scale * w, height: scale * h };
    viewer.style.setProperty("--fit-width", `${fit.width}px`);
    viewer.style.setProperty("--fit-height", `${fit.height}px`);
    apply();
  }
  new ResizeObserver(layOut).observe(panes);

  function drag(stage) {
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      stage.classList.add("held");
    });
    stage.addEventListener("pointermove", (event) => {
      if (!stage.classList.contains("held")) return;
      view.x += event.movementX;
      view.y += event.movementY;
      apply();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, () => stage.classList.remove("held"));
    }
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = stage.getBoundingClientRect();
      zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.left - box.width / 2,
        event.clientY - box.top - box.height / 2);
    }, { passive: false });
  }

  function half(kind, side) {
    return make("div", { class: `half ${side}` }, make("span", { class: `picture ${kind}` }));
  }

  function pane(part) {
    const name = part ? part.dataset.model : "";
    const stage = make("div", { class: "stage", role: "img",
      "aria-label": `${KINDS[left.value]} and ${KINDS[right.value]} of ${current.image}${name && `, ${name}`}` },
      half(left.value, "under"), half(right.value, "over"), make("span", { class: "line" }));
    for (const source of part ? [plane, part] : [plane]) {
      for (const property of ["--ratio", "--base", "--truth", "--prediction", "--error"]) {
        const value = source.style.getPropertyValue(property);
        if (value) stage.style.setProperty(property, value);
      }
    }
    drag(stage);
    const row = [...current.element.querySelectorAll("tr[data-model]")].find((tr) => tr.dataset.model === name);
    const caption = make("figcaption", {}, make("strong", {}, name));
    const score = name && columns.length ? (current.scores[name] || [])[0] ?? null : null;
    if (score !== null) caption.append(` ${columns[0].label} ${row.cells[1].textContent}`);
    for (const link of row ? row.querySelectorAll("a") : []) caption.append(" · ", link.cloneNode(true));
    return make("figure", { class: "pane" }, stage, caption);
  }

  function draw() {
    const parts = [...plane.querySelectorAll(".model:not(.other)")];
    panes.replaceChildren(...(parts.length ? parts : [null]).map(pane));
    layOut();
  }

  function fillKinds(select, wanted, otherwise) {
    const found = Object.keys(KINDS).filter((kind) => plane.querySelector(`.picture.${kind}`));
    select.replaceChildren(...found.map((kind) => option(kind, KINDS[kind])));
    select.value = found.includes(wanted) ? wanted : found.includes(otherwise) ? otherwise : found[found.length - 1];
  }

  function showPlane(part) {
    plane = part;
    fillKinds(left, left.value || "base", "base");
    fillKinds(right, right.value || "error", "error");
    view = { zoom: 1, x: 0, y: 0 };
    draw();
  }

  function show(card, part = null) {
    const parts = [...card.element.querySelectorAll(".plane")];
    if (!parts.length) return;
    current = card;
    const place = visible.indexOf(card);
    title.textContent = `${card.image} (${place + 1} of ${visible.length})`;
    previous.disabled = place <= 0;
    next.disabled = place >= visible.length - 1;
    planes.hidden = parts.length < 2;
    planes.replaceChildren(...parts.map((one, k) => option(k, one.dataset.note || "whole image")));
    planes.value = Math.max(0, parts.indexOf(part));
    if (!viewer.open) {
      viewer.showModal();
      closing.focus();
    }
    showPlane(parts[planes.value]);
    try { history.replaceState(null, "", `#${card.element.id}`); } catch { /* Some browsers refuse it for files. */ }
  }

  function step(by) {
    const withPictures = visible.filter((card) => card.element.querySelector(".plane"));
    const card = withPictures[withPictures.indexOf(current) + by];
    if (card) show(card);
  }

  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  closing.addEventListener("click", () => viewer.close());
  planes.addEventListener("change", () => {
    showPlane(current.element.querySelectorAll(".plane")[planes.value]);
  });
  left.addEventListener("change", draw);
  right.addEventListener("change", draw);
  wipe.addEventListener("input", apply);
  zoomIn.addEventListener("click", () => zoomBy(1.5));
  zoomOut.addEventListener("click", () => zoomBy(1 / 1.5));
  whole.addEventListener("click", () => zoomBy(0));

  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move && ["SELECT", "INPUT"].includes(event.target.tagName)) return;
    if (move && event.shiftKey) {
      view.x -= 60 * move[0];
      view.y -= 60 * move[1];
      apply();
    } else if (move && move[0]) step(move[0]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-") zoomBy(1 / 1.5);
    else if (event.key === "0") zoomBy(0);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("close", () => {
    // After the browser itself has given the focus back to where it was.
    setTimeout(() => {
      current.element.scrollIntoView({ block: "nearest" });
      current.element.querySelector("button.zoom").focus({ preventScroll: true });
    });
  });

  // A picture opens the viewer instead of growing in its place.
  for (const card of cards) {
    for (const old of card.element.querySelectorAll("label.zoom")) {
      const picture = old.querySelector(".picture");
      const opener = make("button", { type: "button", class: "zoom",
        "aria-label": `Open in the viewer: ${picture.getAttribute("aria-label")}` }, picture);
      picture.removeAttribute("role");
      picture.removeAttribute("aria-label");
      opener.addEventListener("click", () => {
        const kind = Object.keys(KINDS).find((name) => picture.classList.contains(name));
        left.replaceChildren(option("base", ""));
        right.replaceChildren(option(kind === "base" ? "error" : kind, ""));
        wipe.value = 50;
        show(card, opener.closest(".plane"));
      });
      old.replaceWith(opener);
    }
  }
})();
