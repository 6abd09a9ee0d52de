"use strict";
// Doubly stochastic mixing: the segment for two streams, Sinkhorn's iteration for more.
{
  const { el, svg, fixed, slider, choice, button, player, narrator, table, mount } = window.islands;

  /** A = t I + (1 - t) P with t = sigmoid(theta), as rows; both entries keep precision. */
  function birkhoff(theta) {
    const e = Math.exp(-Math.abs(theta));
    const small = e / (1 + e);
    const [t, rest] = theta < 0 ? [small, 1 - small] : [1 - small, small];
    return [[t, rest], [rest, t]];
  }

  /** m_i = sum_j A_ij s_j for streams that are lists of features. */
  function mix(A, s) {
    return A.map((row) => s[0].map((_, c) => row.reduce((sum, a, j) => sum + a * s[j][c], 0)));
  }

  /** log of the sum of exponentials; no exponential can overflow. */
  function logSum(values) {
    const top = Math.max(...values);
    return top + Math.log(values.reduce((sum, x) => sum + Math.exp(x - top), 0));
  }

  const columnsOf = (M) => M[0].map((_, j) => M.map((row) => row[j]));
  const sum = (values) => values.reduce((total, x) => total + x, 0);

  /** Every half of Sinkhorn's iteration: the start, columns normalised, rows, columns ... */
  function sinkhornHalves(logits, halves) {
    let log = logits.map((row) => [...row]);
    const frames = [{ log, done: "start" }];
    for (let k = 1; k <= halves; k += 1) {
      const byColumns = k % 2 === 1;
      const lines = byColumns ? columnsOf(log) : log;
      const sums = lines.map(logSum);
      log = log.map((row, i) => row.map((x, j) => x - sums[byColumns ? j : i]));
      frames.push({ log, done: byColumns ? "columns" : "rows" });
    }
    return frames.map(({ log, done }) => ({ done, M: log.map((row) => row.map(Math.exp)) }));
  }

  /** The package's sinkhorn(logits, iterations). */
  function sinkhorn(logits, iterations) {
    return sinkhornHalves(logits, 2 * iterations).at(-1).M;
  }

  // Columns 3 and 2 of the toy matrix, as in the figure of the mixed streams
  const STREAMS = [[1, 3, -1, 5], [4, 2, -2, -1]];

  /** Bars of two streams before (outlined) and after mixing (filled), and their mean. */
  function bars(before, after) {
    const zero = 110;
    const unit = 18;
    const marks = [svg("line", { x1: 10, x2: 330, y1: zero, y2: zero, stroke: "currentColor" })];
    const bar = (x, value, more) => svg("rect", {
      x, width: 24, y: zero - Math.max(value, 0) * unit, height: Math.abs(value) * unit, ...more,
    });
    before[0].forEach((_, c) => {
      for (const i of [0, 1]) {
        const x = 22 + 80 * c + 32 * i;
        const colour = `var(--stream-${i})`;
        marks.push(bar(x, after[i][c], { fill: colour, "fill-opacity": 0.55 }));
        marks.push(bar(x, before[i][c], { fill: "none", stroke: colour, "stroke-width": 1.5, "stroke-dasharray": "3 2" }));
      }
      const mean = zero - ((after[0][c] + after[1][c]) / 2) * unit;
      marks.push(svg("line", { x1: 16 + 80 * c, x2: 84 + 80 * c, y1: mean, y2: mean, stroke: "currentColor", "stroke-width": 2.5 }));
      marks.push(svg("text", { x: 50 + 80 * c, y: 166 }, `feature ${c}`));
    });
    const label = "Bars of two streams with four features. Dashed outlines: before mixing. Filled: after mixing. A line across each pair: their mean.";
    return svg("svg", { viewBox: "0 0 340 172", role: "img", "aria-label": label }, ...marks);
  }

  function buildMixing(box) {
    const said = narrator();
    const picture = el("div");
    const matrix = el("div");
    const numbers = el("div");
    const theta = slider("θ", { min: -6, max: 6, step: 0.1, value: 1, shown: (x) => fixed(x, 1) }, show);

    function show(x) {
      const A = birkhoff(x);
      const m = mix(A, STREAMS);
      matrix.replaceChildren(table("A", ["", "from 0", "from 1"],
        A.map((row, i) => [`to ${i}`, ...row.map((a) => fixed(a, 4))])));
      picture.replaceChildren(bars(STREAMS, m));
      numbers.replaceChildren(table("Streams before (s) and after mixing (m)",
        ["feature", "s₀", "s₁", "m₀", "m₁", "mean"],
        STREAMS[0].map((_, c) => [String(c), fixed(STREAMS[0][c], 0), fixed(STREAMS[1][c], 0),
          fixed(m[0][c], 3), fixed(m[1][c], 3), fixed((m[0][c] + m[1][c]) / 2, 3)])));
      const t = A[0][0];
      said.say(`θ = ${fixed(x, 1)}: t = σ(θ) = ${fixed(t, 4)}. The difference of the streams is `
        + `multiplied by 2t − 1 = ${fixed(2 * t - 1, 4)}; their mean does not move.`);
    }

    box.append(el("p", { class: "island-part" }, "Two streams, one number: A = t I + (1 − t) P"),
      theta.node, said.node, el("div", { class: "island-pair" }, matrix, numbers), picture,
      el("p", { class: "island-keys" },
        el("span", { class: "island-key", style: "--swatch: var(--stream-0)" }, "stream 0"),
        el("span", { class: "island-key", style: "--swatch: var(--stream-1)" }, "stream 1"),
        el("span", {}, "dashed: before · filled: after · line: mean")));
    show(theta.value);
  }

  const LOGITS = [[-1, 2.5, 0, 0.5], [1, -0.5, 1.5, 0], [0, 0.5, -2, 1], [3, 0, 0.5, -1]];
  const ITERATIONS = 20; // as many as the mHC paper takes

  /** Largest distance of a sum from one. */
  const error = (lines) => Math.max(...lines.map((line) => Math.abs(sum(line) - 1)));

  /** The matrix with its row sums at the right and its column sums below. */
  function withSums({ M, done }) {
    const n = M.length;
    const node = table("Matrix, its row sums, its column sums",
      ["", ...M.map((_, j) => `${j}`), "sum"],
      [...M.map((row, i) => [`${i}`, ...row, sum(row)]), ["sum", ...columnsOf(M).map(sum), ""]]
        .map(([name, ...rest]) => [name, ...rest.map((x) => (x === "" ? "" : fixed(x, x < 100 ? 3 : 1)))]));
    const rows = node.tBodies[0].rows;
    for (let k = 0; k < n; k += 1) {
      if (done === "rows") rows[k].cells[n + 1].classList.add("now");
      if (done === "columns") rows[n].cells[k + 1].classList.add("now");
    }
    return node;
  }

  /** Errors of the sums that were not just normalised, on a logarithmic axis. */
  function errors(frames, at) {
    const height = (e) => 12 + 6.5 * Math.min(14, -Math.log10(Math.max(e, 1e-14)));
    const marks = [0, 4, 8, 12].flatMap((k) => [
      svg("line", { x1: 40, x2: 332, y1: height(10 ** -k), y2: height(10 ** -k), stroke: "currentColor", "stroke-opacity": 0.25 }),
      svg("text", { x: 20, y: height(10 ** -k) + 4 }, k ? `1e−${k}` : "1"),
    ]);
    frames.forEach(({ M, done }, k) => {
      if (k === 0) return;
      const left = Math.min(1, error(done === "columns" ? M : columnsOf(M)));
      marks.push(svg("circle", {
        cx: 44 + 7 * k, cy: height(left), r: k === at ? 5 : 2.5,
        fill: k <= at ? "currentColor" : "var(--other)",
      }));
    });
    marks.push(svg("text", { x: 186, y: 122 }, "halves of an iteration →"));
    const label = "Largest error of the sums that were not just normalised, after every half of an iteration, logarithmic";
    return svg("svg", { viewBox: "0 0 340 128", role: "img", "aria-label": label }, ...marks);
  }

  function buildSinkhorn(box) {
    const said = narrator();
    const inputs = el("div", { class: "island-logits" });
    const matrix = el("div");
    const picture = el("div");
    let logits;
    let frames;

    const size = choice("Streams", { 2: "2", 3: "3", 4: "4" }, "4", reset);
    const play = player("frame", show, 600);

    function field(i, j) {
      const input = el("input", {
        type: "number", min: -50, max: 50, step: "any", required: true, value: logits[i][j],
        "aria-label": `logit of row ${i}, column ${j}`,
        input: () => {
          if (!input.checkValidity()) return; // keep the last number that was one
          logits[i][j] = Number(input.value);
          iterate();
        },
        change: () => { // whoever leaves the field sees the number that counts
          if (!input.checkValidity()) input.value = logits[i][j];
        },
      });
      return input;
    }

    function reset() {
      const n = Number(size.value);
      logits = LOGITS.slice(0, n).map((row) => row.slice(0, n));
      const node = table("Logits, from −50 to 50", ["", ...logits.map((_, j) => `${j}`)],
        logits.map((row, i) => [`${i}`, ...row.map((_, j) => field(i, j))]));
      inputs.replaceChildren(node);
      iterate();
    }

    function iterate() {
      frames = sinkhornHalves(logits, 2 * ITERATIONS);
      play.reset(frames.length);
    }

    function show(k, playing) {
      const frame = frames[k];
      const what = {
        start: "Start: the exponentials of the logits; no sum is right yet.",
        columns: `Iteration ${Math.ceil(k / 2)}, first half: every column was divided by its sum.`,
        rows: `Iteration ${k / 2}, second half: every row was divided by its sum.`,
      }[frame.done];
      matrix.replaceChildren(withSums(frame));
      picture.replaceChildren(errors(frames, k));
      said.say(`${what} Row sums off by at most ${error(frame.M).toExponential(1)}, `
        + `column sums by ${error(columnsOf(frame.M)).toExponential(1)}.`, playing);
    }

    box.append(el("p", { class: "island-part" }, "More streams: Sinkhorn's iteration, half by half"),
      el("div", { class: "island-controls" }, size.node, button("Reset the logits", reset)),
      el("div", { class: "island-pair" }, inputs, matrix), play.node, said.node, picture);
    reset();
  }

  window.islands.birkhoff = { birkhoff, mix, sinkhorn, sinkhornHalves, STREAMS, LOGITS };
  mount("birkhoff", "Explorer: the Birkhoff polytope", (box) => {
    buildMixing(box);
    buildSinkhorn(box);
  });
}
