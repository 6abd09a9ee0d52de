"use strict";
/* Puts the model into every element of class `live-model`: controls, the name that is
 * being drawn, and what the model computes for it. What stood there before is for readers
 * without scripts. The weights come when the reader gets near, not earlier. */
{
  const {
    MersenneTwister,
    GPT,
    Draft,
    bars,
    headMaps,
    likeliest,
    make,
    percent,
    streamRows,
    streamsApart,
  } = window.live;
  const STATIC = `${document.documentElement.dataset.content_root}_static/live/`;
  const PAUSE = 350; // milliseconds from letter to letter

  /* The model, fetched once a page. By a script, not by `fetch`: a page that was opened
   * from disk may load nothing else. */
  let model;
  function loadModel() {
    model ??= new Promise((resolve, reject) => {
      const script = make("script", { src: `${STATIC}weights.js` });
      script.onload = () => {
        const text = atob(window.live.weights);
        resolve(new GPT(Uint8Array.from(text, (byte) => byte.charCodeAt(0)).buffer));
      };
      script.onerror = () =>
        reject(new Error("The weights could not be loaded; try to reload the page."));
      document.head.append(script);
    });
    return model;
  }

  const PAGE = `
<form class="live-form">
  <label>Begins with <input name="prefix" autocomplete="off" autocapitalize="off" spellcheck="false"></label>
  <label>Seed <input name="seed" inputmode="numeric" autocomplete="off" value="42"></label>
  <label>Temperature <span aria-hidden="true">0.5</span>
    <input name="temperature" type="range" min="0.1" max="2" step="0.1" value="0.5"></label>
</form>
<p class="live-name"><span></span><strong></strong><i></i></p>
<p class="live-buttons">
  <button type="button" name="step">Step</button>
  <button type="button" name="play">Play</button>
  <button type="button" name="ten">Ten names</button>
  <button type="button" name="restart">Start over</button>
</p>
<p class="live-message" role="status"></p>
<ol class="live-names" aria-label="Names so far"></ol>
<figure><div class="live-bars"></div><figcaption></figcaption></figure>
<details class="live-inside"><summary>Look inside: attention and the two streams</summary>
  <figure><div class="live-heads"></div><figcaption>What each head looks at: a column
  for each query, a row for each key; the stronger the colour, the larger the weight.
  · is the beginning.</figcaption></figure>
  <figure><div class="live-streams"></div><figcaption></figcaption></figure>
</details>
<details class="live-python"><summary>The same names in Python</summary>
  <p>With <a download>names.safetensors</a>, the weights that this page uses:</p>
  <pre tabindex="0"></pre>
</details>`;

  class LiveModel {
    constructor(place) {
      const box = make("div", {
        class: "live-box",
        role: "group",
        "aria-label": "The model, at work",
      });
      box.innerHTML = PAGE;
      place.append(box);
      place.classList.add("live-on"); // hides what is for readers without scripts
      this.find = (selector) => box.querySelector(selector);
      this.form = this.find("form");
      this.find("a").href = `${STATIC}names.safetensors`;
      this.find(".live-inside").open = place.classList.contains("live-open");
      this.listen();
      this.restart();
    }

    listen() {
      const onClick = (name, act) =>
        this.find(`button[name=${name}]`).addEventListener("click", () =>
          this.whenReady(act),
        );
      onClick("step", () => this.step());
      onClick("play", () => this.play());
      onClick("ten", () => this.finish(10));
      onClick("restart", () => this.restart());
      this.form.addEventListener("focusin", () => this.load());
      this.form.addEventListener("input", () => this.restart());
      this.form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.whenReady(() => this.play());
      });
    }

    /* Fetch the model, unless it is here, and begin. */
    async load() {
      if (this.gpt) return;
      try {
        const gpt = await loadModel();
        if (!this.gpt) {
          this.gpt = gpt;
          this.restart();
        }
      } catch (error) {
        this.say(error.message);
      }
    }

    async whenReady(act) {
      await this.load();
      if (this.draft) act();
    }

    /* Begin anew with what the form says: the first name of this seed. */
    restart() {
      this.stop();
      const { prefix, seed, temperature } = this.form.elements;
      this.form.querySelector("span").textContent = temperature.value;
      this.names = [];
      this.draft = undefined;
      this.say("");
      for (const input of [prefix, seed]) input.removeAttribute("aria-invalid");
      if (
        this.gpt &&
        this.check(seed, () => this.reseed()) &&
        this.check(prefix, () => this.begin())
      ) {
        this.show();
      }
    }

    reseed() {
      const text = this.form.elements.seed.value.trim();
      if (!/^-?\d+$/.test(text))
        throw new RangeError(`“${text}” is not a seed; write an integer.`);
      this.rng = new MersenneTwister(BigInt(text));
    }

    /* A new name from the same generator. */
    begin() {
      const { prefix, temperature } = this.form.elements;
      this.draft = new Draft(
        this.gpt,
        this.rng,
        Number(temperature.value),
        prefix.value,
      );
      this.drawn = undefined;
    }

    /* Try `act`; an error marks the input that caused it. */
    check(input, act) {
      try {
        act();
        return true;
      } catch (error) {
        input.setAttribute("aria-invalid", "true");
        this.say(error.message);
        return false;
      }
    }

    /* Draw one letter; after the end of a name, the first of the next. */
    draw() {
      if (this.draft.done) this.begin();
      const { weights } = this.draft;
      this.drawn = this.draft.step();
      this.chance = weights[this.drawn];
      if (this.draft.done) this.names.push(this.draft.text);
    }

    step() {
      this.stop();
      this.draw();
      this.show();
      if (!this.draft.done) {
        const letter = this.gpt.chars[this.drawn];
        this.say(`Drawn: ${letter}, which had ${percent(this.chance)}.`);
      }
    }

    /* Draw to the end of `count` names, at once. */
    finish(count) {
      this.stop();
      const goal = this.names.length + count;
      while (this.names.length < goal) this.draw();
      this.show();
    }

    /* Letter by letter to the end of the name; again to pause. */
    play() {
      if (this.timer) return this.stop();
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.finish(1);
      const tick = () => {
        this.draw();
        this.show();
        if (this.draft.done) this.stop();
      };
      this.timer = setInterval(tick, PAUSE);
      this.find("button[name=play]").textContent = "Pause";
      tick();
    }

    stop() {
      clearInterval(this.timer);
      this.timer = undefined;
      this.find("button[name=play]").textContent = "Play";
    }

    say(text) {
      const place = this.find(".live-message");
      if (place.textContent !== text) place.textContent = text;
    }

    show() {
      const { draft, gpt } = this;
      const signs = [...gpt.chars, "end"];
      this.showName(draft.text, this.form.elements.prefix.value.length);
      this.showBars(draft.weights, signs);
      const letters = draft.ids
        .slice(0, draft.readings.length)
        .map((id) => gpt.chars[id] ?? "·");
      this.find(".live-heads").replaceChildren(...headMaps(draft.readings, letters));
      this.showStreams(draft.readings.at(-1).streams, letters.at(-1));
      this.showPython();
    }

    showName(text, given) {
      this.find(".live-name span").textContent = text.slice(0, given);
      this.find(".live-name strong").textContent = text.slice(given);
      this.find(".live-name").classList.toggle("live-done", this.draft.done);
      const items = this.names.map((name) => make("li", {}, name || "(nothing)"));
      this.find(".live-names").replaceChildren(...items);
      const count = this.names.length;
      if (this.draft.done)
        this.say(`Name ${count}: ${this.names[count - 1] || "(nothing)"}`);
    }

    /* The probabilities of the next token; of the last one, where the name has ended. */
    showBars(weights, signs) {
      const { done } = this.draft;
      const place = this.find(".live-bars");
      place.replaceChildren(...bars(weights, signs, done ? this.drawn : -1));
      const text = `${done ? "The last choice was" : "Next"}: ${likeliest(weights, signs)}, …`;
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", text);
      this.find(".live-bars + figcaption").textContent = text;
    }

    showStreams(streams, letter) {
      this.find(".live-streams").replaceChildren(...streamRows(streams));
      const verdict = streamsApart(streams)
        ? "They differ."
        : "They agree in every bit.";
      this.find(".live-streams + figcaption").textContent =
        `The state at “${letter}”: ${streams[0][0].length} features of stream 0 (left) and of stream 1 (right). ${verdict}`;
    }

    showPython() {
      const { prefix, seed, temperature } = this.form.elements;
      const prompt = JSON.stringify(prefix.value);
      this.find("pre").textContent = `import random
import microgpt

model, vocabulary = microgpt.load_model("names.safetensors")
rng = random.Random(${BigInt(seed.value)})
for _ in range(10):
    print(microgpt.sample(model, vocabulary, rng, ${temperature.value}, ${prompt}))`;
    }
  }

  /* Fetch the model for an island that comes into sight, once the page has loaded. */
  function loadInSight(place, island) {
    const idle = globalThis.requestIdleCallback ?? ((act) => setTimeout(act, 200));
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      idle(() => island.load());
    });
    observer.observe(place);
  }

  for (const place of document.querySelectorAll(".live-model")) {
    const island = new LiveModel(place);
    addEventListener("load", () => loadInSight(place, island));
  }
}
