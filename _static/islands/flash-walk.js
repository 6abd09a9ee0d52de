"use strict";
// FlashAttention, tile pair by tile pair, forward and backward, with real arithmetic.
{
  const { el, svg, fixed, slider, choice, checkbox, button, player, narrator, table, mount, still } = window.islands;
  const BYTES = 8; // of a number

  // A matrix is a list of columns, as in the book: x[position][feature].

  /** Pseudo-random numbers in [0, 1), always the same for a seed (mulberry32). */
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let z = Math.imul(state ^ (state >>> 15), state | 1);
      z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
      return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** Toy matrices q, k, v, do of N columns with d numbers between -2 and 2, in tenths. */
  function toy(N, d, seed = 1) {
    const random = generator(seed);
    const matrix = () => Array.from({ length: N },
      () => Array.from({ length: d }, () => Math.round(40 * random() - 20) / 10));
    return { q: matrix(), k: matrix(), v: matrix(), dO: matrix() };
  }

  const zeros = (N, d) => Array.from({ length: N }, () => new Array(d).fill(0));
  const dot = (x, y) => x.reduce((sum, value, c) => sum + value * y[c], 0);
  const copy = (x) => x.map((column) => [...column]);
  const range = (start, stop) => Array.from({ length: stop - start }, (_, k) => start + k);
  /** y += a x, for columns. */
  const addTo = (y, a, x) => x.forEach((value, c) => { y[c] += a * value; });

  /** The positions of every tile. */
  function tiles(N, tile) {
    return range(0, Math.ceil(N / tile)).map((t) => range(t * tile, Math.min(N, (t + 1) * tile)));
  }

  /** Scores of a tile pair, S[key][query], minus infinity where a key comes too late. */
  function scores(q, k, I, J, causal) {
    const root = Math.sqrt(q[0].length);
    return J.map((j) => I.map((i) => (causal && j > i ? -Infinity : dot(k[j], q[i]) / root)));
  }

  /**
   * One frame for each pair of a query tile and a key tile, queries outside. S and P have
   * a row for each key; m, l, c (the correction factor) and o are those of all queries.
   */
  function forward({ q, k, v }, tile, causal) {
    const N = q.length;
    const d = q[0].length;
    const m = new Array(N).fill(-Infinity);
    const l = new Array(N).fill(0);
    const o = zeros(N, d);
    const moved = { reads: 0, writes: 0 };
    const frames = [];
    const parts = tiles(N, tile);
    parts.forEach((I, u) => {
      const seen = causal ? u : parts.length - 1; // the last tile of keys that I can see
      parts.forEach((J, t) => {
        const frame = { I, J, skip: t > seen, last: t === seen, before: [...m] };
        const c = new Array(N).fill(null);
        if (t === 0) moved.reads += I.length * d;
        if (!frame.skip) {
          moved.reads += 2 * J.length * d;
          frame.S = scores(q, k, I, J, causal);
          frame.P = visit(frame.S, v, I, J, { m, l, o, c });
        }
        if (frame.last) {
          I.forEach((i) => { o[i] = o[i].map((x) => x / l[i]); });
          moved.writes += I.length * d;
        }
        frames.push({
          ...frame, m: [...m], l: [...l], c, o: copy(o), moved: { ...moved },
          finished: t >= seen ? I.at(-1) + 1 : I[0],
        });
      });
    });
    return { frames, o, m, l };
  }

  /** The online softmax of one tile pair: updates m, l and o, returns the exponentials. */
  function visit(S, v, I, J, { m, l, o, c }) {
    const P = J.map(() => []);
    I.forEach((i, a) => {
      const top = Math.max(m[i], ...S.map((row) => row[a]));
      c[i] = Math.exp(m[i] - top);
      m[i] = top;
      l[i] *= c[i];
      o[i] = o[i].map((x) => x * c[i]);
      J.forEach((j, b) => {
        P[b][a] = Math.exp(S[b][a] - top);
        l[i] += P[b][a];
        addTo(o[i], P[b][a], v[j]);
      });
    });
    return P;
  }

  /** One frame for each pair, keys outside. Tiles of queries count as slow memory. */
  function backward({ q, k, v, dO }, tile, causal) {
    const { o, m, l } = forward({ q, k, v }, tile, causal);
    const N = q.length;
    const d = q[0].length;
    const [dq, dk, dv] = [zeros(N, d), zeros(N, d), zeros(N, d)];
    const delta = dO.map((column, i) => dot(column, o[i]));
    const moved = { reads: 6 * N * d, writes: 4 * N * d }; // queries laid out both ways
    const frames = [];
    const parts = tiles(N, tile);
    parts.forEach((J, t) => {
      parts.forEach((I, u) => {
        const frame = { I, J, skip: causal && u < t, last: u === parts.length - 1 };
        if (u === 0) moved.reads += 2 * J.length * d;
        if (!frame.skip) {
          moved.reads += 5 * I.length * d;
          moved.writes += I.length * d;
          frame.S = scores(q, k, I, J, causal);
          Object.assign(frame, revisit(frame.S, { q, k, v, dO, m, l, delta, dq, dk, dv }, I, J));
        }
        if (frame.last) moved.writes += 2 * J.length * d;
        const end = frame.last && t === parts.length - 1;
        if (end) { moved.reads += N * d; moved.writes += N * d; } // dq goes back
        frames.push({
          ...frame, m, l, delta, dq: copy(dq), dk: copy(dk), dv: copy(dv),
          moved: { ...moved }, finished: frame.last ? J.at(-1) + 1 : J[0],
        });
      });
    });
    return { frames, dq, dk, dv };
  }

  /** The five products of one tile pair of the backward pass. */
  function revisit(S, { q, k, v, dO, m, l, delta, dq, dk, dv }, I, J) {
    const root = Math.sqrt(q[0].length);
    const P = S.map((row) => row.map((s, a) => Math.exp(s - m[I[a]]) / l[I[a]]));
    const dS = J.map((j, b) => I.map((i, a) => P[b][a] * (dot(dO[i], v[j]) - delta[i])));
    J.forEach((j, b) => I.forEach((i, a) => {
      addTo(dv[j], P[b][a], dO[i]);
      addTo(dk[j], dS[b][a] / root, q[i]);
      addTo(dq[i], dS[b][a] / root, k[j]);
    }));
    return { P, dS };
  }

  /** Numbers that the plain version moves, each of its kernels reading and writing once. */
  function naiveTraffic(N, d, back) {
    return back ? { reads: 6 * N * N + 7 * N * d, writes: 3 * N * N + 3 * N * d }
      : { reads: 3 * N * N + 3 * N * d, writes: 3 * N * N + N * d };
  }

  const bytes = ({ reads, writes }) => BYTES * (reads + writes);

  // The picture: scores in the middle, Q above, K to the left, V to the right.

  const STRIP = 11; // width of one feature
  const LEFT = 26;
  const TOP = 18;

  function tint(name, share) {
    return `color-mix(in srgb, var(--${name}) ${Math.round(100 * share)}%, var(--paper))`;
  }

  /** Columns of Q above the grid, rows of K and V beside it; fast memory is framed. */
  function strips(data, frame, d, cell, x0, y0) {
    const N = data.q.length;
    const marks = [];
    const share = (value, near) => (near ? 0.35 : 0.12) + (near ? 0.6 : 0.2) * (Math.abs(value) / 2);
    const rect = (x, y, width, height, name, value, near) => marks.push(
      svg("rect", { x, y, width, height, fill: tint(name, share(value, near)), stroke: "var(--paper)" }));
    range(0, N).forEach((p) => range(0, d).forEach((c) => {
      rect(x0 + cell * p, TOP + STRIP * c, cell, STRIP, "q", data.q[p][c], frame.I.includes(p));
      rect(LEFT + STRIP * c, y0 + cell * p, STRIP, cell, "k", data.k[p][c], frame.J.includes(p));
      rect(x0 + cell * N + 8 + STRIP * c, y0 + cell * p, STRIP, cell, "v", data.v[p][c], frame.J.includes(p));
    }));
    const outline = (x, y, width, height, name) => marks.push(svg("rect", {
      x, y, width, height, fill: "none", stroke: `var(--${name})`, "stroke-width": 3,
    }));
    if (!frame.skip) {
      outline(x0 + cell * frame.I[0], TOP, cell * frame.I.length, STRIP * d, "q");
      outline(LEFT, y0 + cell * frame.J[0], STRIP * d, cell * frame.J.length, "k");
      outline(x0 + cell * N + 8, y0 + cell * frame.J[0], STRIP * d, cell * frame.J.length, "v");
    }
    const word = (x, y, text) => marks.push(svg("text", { x, y, "font-weight": "bold" }, text));
    word(x0 - 12, TOP + 10, "Q");
    word(LEFT + (STRIP * d) / 2, y0 - 6, "K");
    word(x0 + cell * N + 8 + (STRIP * d) / 2, y0 - 6, "V");
    return marks;
  }

  /** What became of a pair of tiles up to frame `at`: "ahead", "now", "used" or "skipped". */
  function fate(frames, k, at) {
    if (k > at) return "ahead";
    if (frames[k].skip) return "skipped";
    return k === at ? "now" : "used";
  }

  const FILL = { ahead: "none", used: tint("other", 0.3), skipped: "none", now: "none" };

  /** The grid of scores; only the tile at hand holds numbers. */
  function grid(frames, at, cell, x0, y0) {
    const marks = [];
    frames.forEach(({ I, J }, k) => {
      const state = fate(frames, k, at);
      const [x, y] = [x0 + cell * I[0], y0 + cell * J[0]];
      const [width, height] = [cell * I.length, cell * J.length];
      marks.push(svg("rect", {
        x, y, width, height, fill: FILL[state], stroke: "var(--other)",
        "stroke-dasharray": state === "skipped" ? "3 3" : "none",
      }));
      if (state === "skipped" && width > 30) {
        marks.push(svg("text", { x: x + width / 2, y: y + height / 2 + 4 }, "skip"));
      }
    });
    const { I, J, P, skip } = frames[at];
    if (!skip) {
      J.forEach((j, b) => I.forEach((i, a) => {
        const [x, y, p] = [x0 + cell * i, y0 + cell * j, P[b][a]];
        marks.push(svg("rect", { x, y, width: cell, height: cell, fill: tint("other", 0.5 * p), stroke: "var(--other)" }));
        marks.push(svg("text", { x: x + cell / 2, y: y + cell / 2 + 4 }, p ? fixed(p) : "–"));
      }));
    }
    marks.push(svg("rect", {
      x: x0 + cell * I[0], y: y0 + cell * J[0], width: cell * I.length, height: cell * J.length,
      fill: "none", stroke: "currentColor", "stroke-width": 2.5,
    }));
    return marks;
  }

  function picture(data, frames, at) {
    const N = data.q.length;
    const d = data.q[0].length;
    const x0 = LEFT + STRIP * d + 8;
    const cell = Math.min(34, Math.floor((340 - x0 - STRIP * d - 16) / N));
    const y0 = TOP + STRIP * d + 16;
    return svg("svg", {
      viewBox: `0 0 340 ${y0 + cell * N + 6}`, role: "img",
      "aria-label": "Grid of scores, a column for each query and a row for each key, with Q above, K to the left and V to the right; the line below says what happens",
    }, ...strips(data, frames[at], d, cell, x0, y0), ...grid(frames, at, cell, x0, y0));
  }

  /** A small still picture of one frame: the tiles only. */
  function miniature(frames, at, N) {
    const marks = frames.map(({ I, J }, k) => {
      const state = fate(frames, k, at);
      return svg("rect", {
        x: I[0], y: J[0], width: I.length, height: J.length, "stroke-width": N / 50,
        fill: k === at && state === "now" ? "currentColor" : FILL[state], stroke: "var(--other)",
        "stroke-dasharray": state === "skipped" ? N / 20 : "none",
      });
    });
    return svg("svg", { viewBox: `0 0 ${N} ${N}`, "aria-hidden": "true" }, ...marks);
  }

  const span = (I) => (I.length > 1 ? `${I[0]} to ${I.at(-1)}` : `${I[0]}`);

  /** One sentence on a frame of the forward pass. */
  function tellForward({ I, J, skip, last, before, m }) {
    const place = `Queries ${span(I)}, keys ${span(J)}: `;
    if (skip) return `${place}skipped, these keys come later than every query of the tile.`;
    const moved = I.filter((i) => J[0] > 0 && m[i] > before[i]);
    const what = J[0] === 0 ? "the first keys, the sums begin"
      : moved.length ? `new maximum for ${moved.join(", ")}, so what had been added up shrinks`
        : "no new maximum, every correction factor is 1";
    return place + what + (last ? "; the output is divided by the sum and written." : ".");
  }

  function tellBackward({ I, J, skip, last }) {
    const place = `Keys ${span(J)}, queries ${span(I)}: `;
    if (skip) return `${place}skipped, none of these queries sees the keys.`;
    return `${place}P is computed again; it adds to dV, dK and dQ${last ? "; dK and dV are complete and written." : "."}`;
  }

  /** What lies in fast memory at a frame, and how many numbers that is. */
  function fastMemory({ I, J, skip }, d, back) {
    if (skip) return "In fast memory: nothing new, this pair is never fetched.";
    const [n, keys] = [I.length, J.length];
    const parts = back
      ? { "Q, dO (both ways round), dQ": 5 * n * d, "K, V, dK, dV": 4 * keys * d, "S, dP": 2 * n * keys, "m, 1/l, δ": 3 * n }
      : { Q: n * d, "K, V": 2 * keys * d, S: n * keys, O: n * d, "m, l, correction": 3 * n };
    const total = Object.values(parts).reduce((sum, x) => sum + x, 0);
    const list = Object.entries(parts).map(([name, size]) => `${name} ${size}`).join("; ");
    return `In fast memory: ${list}. Together ${total} numbers.`;
  }

  const row = (name, values, digits = 2) => [name, ...values.map((x) => (x === null ? "" : fixed(x, digits)))];
  const features = (name, x) => x[0].map((_, c) => row(`${name} ${c}`, x.map((column) => column[c])));

  /** Numbers of every position: those of the tile at hand are framed. */
  function kept(frame, back) {
    const { I, J, m, l } = frame;
    const N = m.length;
    const head = ["", ...range(0, N).map(String)];
    const mark = (node, at) => {
      for (const { cells } of node.tHead.rows) at.forEach((p) => cells[p + 1].classList.add("now"));
      return node;
    };
    if (!back) {
      const rows = [row("m", m), row("l", l), row("c", frame.c), ...features("o", frame.o)];
      const raw = frame.finished < N ? `; outputs from ${frame.finished} on are not divided yet` : "; all outputs are divided";
      return [mark(table(`Kept for each query${raw}`, head, rows), I)];
    }
    const [queries, keys] = [features("dq", frame.dq), [...features("dk", frame.dk), ...features("dv", frame.dv)]];
    return [
      mark(table("Queries: statistics, and dQ so far", head, [row("m", m), row("l", l), row("δ", frame.delta), ...queries]), I),
      mark(table("Keys: dK and dV so far", head, keys), J),
    ];
  }

  function build(box) {
    const said = narrator();
    const memory = el("p", { class: "island-memory-line" });
    const drawing = el("div");
    const numbers = el("div", { class: "island-numbers" });
    const strip = el("div", { class: "island-strip", role: "group", "aria-label": "All frames" });
    const traffic = el("div");
    let seed = 1;
    let data;
    let frames;

    const length = slider("positions N", { min: 2, max: 8, value: 7 }, restart);
    const tile = slider("tile", { min: 1, max: 8, value: 3 }, restart);
    const width = slider("features d", { min: 1, max: 4, value: 2 }, restart);
    const causal = checkbox("causal", true, restart);
    const way = choice("Pass", { forward: "forward", backward: "backward" }, "forward", restart);
    const play = player("tile pair", show, 1600);
    const back = () => way.value === "backward";

    function restart() {
      data = toy(length.value, width.value, seed);
      frames = (back() ? backward : forward)(data, Math.min(tile.value, length.value), causal.value).frames;
      drawStrip();
      play.reset(frames.length);
    }

    function drawStrip() {
      strip.hidden = !still.matches;
      const tell = (frame, k) => `pair ${k + 1}: queries ${span(frame.I)}, keys ${span(frame.J)}`;
      strip.replaceChildren(...(still.matches ? frames.map((frame, k) => {
        const node = button(String(k + 1), () => play.go(k), { "aria-label": tell(frame, k) });
        node.append(miniature(frames, k, length.value));
        return node;
      }) : []));
    }

    function count(frame) {
      const plain = naiveTraffic(length.value, width.value, back());
      const line = (name, x) => [name, String(x.reads), String(x.writes), String(bytes(x))];
      return table("Numbers moved between slow and fast memory, and their bytes",
        ["", "read", "written", "bytes"],
        [line("tiled, so far", frame.moved), line("tiled, at the end", frames.at(-1).moved), line("plain, at the end", plain)]);
    }

    function show(k, playing) {
      const frame = frames[k];
      drawing.replaceChildren(picture(data, frames, k));
      numbers.replaceChildren(...kept(frame, back()));
      traffic.replaceChildren(count(frame));
      memory.textContent = fastMemory(frame, width.value, back());
      [...strip.children].forEach((node, at) => {
        if (at === k) node.setAttribute("aria-current", "step");
        else node.removeAttribute("aria-current");
      });
      said.say((back() ? tellBackward : tellForward)(frame), playing);
    }

    still.addEventListener("change", () => { drawStrip(); play.go(play.frame); });
    box.append(
      el("div", { class: "island-controls" }, length.node, tile.node, width.node),
      el("div", { class: "island-controls" }, way.node, causal.node,
        button("Other numbers", () => { seed += 1; restart(); })),
      play.node, strip, said.node, drawing,
      el("p", { class: "island-keys" },
        ...["q", "k", "v"].map((x) => el("span", { class: "island-key", style: `--swatch: var(--${x})` }, x.toUpperCase())),
        el("span", {}, "framed: in fast memory · grey: used and forgotten · dashed: skipped")),
      memory, numbers, traffic);
    restart();
  }

  window.islands.flash = { toy, forward, backward, naiveTraffic };
  mount("flash-walk", "Explorer: FlashAttention, tile pair by tile pair", build);
}
