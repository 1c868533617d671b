#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A competitor: the process pool of Python's concurrent.futures.

    pool.py map NAME WORKERS ITEMS CHUNK SAMPLES   x * x over integers
    pool.py coarse NAME WORKERS ITEMS              items of 5 ms

Prints 'NAME value ns' lines for an item, as the floors do.
"""
import sys
import time
from concurrent.futures import ProcessPoolExecutor


def square(x):
    return x * x


def spin(n):
    x = 1.0
    for _ in range(n):
        x *= 1.0000001
    return x


def loops_for(seconds):
    """Loops of this interpreter that take so long."""
    n = 1000000
    times = []
    for _ in range(5):
        began = time.perf_counter()
        spin(n)
        times.append(time.perf_counter() - began)
    return int(n * seconds / sorted(times)[2])


def main():
    verb, name, workers, items = sys.argv[1:5]
    if verb == "map":
        fn, values = square, list(range(1, int(items) + 1))
        chunk, samples = int(sys.argv[5]), int(sys.argv[6])
    else:
        fn, values = spin, [loops_for(5e-3)] * int(items)
        chunk, samples = 1, 1
    with ProcessPoolExecutor(int(workers)) as pool:
        list(pool.map(fn, values[:100]))  # the processes are there now
        for _ in range(samples):
            began = time.perf_counter()
            results = list(pool.map(fn, values, chunksize=chunk))
            took = time.perf_counter() - began
            assert len(results) == len(values)
            print(f"{name} {took / len(values) * 1e9:.6g} ns", flush=True)


main()
