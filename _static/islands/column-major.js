"use strict";
// Where the elements of a matrix lie, and which cache lines two walks over it fetch.
{
  const { el, slider, choice, player, narrator, table, mount } = window.islands;
  const LINE = 64; // bytes

  /** Place of element (i, j) of an m x n matrix in its buffer. */
  function place(i, j, m, n, order) {
    return order === "column-major" ? i + j * m : i * n + j;
  }

  /** The elements in the order in which a walk reads them. */
  function path(m, n, walk) {
    return Array.from({ length: m * n }, (_, k) => (walk === "columns"
      ? { i: k % m, j: Math.floor(k / m) } : { i: Math.floor(k / n), j: k % n }));
  }

  /**
   * Read a whole matrix through a cache of `lines` lines that gives up the line that has
   * not been used for longest. One record for each element that is read.
   */
  function trace({ m, n, order, walk, itemsize, lines }) {
    let cache = []; // the line used last comes last
    let fetched = 0;
    return path(m, n, walk).map(({ i, j }) => {
      const index = place(i, j, m, n, order);
      const line = Math.floor((index * itemsize) / LINE);
      const hit = cache.includes(line);
      cache = [...cache.filter((other) => other !== line), line].slice(-lines);
      if (!hit) fetched += 1;
      return { i, j, index, byte: index * itemsize, line, hit, cache, fetched };
    });
  }

  function sentence(at, { m, n, order, itemsize }) {
    const [a, b, width] = order === "column-major" ? [at.i, at.j, m] : [at.j, at.i, n];
    const found = at.hit ? "it is in the cache" : "it is fetched";
    return `Element (${at.i}, ${at.j}): place ${a} + ${b} · ${width} = ${at.index} in the buffer, `
      + `byte ${at.index} · ${itemsize} = ${at.byte}, cache line ${at.line}; ${found}.`;
  }

  function build(box) {
    const said = narrator();
    const count = el("p", { class: "island-count" });
    const memory = el("div", { class: "island-memory", "aria-hidden": "true" });
    const frame = el("div");
    const totals = el("div");
    let settings;
    let steps;
    let cells;

    const rows = slider("rows m", { min: 2, max: 16, value: 16 }, restart);
    const columns = slider("columns n", { min: 2, max: 10, value: 8 }, restart);
    const lines = slider("lines in the cache", { min: 1, max: 16, value: 4 }, restart);
    const order = choice("Stored", { "column-major": "column-major", "row-major": "row-major" },
      "column-major", restart);
    const item = choice("Numbers", { 8: "float64", 4: "float32" }, "8", restart);
    const walk = choice("Walk", { columns: "down the columns", rows: "along the rows" },
      "columns", restart);
    const play = player("element read", show, 180);

    function read() {
      return {
        m: rows.value, n: columns.value, lines: lines.value,
        order: order.value, walk: walk.value, itemsize: Number(item.value),
      };
    }

    function cell(step, k) {
      const node = el("td", {
        role: "gridcell", tabindex: -1, class: step.line % 2 ? "odd" : "",
        "aria-label": `element ${step.i}, ${step.j}, place ${step.index}`,
        click: () => play.go(k),
      }, String(step.index));
      return { node, step, k };
    }

    /** Draw the grid anew for other settings. */
    function restart() {
      settings = read();
      steps = trace(settings);
      cells = new Map();
      steps.forEach((step, k) => cells.set(`${step.i},${step.j}`, cell(step, k)));
      const { m, n } = settings;
      const indices = (count) => Array.from({ length: count }, (_, k) => k);
      const head = ["i \\ j", ...indices(n)];
      const body = indices(m).map((i) => el("tr", { role: "row" },
        el("th", { scope: "row", role: "rowheader" }, String(i)),
        ...indices(n).map((j) => cells.get(`${i},${j}`).node)));
      frame.replaceChildren(el("table", {
        role: "grid", class: "island-grid", keydown: steer,
        "aria-label": "Matrix; arrow keys choose an element, its number is its place in the buffer",
      },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
        ...head.map((text) => el("th", { scope: "col", role: "columnheader" }, String(text))))),
      el("tbody", { role: "rowgroup" }, ...body)));
      summarise();
      play.reset(steps.length);
    }

    /** Lines fetched by both walks over both storages, with these sizes and this cache. */
    function summarise() {
      const result = (order, walk) => trace({ ...settings, order, walk }).at(-1).fetched;
      const rows = ["column-major", "row-major"].map((order) => [
        order, ...["columns", "rows"].map((walk) => String(result(order, walk))),
      ]);
      const node = table("Lines fetched by a whole walk", ["", "down columns", "along rows"], rows);
      const row = settings.order === "column-major" ? 0 : 1;
      const at = node.tBodies[0].rows[row].cells[settings.walk === "columns" ? 1 : 2];
      at.classList.add("now");
      totals.replaceChildren(node);
    }

    function show(k, playing) {
      const at = steps[k];
      for (const { node, step } of cells.values()) {
        const here = step === at;
        node.classList.toggle("cached", at.cache.includes(step.line));
        node.setAttribute("aria-selected", here);
        node.tabIndex = here ? 0 : -1;
      }
      const { m, n, itemsize } = settings;
      const all = Math.ceil((m * n * itemsize) / LINE);
      memory.replaceChildren(...Array.from({ length: all }, (_, line) => el("span", {
        class: [at.cache.includes(line) && "cached", !at.hit && line === at.line && "fetched"]
          .filter(Boolean).join(" "),
      }, String(line))));
      said.say(sentence(at, settings), playing);
      count.textContent = `Read so far: ${k + 1} of ${m * n} elements. `
        + `Lines of ${LINE} bytes fetched so far: ${at.fetched}.`;
    }

    function steer(event) {
      const { m, n } = settings;
      const at = steps[play.frame];
      const [i, j] = {
        ArrowDown: [at.i + 1, at.j], ArrowUp: [at.i - 1, at.j],
        ArrowRight: [at.i, at.j + 1], ArrowLeft: [at.i, at.j - 1],
        Home: [at.i, 0], End: [at.i, n - 1], PageUp: [0, at.j], PageDown: [m - 1, at.j],
      }[event.key] ?? [-1, -1];
      const next = cells.get(`${i},${j}`);
      if (event.key in { ArrowDown: 1, ArrowUp: 1, ArrowLeft: 1, ArrowRight: 1, Home: 1, End: 1, PageUp: 1, PageDown: 1 }) {
        event.preventDefault();
      }
      if (!next) return;
      play.go(next.k);
      next.node.focus();
    }

    box.append(
      el("div", { class: "island-controls" }, rows.node, columns.node, lines.node),
      el("div", { class: "island-controls" }, order.node, item.node, walk.node),
      frame,
      el("p", { class: "island-keys" },
        el("span", { class: "island-key", style: "--swatch: color-mix(in srgb, var(--q) 38%, var(--paper))" }, "in the cache"),
        el("span", {}, "Stripes: neighbouring cache lines in memory")),
      play.node, said.node, count,
      el("p", { class: "island-part" }, "The lines in the order of memory"), memory, totals);
    restart();
  }

  window.islands.columnMajor = { place, path, trace };
  mount("column-major", "Explorer: places, cache lines and two walks", build);
}
