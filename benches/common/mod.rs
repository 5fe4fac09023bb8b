//! What the benchmarks share.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use rand::distr::uniform::SampleUniform;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Short measurements: all benchmarks together take a few minutes.
pub(crate) fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}

/// The benchmarks of one job, with what an iteration gets through.
pub(crate) fn group(c: &mut Criterion, name: String, throughput: Throughput) -> BenchmarkGroup<'_, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(throughput);
    group
}

/// Gigabytes a second, for so many passes over so many `f32`.
pub(crate) fn bytes(passes: usize, elements: usize) -> Throughput {
    Throughput::Bytes((passes * elements * size_of::<f32>()) as u64)
}

/// Random numbers, the same in every run.
pub(crate) fn uniform<T: SampleUniform + PartialOrd + Copy>(len: usize, low: T, high: T, seed: u64) -> Vec<T> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(low..high)).collect()
}
