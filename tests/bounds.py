"""Random arrays for kernels, and how far a rounded result may be from the exact one.

Two facts give the bounds of all tests. A sum of n numbers, each a rounded product of a
few factors, has an error of at most n u / (1 - n u) times the sum of their magnitudes,
in whatever order it is added up, with u = eps / 2 (Higham 2002, section 3.1). And each
operation that underflows adds at most one subnormal number. With n counting every
operation on the way, `n eps size + n subnormal` is above that for n eps < 1.
"""

import numpy as np
from hypothesis import strategies as st

from microgpt.matrix import exponential

LONG = np.longdouble
DTYPES = ("float32", "float64")
KINDS = ("normal", "integers", "zeros", "mixed", "subnormal", "huge", "nan", "inf")
FINITE = KINDS[:6]
MILD = ("normal", "integers", "zeros", "subnormal")


class Draw:
    """Column-major arrays and numbers of one type and one kind, from a seed.

    mixed: magnitudes from 1e-30 to 1e30, the limits and zeros among them; huge: 1e30
    and -1e30; nan, inf: normal numbers, and one such number in the first array.
    """

    def __init__(self, dtype, kind, seed):
        self.dtype, self.kind, self.left = np.dtype(dtype), kind, 1
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape):
        x = self.rng.normal(0, 1.5, shape)
        if self.kind == "integers":
            x = np.rint(2 * x)
        elif self.kind == "zeros":
            x *= self.rng.random(shape) < 0.3
        elif self.kind == "mixed":
            x = np.sign(x) * self.rng.choice([0.0, 1e-30, 1e-8, 1.0, 1e8, 1e30], shape)
        elif self.kind == "subnormal":
            x *= 8 * float(np.finfo(self.dtype).smallest_subnormal)
        elif self.kind == "huge":
            x = np.sign(x) * 1e30
        elif self.kind in ("nan", "inf") and x.size and self.left:
            self.left = 0
            x.flat[self.rng.integers(x.size)] = float(self.kind)
        return np.asfortranarray(x, dtype=self.dtype)

    def plain(self, *shape):
        """Normal numbers, whatever the kind."""
        x = self.rng.normal(0, 1.5, shape)
        return np.asfortranarray(x, dtype=self.dtype)

    def positive(self, *shape):
        return np.asfortranarray(abs(self.plain(*shape)) + self.dtype.type(0.1))

    def number(self):
        return self.dtype.type(self.rng.normal())

    def garbage(self, *shape):
        """What a result that is overwritten may hold before."""
        return np.full(shape, 1e3, self.dtype, order="F")


def draws(kinds=KINDS):
    """A strategy for `Draw`."""
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(Draw, st.sampled_from(DTYPES), st.sampled_from(kinds), seeds)


def sizes(most):
    return st.integers(1, most)


def long(*arrays):
    """The arrays in long double, which has 11 bits more than float64 on x86."""
    return [np.asarray(x, LONG) for x in arrays]


def check(found, exact, size, n, name=""):
    """Hold `found` to the bound above; size: the sum of the magnitudes, n: operations.

    What is not a number stays not finite. Where `size` is beyond the largest number
    of the type the result may be so, too; never is it finite and wrong.
    """
    kind = np.finfo(found.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        eps, step = LONG(kind.eps), LONG(kind.smallest_subnormal)
        close = abs(found - exact) <= n * eps * size + n * step
        bad = ~np.isfinite(np.asarray(exact, found.dtype))
        beyond = bad | ~(size * (1 + n * eps) < LONG(kind.max))
    lost = ~np.isfinite(found)
    right = np.where(np.isnan(exact), np.isnan(found), close | (beyond & lost))
    np.testing.assert_array_equal(right, True, err_msg=name)


def same_numbers(found, exact):
    """The same shape, type and numbers; a zero and a nan may have either sign."""
    np.testing.assert_array_equal(found, exact, strict=True)


def exp_bound(x):
    """Relative error of the package's exp: (2 |x| + 6) u, in units of eps."""
    return abs(x) + 3


def check_exponential(values, dtype):
    """Hold `exponential` to NumPy's exp in long double.

    The error of x log2(e) is relative, so that of e^x grows with |x|: it is held to
    |x| + 3 units of the last place. Below the smallest normal number there is the
    rounding of a subnormal besides; half a power of two further down the result is 0,
    and from half a power of two below the largest number on it is inf.
    """
    x = np.array([values], dtype).T.copy("F")
    y = x.copy("F")
    exponential(y)
    kind = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        exact = np.exp(x.astype(LONG))
    bound = LONG(kind.eps) * exp_bound(x.astype(LONG))
    with np.errstate(invalid="ignore"):
        close = abs(y - exact) <= bound * exact
        rounded = abs(y - exact) <= bound * exact + kind.smallest_subnormal
    sure = 1 + 1e-3  # beside the two borders either side may be
    smallest, largest = kind.smallest_normal, LONG(2) ** (kind.maxexp - 0.5)
    least = smallest / np.sqrt(LONG(2))
    rules = (
        (np.isnan(x), np.isnan(y)),
        (exact < least / sure, y == 0),
        (exact < least * sure, rounded | (y == 0)),
        ((exact >= least * sure) & (exact < smallest), rounded),
        ((exact >= smallest) & (exact < largest / sure), close),
        ((exact >= largest / sure) & (exact < largest * sure), close | (y == np.inf)),
        (exact >= largest * sure, y == np.inf),
    )
    for case, (among, right) in enumerate(rules):
        wrong = x[among & ~right]
        assert wrong.size == 0, f"rule {case} is broken at {wrong[:3]}"
