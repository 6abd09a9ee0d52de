"use strict";
/* Pictures of what the model computes. Each function returns elements and knows nothing
 * of the page that they go to. */
{
  const IN_SVG = new Set(["svg", "rect", "text", "title", "line"]);

  const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%`;
  const places = (values) => Array.from(values.keys());

  /* An element with attributes and children; strings become text, never HTML. */
  function make(tag, attributes = {}, ...children) {
    const made = IN_SVG.has(tag)
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  /* Bars: the probability of each next token, as high as it is likely beside the others. */
  function bars(weights, signs, drawn) {
    const most = Math.max(...weights);
    return places(weights).map((id) => {
      const style = `--p: ${weights[id]}; --height: ${weights[id] / most}`;
      const title = `${signs[id]} ${percent(weights[id])}`;
      const kind = id === drawn ? "live-chosen" : "";
      return make(
        "span",
        { style, title, class: kind },
        make("i"),
        make("b", {}, signs[id]),
      );
    });
  }

  /* "a 32%, i 16%, ...": the likeliest tokens in words. */
  function likeliest(weights, signs) {
    const order = places(weights).sort((a, b) => weights[b] - weights[a]);
    const found = order.slice(0, 4).map((id) => `${signs[id]} ${percent(weights[id])}`);
    return found.join(", ");
  }

  /* One head, as chapter 10 draws it: a column for each query, a row for each key. */
  function headMap(weights, letters, name) {
    const n = letters.length;
    const size = Math.max(n, 7); // a short name has a small map, not large cells
    const cells = weights.flatMap((column, i) =>
      places(column).map((j) => {
        const title = make(
          "title",
          {},
          `${letters[i]} looks at ${letters[j]}: ${percent(column[j])}`,
        );
        const style = `--p: ${column[j]}`;
        return make("rect", { x: i, y: j, width: 1, height: 1, style }, title);
      }),
    );
    const marks = letters.flatMap((letter, i) => [
      make("text", { x: -0.6, y: i + 0.75 }, letter),
      make("text", { x: i + 0.5, y: n + 0.85 }, letter),
    ]);
    const last = weights.at(-1);
    const best = last.indexOf(Math.max(...last));
    const label = `${name}: at ${letters.at(-1)}, position ${n}, it looks most at ${letters[best]}, position ${best + 1}: ${percent(last[best])}`;
    const viewBox = `-1.2 -0.1 ${size + 1.3} ${size + 1.3}`;
    const svg = make(
      "svg",
      { viewBox, role: "img", "aria-label": label },
      ...cells,
      ...marks,
    );
    return make("div", {}, make("span", { "aria-hidden": "true" }, name), svg);
  }

  function headMaps(readings, letters) {
    return readings[0].attention.flatMap((heads, layer) =>
      places(heads).map((h) => {
        const weights = readings.map((reading) => reading.attention[layer][h]);
        return headMap(weights, letters, `head ${h}`);
      }),
    );
  }

  /* One stream: a bar for each feature, upwards where it is positive. */
  function strip(stream, i, most, stage) {
    const rects = places(stream).map((c) => {
      const height = Math.abs(stream[c]) / most;
      const y = stream[c] > 0 ? 1 - height : 1;
      return make("rect", {
        x: c + 0.1,
        y,
        width: 0.8,
        height,
        class: `live-stream-${i}`,
      });
    });
    const line = make("line", { x1: 0, x2: stream.length, y1: 1, y2: 1 });
    const found = Array.from(stream, (value) => value.toFixed(2)).join(", ");
    const label = `stream ${i} ${stage}: ${found}`;
    const box = { viewBox: `0 0 ${stream.length} 2`, preserveAspectRatio: "none" };
    return make("svg", { ...box, role: "img", "aria-label": label }, ...rects, line);
  }

  function streamRows(streams) {
    const most = Math.max(...streams.flat().map((s) => Math.max(...s.map(Math.abs))));
    return streams.map((pair, k) => {
      const stage = k === 0 ? "embedded" : k % 2 ? "after attention" : "after the MLP";
      const strips = pair.map((stream, i) => strip(stream, i, most, stage));
      return make("div", {}, make("span", { "aria-hidden": "true" }, stage), ...strips);
    });
  }

  const streamsApart = (streams) =>
    streams.some(([s0, s1]) => s0.some((value, c) => value !== s1[c]));

  Object.assign(window.live, {
    bars,
    headMaps,
    likeliest,
    make,
    percent,
    streamRows,
    streamsApart,
  });
}
