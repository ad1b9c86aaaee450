"use strict";
// Data tables: sort by a column (click, or Enter and Space on its button), filter long ones, save as
// CSV. The page is complete without this. A cell may give its value in data-value, where its text
// is for people, and a head the unit of these values in data-unit; a table or a head with data-plain
// is left as it is.
(() => {
  const LONG = 12;
  const UNITS = { s: 1, min: 60, h: 3600, "%": 0.01, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
  const NONE = new Set(["", "–", "-", "—"]);
  const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  // The text of a cell without its small print: the interval below a score.
  function text(cell) {
    const copy = cell.cloneNode(true);
    for (const small of copy.querySelectorAll(".range, [aria-hidden=true]")) small.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  }

  function small(cell) {
    const found = [...cell.querySelectorAll(".range")].map((part) => part.textContent.trim());
    return found.filter(Boolean).join("; ");
  }

  // "1,234.5", "12 %", "3 min 05 s", "1.5 GiB", "0.912 ≈" as a number; NaN for anything else.
  function number(shown) {
    const plain = shown.replace(/(\d),(?=\d{3}\b)/g, "$1").replace(/\u2212/g, "-").replace(/\s*[≈*]$/, "");
    if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) return Number(plain);
    const parts = [...plain.matchAll(/([+-]?\d+(?:\.\d+)?)\s*([a-zµ%]+)\s*/giy)];
    if (!parts.length || parts.map((part) => part[0]).join("") !== plain) return NaN;
    if (parts.length > 1 && !parts.every((part) => part[2] in UNITS)) return NaN;
    return parts.reduce((sum, part) => sum + Number(part[1]) * (UNITS[part[2]] ?? 1), 0);
  }

  const value = (cell) => (cell ? cell.dataset.value ?? text(cell) : "");

  function compareBy(column, rows) {
    const shown = new Map(rows.map((row) => [row, value(row.cells[column])]));
    const known = [...shown.values()].filter((one) => !NONE.has(one));
    const numeric = known.length > 0 && known.every((one) => !Number.isNaN(number(one)));
    return (a, b, sign) => {
      const [left, right] = [shown.get(a), shown.get(b)];
      // What is not known comes last in either direction.
      const missing = NONE.has(left) - NONE.has(right);
      if (missing || NONE.has(left)) return missing;
      return sign * (numeric ? number(left) - number(right) : order.compare(left, right));
    };
  }

  function sortable(table, heads, body) {
    const original = [...body.rows];
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    heads.forEach((head, column) => {
      if (!text(head) || "plain" in head.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = next[head.getAttribute("aria-sort") ?? "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        const rows = [...original];
        if (way !== "none") {
          head.setAttribute("aria-sort", way);
          const compare = compareBy(column, rows);
          rows.sort((a, b) => compare(a, b, way === "ascending" ? 1 : -1));
        }
        body.append(...rows);
      });
    });
  }

  function filter(body, name) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    input.type = "search";
    count.className = "soft";
    count.setAttribute("role", "status");
    label.append("Filter ", input);
    input.setAttribute("aria-label", `Filter the rows: ${name}`);
    const rows = [...body.rows].map((row) => [row, row.textContent.toLowerCase()]);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const [row, words_of] of rows) row.hidden = !words.every((word) => words_of.includes(word));
      const left = rows.filter(([row]) => !row.hidden).length;
      count.textContent = words.length ? `${left} of ${rows.length} rows` : "";
    });
    return [label, count];
  }

  // A text that a spreadsheet would run as a formula gets an apostrophe, as in the pipeline's own CSV
  // files (unet/tables.py). Numbers stay as they are.
  const guarded = (cell) =>
    /^'*[=+\-@\t\r]/.test(cell) && !/^[+-]?[0-9.]+(e[+-]?[0-9]+)?$/.test(cell) ? `'${cell}` : cell;
  const quoted = (cell) => (/[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

  // The rows that are shown, as they are ordered now; small print in a column of its own.
  function csv(heads, body, foot) {
    const rows = [...body.rows, ...(foot ? foot.rows : [])].filter((row) => !row.hidden);
    const more = heads.map((_, column) => rows.some((row) => row.cells[column] && small(row.cells[column])));
    const lines = [
      heads.flatMap((head, column) => {
        const title = text(head) + (head.dataset.unit ? ` (${head.dataset.unit})` : "");
        return more[column] ? [title, `${title} interval`] : [title];
      }),
      ...rows.map((row) =>
        heads.flatMap((_, column) => {
          const cell = row.cells[column];
          const plain = value(cell).replace(/(\d),(?=\d{3}\b)/g, "$1");
          const shown = NONE.has(plain) ? "" : plain;
          return more[column] ? [shown, cell ? small(cell) : ""] : [shown];
        }),
      ),
    ];
    return lines.map((line) => line.map(guarded).map(quoted).join(",") + "\r\n").join("");
  }

  function saver(name, content) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "Save CSV";
    button.setAttribute("aria-label", `Save CSV: ${name}`);
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      // The mark at the start tells Excel that the text is UTF-8.
      link.href = URL.createObjectURL(new Blob(["\ufeff", content()], { type: "text/csv" }));
      link.download = `${name.replace(/[^\p{L}\p{N}@._-]+/gu, "-").replace(/^-|-$/g, "")}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    return button;
  }

  function tools(...parts) {
    const line = document.createElement("div");
    line.className = "tools";
    line.append(...parts);
    return line;
  }

  // The nearest heading before the table, with the title of its page.
  function nameOf(table) {
    const scope = table.closest("article, main");
    const headings = [...scope.querySelectorAll("h1, h2, h3, summary")].filter(
      (one) => one.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING,
    );
    const title = headings.find((one) => one.tagName === "H1");
    const last = headings.at(-1);
    return [title, last === title ? null : last].filter(Boolean).map(text).join(", ");
  }

  const taken = new Map();
  for (const table of document.querySelectorAll("main table")) {
    const heads = table.tHead ? [...table.tHead.rows[table.tHead.rows.length - 1].cells] : [];
    const body = table.tBodies[0];
    const merged = table.querySelector("[rowspan], [colspan]");
    if (!heads.length || table.tBodies.length !== 1 || merged || "plain" in table.dataset) continue;
    let name = nameOf(table);
    taken.set(name, (taken.get(name) ?? 0) + 1);
    if (taken.get(name) > 1) name += ` ${taken.get(name)}`;
    if (body.rows.length > 1) sortable(table, heads, body);
    const box = table.closest(".scroll") ?? table;
    if (body.rows.length > LONG) box.before(tools(...filter(body, name)));
    box.after(tools(saver(name, () => csv(heads, body, table.tFoot))));
  }
})();
