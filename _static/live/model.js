"use strict";
/* The GPT of chapter 7, forward only, one position at a time, and the sampler of
 * chapter 9. Everything is float64, as in `microgpt`. */
{
  const EPS = 1e-5; // rmsnorm's

  /* Arrays and metadata of a safetensors file: eight bytes with the length of a JSON
   * header, the header, then the numbers, row by row, little-endian. */
  function readSafetensors(buffer) {
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    const text = new TextDecoder().decode(new Uint8Array(buffer, 8, length));
    const { __metadata__: metadata, ...entries } = JSON.parse(text);
    const tensors = {};
    for (const [
      name,
      {
        dtype,
        shape,
        data_offsets: [start, stop],
      },
    ] of Object.entries(entries)) {
      if (dtype !== "F64") throw new Error(`${name} is ${dtype}; expected F64`);
      const bytes = buffer.slice(8 + length + start, 8 + length + stop);
      tensors[name] = { shape, data: new Float64Array(bytes) };
    }
    return { metadata, tensors };
  }

  /* W x for a matrix W stored row by row. */
  function multiply({ shape: [rows, columns], data }, x) {
    const y = new Float64Array(rows);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) y[i] += data[i * columns + j] * x[j];
    }
    return y;
  }

  const column = ({ shape: [rows, columns], data }, j) =>
    Float64Array.from({ length: rows }, (_, i) => data[i * columns + j]);

  function dot(x, y) {
    let sum = 0;
    for (let c = 0; c < x.length; c++) sum += x[c] * y[c];
    return sum;
  }

  const rmsnorm = (x) => {
    const r = 1 / Math.sqrt(dot(x, x) / x.length + EPS);
    return x.map((value) => value * r);
  };

  function softmax(scores) {
    const most = Math.max(...scores);
    const e = scores.map((score) => Math.exp(score - most));
    const sum = e.reduce((a, b) => a + b, 0);
    return e.map((value) => value / sum);
  }

  /* A = [[t, 1 - t], [1 - t, t]] with t = sigmoid(theta). */
  function birkhoff(theta) {
    const e = Math.exp(-Math.abs(theta));
    const small = e / (1 + e);
    const t = theta < 0 ? small : 1 - small;
    return [
      [t, 1 - t],
      [1 - t, t],
    ];
  }

  /* sum_j weights[j] streams[j]: a mixed stream, an aggregate, the contraction. */
  const weighted = (weights, streams) =>
    streams[0].map((_, c) => weights.reduce((sum, w, j) => sum + w * streams[j][c], 0));

  /* Attention of one query over the keys so far; what each head looks at goes to `seen`. */
  function attend(q, keys, values, heads, seen) {
    const d = q.length / heads;
    const o = new Float64Array(q.length);
    for (let h = 0; h < heads; h++) {
      const part = (x) => x.subarray(h * d, (h + 1) * d);
      const p = softmax(keys.map((k) => dot(part(q), part(k)) / Math.sqrt(d)));
      p.forEach((weight, j) =>
        part(values[j]).forEach((v, c) => {
          o[h * d + c] += weight * v;
        }),
      );
      seen.push(p);
    }
    return o;
  }

  class GPT {
    /* `buffer`: what `microgpt.save_model` wrote. */
    constructor(buffer) {
      const { metadata, tensors } = readSafetensors(buffer);
      this.config = JSON.parse(metadata.config);
      this.chars = JSON.parse(metadata.chars);
      this.bos = this.chars.length;
      this.params = tensors;
    }

    /* Token ids of BOS and the letters of `text`; an error that names what does not fit. */
    encode(text) {
      const letters = [...text]; // code points, as in Python
      const stranger = letters.find((letter) => !this.chars.includes(letter));
      if (stranger !== undefined) {
        throw new RangeError(
          `“${stranger}” is not in the vocabulary, which is ${this.chars.join("")}.`,
        );
      }
      const most = this.config.block_size - 1;
      if (letters.length > most) {
        throw new RangeError(
          `The prefix has ${letters.length} letters; at most ${most} fit.`,
        );
      }
      return [this.bos, ...letters.map((letter) => this.chars.indexOf(letter))];
    }

    decode(ids) {
      return ids
        .filter((id) => id !== this.bos)
        .map((id) => this.chars[id])
        .join("");
    }

    /* Keys and values of a text of which nothing has been read yet. */
    memory() {
      const layers = Array.from({ length: this.config.n_layer }, () => ({
        keys: [],
        values: [],
      }));
      return { layers, length: 0 };
    }

    /* Read one token at the next position. Returns `logits`; `attention[layer][head][key]`;
     * and `streams`: the two of them after the embedding and after each sublayer. */
    read(token, memory) {
      const { wte, wpe, lm_head, contract } = this.params;
      const position = column(wpe, memory.length++);
      const x = column(wte, token).map((value, c) => value + position[c]);
      const streams = [[x, x.slice()]];
      const attention = [];
      memory.layers.forEach((past, layer) => {
        const seen = [];
        attention.push(seen);
        streams.push(
          this.sublayer(`${layer}.attn`, streams.at(-1), (z) =>
            this.attention(layer, z, past, seen),
          ),
        );
        streams.push(
          this.sublayer(`${layer}.mlp`, streams.at(-1), (z) => this.mlp(layer, z)),
        );
      });
      return {
        logits: multiply(lm_head, weighted(contract.data, streams.at(-1))),
        attention,
        streams,
      };
    }

    /* Mix the streams, aggregate, apply F to the norm, distribute. */
    sublayer(name, streams, F) {
      const [theta, alpha, beta] = ["theta", "alpha", "beta"].map(
        (part) => this.params[`${name}.${part}`].data,
      );
      const mixed = birkhoff(theta[0]).map((row) => weighted(row, streams));
      const y = F(rmsnorm(weighted(alpha, mixed)));
      return mixed.map((m, i) => m.map((value, c) => value + beta[i] * y[c]));
    }

    attention(layer, z, past, seen) {
      const [wq, wk, wv, wo] = ["wq", "wk", "wv", "wo"].map(
        (name) => this.params[`${layer}.${name}`],
      );
      past.keys.push(multiply(wk, z));
      past.values.push(multiply(wv, z));
      return multiply(
        wo,
        attend(multiply(wq, z), past.keys, past.values, this.config.n_head, seen),
      );
    }

    mlp(layer, z) {
      const hidden = multiply(this.params[`${layer}.fc1`], z);
      return multiply(
        this.params[`${layer}.fc2`],
        hidden.map((f) => Math.max(f, 0)),
      );
    }
  }

  /* softmax(logits / temperature), computed as the package does: below the maximum first,
   * so that nothing overflows. The last bits may differ from NumPy's: another exp, another
   * order of the sums. A name then differs only where a draw falls between two such bits,
   * about once in 10^13 letters. */
  function nextTokenWeights(logits, temperature) {
    const most = Math.max(...logits);
    return softmax(logits.map((z) => (z - most) / temperature));
  }

  /* A text that is being drawn token by token. */
  class Draft {
    constructor(gpt, rng, temperature, prompt = "") {
      Object.assign(this, { gpt, rng, temperature });
      this.ids = gpt.encode(prompt);
      this.memory = gpt.memory();
      this.readings = this.ids.map((id) => gpt.read(id, this.memory)); // one for each position
      this.done = false;
    }

    get text() {
      return this.gpt.decode(this.ids);
    }

    /* Probabilities of the next token. */
    get weights() {
      return nextTokenWeights(this.readings.at(-1).logits, this.temperature);
    }

    /* Draw one token and return its id; the text ends with BOS or when the block is full. */
    step() {
      const token = this.rng.choice(this.weights);
      this.done =
        token === this.gpt.bos || this.ids.length === this.gpt.config.block_size;
      if (token !== this.gpt.bos) this.ids.push(token);
      if (!this.done) this.readings.push(this.gpt.read(token, this.memory));
      return token;
    }
  }

  /* `microgpt.sample(model, corpus, rng, temperature, prompt)`. */
  function sample(gpt, rng, temperature = 0.5, prompt = "") {
    const draft = new Draft(gpt, rng, temperature, prompt);
    while (!draft.done) draft.step();
    return draft.text;
  }

  Object.assign(window.live, { GPT, Draft, nextTokenWeights, sample });
}
