"use strict";
// Two training runs, stop by stop: loss, names, letters and the twelve scalars.
{
  const { el, svg, fixed, player, narrator, table, mount } = window.islands;
  const STARTS = { seed: "Start “seed”", asymmetric: "Start “asymmetric”" };
  const VOWELS = "aeiou";

  /** A function from numbers between `low` and `high` to places between `a` and `b`. */
  function scale(low, high, a, b) {
    return (x) => a + ((x - low) / (high - low)) * (b - a);
  }

  /** Mean losses between the stops: those still to come are grey. */
  function lossCurve(losses, at, low, high) {
    const x = scale(1, losses.length, 34, 292);
    const y = scale(low, high, 88, 10);
    const points = losses.map((loss, k) => `${x(k + 1).toFixed(1)},${y(loss).toFixed(1)}`);
    const line = (part, stroke, width) => svg("polyline", {
      points: part.join(" "), fill: "none", stroke, "stroke-width": width,
    });
    const marks = [low, high].flatMap((loss) => [
      svg("line", { x1: 34, x2: 292, y1: y(loss), y2: y(loss), stroke: "currentColor", "stroke-opacity": 0.3 }),
      svg("text", { x: 16, y: y(loss) + 4 }, fixed(loss, 1)),
    ]);
    marks.push(line(points, "var(--other)", 1), line(points.slice(0, at), "currentColor", 2.5));
    if (at > 0) marks.push(svg("circle", { cx: x(at), cy: y(losses[at - 1]), r: 4 }));
    return svg("svg", { viewBox: "0 0 300 98", role: "img", "aria-label": "Mean loss up to this stop" }, ...marks);
  }

  /** The letters' embeddings in the plane; the same plane and scale at every stop. */
  function letterMap(letters, chars, [wide, high]) {
    const unit = 138 / wide;
    const middle = Math.round(high * unit) + 12;
    const marks = letters.map(([x, y], k) => svg("text", {
      x: (150 + unit * x).toFixed(1), y: (middle - unit * y + 4).toFixed(1),
      "font-weight": VOWELS.includes(chars[k]) ? "bold" : "normal",
      "text-decoration": VOWELS.includes(chars[k]) ? "underline" : "none",
      "font-size": chars[k] ? 13 : 9,
    }, chars[k] ?? "BOS"));
    marks.unshift(svg("rect", { x: 1, y: 1, width: 298, height: 2 * middle - 2, fill: "none", stroke: "var(--other)" }));
    return svg("svg", {
      viewBox: `0 0 300 ${2 * middle}`, role: "img",
      "aria-label": "Embeddings of the letters in two dimensions; vowels are underlined",
    }, ...marks);
  }

  const ROWS = [
    ["attention θ", "0.attn.theta"], ["attention α", "0.attn.alpha"], ["attention β", "0.attn.beta"],
    ["MLP θ", "0.mlp.theta"], ["MLP α", "0.mlp.alpha"], ["MLP β", "0.mlp.beta"],
    ["contract", "contract"],
  ];

  function scalarTable(scalars) {
    const rows = ROWS.map(([name, key]) => [name, ...scalars[key].map((x) => fixed(x, 3))]);
    const node = table("Scalars", ["", "stream 0", "stream 1"], rows);
    for (const row of node.tBodies[0].rows) {
      if (row.cells.length === 2) row.cells[1].colSpan = 2; // one θ for both streams
    }
    return node;
  }

  /** The half of the film that shows one start; returns its node and how to move it. */
  function screen(start, { reel, chars, low, high, most }) {
    const parts = Array.from({ length: 4 }, () => el("div"));
    const [curve, names, letters, scalars] = parts;
    const node = el("div", { role: "group", "aria-label": STARTS[start] },
      el("p", { class: "island-part" }, STARTS[start]), ...parts);
    function show(k) {
      curve.replaceChildren(lossCurve(reel.loss, k, low, high));
      names.replaceChildren(el("p", {}, "Names: ", el("em", {}, reel.names[k].join(", "))));
      letters.replaceChildren(letterMap(reel.letters[k], chars, most));
      scalars.replaceChildren(scalarTable(reel.scalars[k]));
    }
    return { node, show };
  }

  function build(box) {
    const { every, chars, ...reels } = window.islands.film;
    const said = narrator();
    const losses = Object.values(reels).flatMap((reel) => reel.loss);
    const places = Object.values(reels).flatMap((reel) => reel.letters.flat());
    const most = [0, 1].map((axis) => Math.max(...places.map((at) => Math.abs(at[axis]))));
    const limits = { chars, most, low: Math.floor(10 * Math.min(...losses)) / 10, high: Math.ceil(10 * Math.max(...losses)) / 10 };
    const screens = Object.keys(STARTS).map((start) => screen(start, { reel: reels[start], ...limits }));
    const play = player("stop", show, 400);

    function show(k, playing) {
      screens.forEach((screen) => screen.show(k));
      const loss = (start) => fixed(reels[start].loss[k - 1], 3);
      said.say(k === 0 ? "Before the first step: random weights." : `After ${k * every} steps. Mean loss of the last `
        + `${every}: ${loss("seed")} (seed), ${loss("asymmetric")} (asymmetric).`, playing);
    }

    box.append(play.node, said.node,
      el("div", { class: "island-screens" }, ...screens.map((screen) => screen.node)));
    play.reset(reels.seed.names.length);
  }

  mount("training-film", "Film: a thousand steps of training from two starts", build);
}
