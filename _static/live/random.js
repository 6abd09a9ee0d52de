"use strict";
/* The Mersenne Twister of chapter 1: the same draws as Python's `random.Random(seed)`.
 *
 * The scripts of the live model are plain ones that share one global object, `live`,
 * because browsers load no modules into a page that was opened from disk. */
window.live = {};
{
  const SIZE = 624; // words of 32 bits in the state

  /* One step of seeding: mix the word before into this one; Math.imul keeps 32 bits. */
  const stir = (word, before, factor) =>
    word ^ Math.imul(before ^ (before >>> 30), factor);

  /* The digits of |seed| in base 2^32, the lowest first. */
  function digits(seed) {
    let rest = seed < 0n ? -seed : seed;
    const found = [];
    do {
      found.push(Number(rest & 0xffffffffn));
      rest >>= 32n;
    } while (rest > 0n);
    return found;
  }

  class MersenneTwister {
    /* `seed`: any integer, as a number or a BigInt. */
    constructor(seed) {
      this.state = new Int32Array(SIZE);
      this.index = SIZE; // all words used: the first draw makes new ones
      this.seed(digits(BigInt(seed)));
    }

    /* The reference code's init_by_array: two rounds over a state filled from 19650218. */
    seed(key) {
      const s = this.state;
      s[0] = 19650218;
      for (let i = 1; i < SIZE; i++) {
        s[i] = Math.imul(s[i - 1] ^ (s[i - 1] >>> 30), 1812433253) + i;
      }
      let i = 1;
      const next = () => {
        if (++i === SIZE) [s[0], i] = [s[SIZE - 1], 1];
      };
      for (let k = 0; k < Math.max(SIZE, key.length); k++, next()) {
        const j = k % key.length;
        s[i] = stir(s[i], s[i - 1], 1664525) + key[j] + j;
      }
      for (let k = 0; k < SIZE - 1; k++, next()) {
        s[i] = stir(s[i], s[i - 1], 1566083941) - i;
      }
      s[0] = 0x80000000;
    }

    /* Replace all words of the state by the next ones. */
    twist() {
      const s = this.state;
      for (let i = 0; i < SIZE; i++) {
        const y = (s[i] & 0x80000000) | (s[(i + 1) % SIZE] & 0x7fffffff);
        s[i] = s[(i + 397) % SIZE] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.index = 0;
    }

    /* 32 random bits, tempered. */
    word() {
      if (this.index === SIZE) this.twist();
      let y = this.state[this.index++];
      y ^= y >>> 11;
      y ^= (y << 7) & 0x9d2c5680;
      y ^= (y << 15) & 0xefc60000;
      return (y ^ (y >>> 18)) >>> 0;
    }

    /* A multiple of 2^-53 in [0, 1): 27 bits of one word and 26 of the next. */
    random() {
      const high = this.word() >>> 5;
      const low = this.word() >>> 6;
      return (high * 2 ** 26 + low) / 2 ** 53;
    }

    /* Index drawn with the given weights, as by Python's `choices(range(n), weights)[0]`. */
    choice(weights) {
      let total = 0;
      const ends = Array.from(weights, (w) => (total += w));
      const place = this.random() * total;
      const found = ends.findIndex((end) => place < end);
      return found < 0 ? ends.length - 1 : found;
    }
  }

  Object.assign(window.live, { MersenneTwister });
}
