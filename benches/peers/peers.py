#!/usr/bin/env python3
"""ONNX Runtime, torch and JAX on the cases of `rows` and `math`, in the same form: `case,peer,threads,min_ns,rate,unit`.

    python3 -m venv venv && venv/bin/pip install numpy onnx onnxruntime torch jax
    venv/bin/python peers.py [--quick] [--only TEXT]

One thread, f32. A library that is not installed is named on standard error and left out. Each result is compared with
that of NumPy in f64 before anything is timed. Each peer has a process of its own, since their libraries do not bear each
other; they take turns, a round each, and the time is the smallest of all rounds. NumPy is told to ask for no huge pages:
the other contenders do not have them.
"""

import argparse
import multiprocessing
import os
import sys
import time

os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np

SHAPES = [(4096, 64), (4096, 128), (1024, 1024), (64, 32768), (8, 131072), (1, 50257)]
NORM_SHAPES = [(4096, 768), (512, 4096)]
LENGTHS = [1 << 14, 1 << 20]
EPS = 1e-5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_gradient(p, dp):
    return p * (dp - (p * dp).sum(-1, keepdims=True))


def logsumexp(x):
    m = x.max(-1, keepdims=True)
    return m + np.log(np.exp(x - m).sum(-1, keepdims=True))


def normalized(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS)


def erf(x):
    from math import erf

    return np.vectorize(erf)(x)


def cross_entropy_gradient(x):
    rows = np.arange(len(x))
    p = softmax(x)
    p[rows, rows % x.shape[1]] -= 1
    return p / len(x)


# name, bytes an element, shapes, the function in NumPy, the range of its operands, how many they are if not one
CASES = [
    ("softmax", 8, SHAPES, softmax, (-1, 1)),
    ("log_softmax", 8, SHAPES, lambda x: x - logsumexp(x), (-1, 1)),
    ("logsumexp", 4, SHAPES[2:3], lambda x: logsumexp(x)[:, 0], (-1, 1)),
    ("softmax_backward", 12, SHAPES, softmax_gradient, (-1, 1), 2),
    ("cross_entropy and gradient", 8, [(512, 32768)], cross_entropy_gradient, (-1, 1)),
    ("layer_norm", 8, NORM_SHAPES, normalized, (-1, 1)),
    ("rms_norm", 8, NORM_SHAPES, lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS), (-1, 1)),
    ("exp", 8, LENGTHS, np.exp, (-80, 80)),
    ("ln", 8, LENGTHS, np.log, (0.1, 100)),
    ("tanh", 8, LENGTHS, np.tanh, (-8, 8)),
    ("sigmoid", 8, LENGTHS, lambda x: 1 / (1 + np.exp(-x)), (-20, 20)),
    ("gelu", 8, LENGTHS, lambda x: x / 2 * (1 + erf(x / np.sqrt(2))), (-6, 6)),
]


class Numpy:
    """The functions that NumPy itself vectorises."""

    functions = {"exp": np.exp, "ln": np.log, "tanh": np.tanh}

    def call(self, case, x):
        function, out = self.functions[case], np.empty_like(x)
        return (lambda: function(x, out=out)), lambda: out


class Torch:
    def __init__(self):
        import torch
        import torch.nn.functional as f

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.torch = torch

        def cross_entropy(x):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                f.cross_entropy(leaf, torch.arange(len(x)) % x.shape[1]).backward()
            return leaf.grad

        self.functions = {
            "softmax": lambda x: torch.softmax(x, -1),
            "log_softmax": lambda x: torch.log_softmax(x, -1),
            "logsumexp": lambda x: torch.logsumexp(x, -1),
            "softmax_backward": lambda p, dp: torch._softmax_backward_data(dp, p, -1, p.dtype),
            "cross_entropy and gradient": cross_entropy,
            "layer_norm": lambda x: f.layer_norm(x, x.shape[1:], eps=EPS),
            "rms_norm": lambda x: f.rms_norm(x, x.shape[1:], eps=EPS),
            "exp": torch.exp,
            "ln": torch.log,
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
            "gelu": f.gelu,
        }

    def call(self, case, *operands):
        function, operands, result = self.functions[case], [self.torch.from_numpy(x) for x in operands], []

        def run():
            result[:] = [function(*operands)]

        return run, lambda: result[0].numpy()


