"use strict";
// What the islands share: elements, labelled controls, a player, and the mounting.
// Plain scripts with one global, because browsers load no modules from file:// pages.
window.islands = {};
{
  const SVG = "http://www.w3.org/2000/svg";

  /** Attributes of an element: functions listen, booleans switch, the rest is text. */
  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (typeof value === "boolean") node.toggleAttribute(name, value);
      else node.setAttribute(name, value);
    }
    return node;
  }

  function el(tag, attributes = {}, ...children) {
    const node = set(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  }

  function svg(tag, attributes = {}, ...children) {
    const node = set(document.createElementNS(SVG, tag), attributes);
    node.append(...children);
    return node;
  }

  /** A number with so many decimals, a true minus sign, and no minus zero. */
  function fixed(x, digits = 2) {
    if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "–";
    const text = x.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  let ids = 0;

  /** A labelled slider; `shown` says how its value is written beside it. */
  function slider(label, { min, max, step = 1, value, shown = String }, changed) {
    const output = el("output", { "aria-live": "off" }); // the slider says it itself
    const input = el("input", { type: "range", min, max, step, id: `island-${++ids}` });
    const name = el("label", { for: input.id }, label);
    const node = el("div", { class: "island-slider" }, name, input, output);
    const tell = () => {
      output.textContent = shown(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    const control = {
      node,
      input,
      get value() { return Number(input.value); },
      set value(x) { input.value = x; tell(); },
      limit(most) { input.max = most; tell(); },
    };
    control.value = value;
    input.addEventListener("input", () => { tell(); changed(control.value); });
    return control;
  }

  /** A group of radio buttons; options: {value: text}. */
  function choice(label, options, value, changed) {
    const name = `island-${++ids}`;
    const control = { value };
    control.node = el("fieldset", { class: "island-choice" }, el("legend", {}, label));
    for (const [key, text] of Object.entries(options)) {
      const change = () => { control.value = key; changed(key); };
      const input = el("input", { type: "radio", name, value: key, change });
      input.checked = key === value;
      control.node.append(el("label", {}, input, text));
    }
    return control;
  }

  function checkbox(label, value, changed) {
    const input = el("input", { type: "checkbox", change: () => changed(input.checked) });
    input.checked = value;
    const node = el("label", { class: "island-check" }, input, label);
    return { node, input, get value() { return input.checked; } };
  }

  function button(text, click, attributes = {}) {
    return el("button", { type: "button", click, ...attributes }, text);
  }

  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  /**
   * Buttons and a slider for the frames 0 .. count - 1; show(frame, playing) draws one.
   * Whoever asked for reduced motion gets no button that plays.
   */
  function player(label, show, pace = 700) {
    let timer = null;
    let count = 1;
    const scrub = slider(label, { min: 0, max: 0, value: 0, shown: (k) => `${k + 1} of ${count}` },
      (k) => { pause(); show(k, false); });
    const play = button("Play", () => (timer === null ? start() : pause()));
    const go = (k) => { pause(); move(k, false); };
    const node = el("div", { class: "island-player", role: "group", "aria-label": label },
      el("div", { class: "island-buttons" },
        button("Start", () => go(0)), button("Back", () => go(scrub.value - 1)), play,
        button("Next", () => go(scrub.value + 1)), button("End", () => go(count - 1))),
      scrub.node);
    function move(k, playing) {
      scrub.value = Math.max(0, Math.min(k, count - 1));
      show(scrub.value, playing);
    }
    function pause() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    }
    function start() {
      if (scrub.value === count - 1) move(0, true);
      play.textContent = "Pause";
      timer = setInterval(() => {
        move(scrub.value + 1, true);
        if (scrub.value === count - 1) { pause(); show(scrub.value, false); }
      }, pace);
    }
    function obey() {
      if (still.matches) pause();
      play.hidden = still.matches;
    }
    still.addEventListener("change", obey);
    obey();
    return {
      node,
      get frame() { return scrub.value; },
      go,
      /** Begin anew with another number of frames. */
      reset(frames, frame = 0) { count = frames; scrub.limit(frames - 1); go(frame); },
    };
  }

  /** A line that says what a frame shows; silent for listeners while it plays. */
  function narrator() {
    const node = el("p", { class: "island-status", role: "status" });
    return {
      node,
      say(text, playing = false) {
        node.setAttribute("aria-live", playing ? "off" : "polite");
        node.textContent = text;
      },
    };
  }

  /** A table: headings of its columns, then rows that begin with their own heading. */
  function table(caption, head, rows) {
    const heading = (text, scope) => el("th", { scope }, text);
    return el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, ...head.map((text) => heading(text, "col")))),
      el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {},
        heading(first, "row"), ...rest.map((text) => el("td", {}, text))))));
  }

  /** Put an island into its places; its text comes back in print, or if building fails. */
  function mount(name, title, build) {
    for (const place of document.querySelectorAll(`[data-island="${name}"]`)) {
      const box = el("div", { class: "island-box", role: "group", "aria-label": title },
        el("p", { class: "island-title" }, title));
      build(box);
      place.append(box);
      place.classList.add("island-live");
    }
  }

  Object.assign(window.islands, {
    el, svg, fixed, slider, choice, checkbox, button, player, narrator, table, mount, still,
  });
}
