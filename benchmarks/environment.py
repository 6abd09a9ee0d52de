"""Settings that must stand before NumPy, PyTorch or JAX is imported. Imports none."""

import os

POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def variables(threads: int) -> dict[str, str]:
    """Environment of a process with `threads` threads: each pool is given as many.

    Threads that wait do so without spinning, so that idle workers cost nothing.
    """
    eigen = "true" if threads > 1 else "false"
    flags = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads"
    return dict.fromkeys(POOLS, str(threads)) | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TQDM_DISABLE": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags}={threads}",
    }


def pin(threads: int) -> None:
    """Keep this process to the last `threads` of the cores it may use, where it can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])


def settle(threads: int) -> None:
    """Both, for this process; only before the libraries are imported."""
    os.environ.update(variables(threads))
    pin(threads)