class Jax:
    def __init__(self):
        import jax
        import jax.numpy as jnp

        self.jnp = jnp

        def loss(x):
            rows = jnp.arange(len(x))
            return -jax.nn.log_softmax(x)[rows, rows % x.shape[1]].mean()

        functions = {
            "softmax": jax.nn.softmax,
            "log_softmax": jax.nn.log_softmax,
            "logsumexp": lambda x: jax.nn.logsumexp(x, -1),
            "softmax_backward": lambda p, dp: p * (dp - (p * dp).sum(-1, keepdims=True)),
            "cross_entropy and gradient": jax.grad(loss),
            "layer_norm": lambda x: (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + EPS),
            "rms_norm": lambda x: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPS),
            "exp": jnp.exp,
            "ln": jnp.log,
            "tanh": jnp.tanh,
            "sigmoid": jax.nn.sigmoid,
            "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        }
        self.functions = {case: jax.jit(function) for case, function in functions.items()}

    def call(self, case, *operands):
        function, operands, result = self.functions[case], [self.jnp.asarray(x) for x in operands], []

        def run():
            result[:] = [function(*operands).block_until_ready()]

        return run, lambda: np.asarray(result[0])


class OnnxRuntime:
    nodes = {
        "softmax": [("Softmax", {"axis": -1})],
        "log_softmax": [("LogSoftmax", {"axis": -1})],
        "exp": [("Exp", {})],
        "ln": [("Log", {})],
        "tanh": [("Tanh", {})],
        "sigmoid": [("Sigmoid", {})],
        "gelu": [("Gelu", {})],
    }
    functions = nodes

    def __init__(self):
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime

    def call(self, case, x):
        helper, [(operator, attributes)] = self.onnx.helper, self.nodes[case]
        node = helper.make_node(operator, ["x"], ["y"], **attributes)
        x_info, y_info = (helper.make_tensor_value_info(name, 1, list(x.shape)) for name in "xy")
        graph = helper.make_graph([node], case, [x_info], [y_info])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = self.runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        binding, out = session.io_binding(), np.empty_like(x)
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", "cpu", 0, np.float32, list(x.shape), out.ctypes.data)
        return (lambda: session.run_with_iobinding(binding)), lambda: out


PEERS = {"numpy": Numpy, "onnxruntime": OnnxRuntime, "torch": Torch, "jax": Jax}
ROUND_NS = 4_000_000


def serve(peer, pipe):
    """What the process of a peer does: sets a case up and returns the result, then returns the time of a round at a time."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # whatever threads a library starts
    try:
        library = PEERS[peer]()
    except ImportError as error:
        return pipe.send(str(error))
    pipe.send(None)
    while request := pipe.recv():
        name, operands = request
        if name not in library.functions:
            pipe.send(None)
            continue
        call, result = library.call(name, *operands)
        call()
        start = time.perf_counter_ns()
        call()
        count = max(1, ROUND_NS // (time.perf_counter_ns() - start + 1))
        pipe.send(np.array(result()))
        while pipe.recv():
            call()
            start = time.perf_counter_ns()
            for _ in range(count):
                call()
            pipe.send((time.perf_counter_ns() - start) / count)


def start():
    """The peers that are installed, and the pipes to them."""
    context, pipes = multiprocessing.get_context("spawn"), {}
    for peer in PEERS:
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(peer, theirs), daemon=True).start()
        if error := ours.recv():
            print(f"{peer} is left out: {error}", file=sys.stderr)
        else:
            pipes[peer] = ours
    return pipes


def ask(pipe, request):
    pipe.send(request)
    return pipe.recv()


def interleaved(pipes, seconds):
    """The smallest time of each, in nanoseconds."""
    best = dict.fromkeys(pipes, float("inf"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for peer, pipe in pipes.items():
            best[peer] = min(best[peer], ask(pipe, True))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within a minute or two, with more noise")
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    arguments = parser.parse_args()
    pipes = start()
    failures = 0
    print("case,peer,threads,min_ns,rate,unit")
    for name, size, shapes, function, (low, high), *count in CASES:
        for shape in shapes:
            case = f"{name} {'x'.join(map(str, np.atleast_1d(shape)))}"
            if arguments.only not in case:
                continue
            uniform = np.random.default_rng(1).uniform
            operands = [uniform(low, high, shape).astype(np.float32) for _ in range(*count or [1])]
            results = {peer: ask(pipe, (name, operands)) for peer, pipe in pipes.items()}
            results = {peer: result for peer, result in results.items() if result is not None}
            expected = function(*(x.astype(np.float64) for x in operands))
            # A gradient has a sum of products that cancel.
            tolerance = 1e-6 * (np.abs(expected).max() if len(operands) == 2 else 1)
            wrong = [peer for peer, y in results.items() if not np.allclose(y, expected, rtol=1e-3, atol=tolerance)]
            for peer in wrong:
                print(f"ERROR: {case}: {peer} is wrong; left out", file=sys.stderr)
            failures += len(wrong)
            able = {peer: pipes[peer] for peer in results if peer not in wrong}
            for peer, ns in interleaved(able, 0.6 if arguments.quick else 5).items():
                print(f"{case},{peer},1,{ns:.1f},{size * operands[0].size / ns:.3f},GB/s", flush=True)
            for peer in results:
                pipes[peer].send(None)
    for pipe in pipes.values():
        pipe.send(None)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
