//! Sums, norms, clipping by norms and steps of optimisers beside plain loops, and beside loops that only read or only
//! scale: the limit of the memory. Bytes: 4 for each time that an element must be read or written.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{bytes, group, quick, uniform};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nanproof::{
    Adam, AdamW, Clipping, NormPartial, Sgd, TensorStats, check_finite, clip_by_global_norm, clip_by_global_norm_with,
    clip_by_norm, dot, l2_norm, sum, unscale,
};

const LENGTHS: [usize; 2] = [1_000, 100_000];

/// What memory allows.
mod limit {
    /// Reads everything.
    pub(super) fn read(x: &[f32]) -> u32 {
        x.iter().fold(0, |bits, x| bits | x.to_bits())
    }

    /// Reads and writes everything.
    pub(super) fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Plain Rust.
mod naive {
    pub(super) fn all_finite(x: &[f32]) -> bool {
        x.iter().all(|x| x.is_finite())
    }

    /// Nothing is checked.
    pub(super) fn adamw(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            *w -= 1e-3 * (0.01 * *w + *m / (v.sqrt() + 1e-8));
        }
    }

    pub(super) fn sum(x: &[f32]) -> f32 {
        x.iter().sum()
    }

    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    pub(super) fn l2_norm(x: &[f32]) -> f32 {
        x.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    /// Mean, deviation, largest magnitude and a histogram of exponents.
    pub(super) fn statistics(x: &[f32]) -> (f64, f64, f32, Vec<u64>) {
        let (mut sum, mut squares, mut largest, mut exponents) = (0.0, 0.0, 0.0_f32, vec![0; 256]);
        for &x in x {
            sum += f64::from(x);
            squares += f64::from(x) * f64::from(x);
            largest = largest.max(x.abs());
            exponents[(x.to_bits() >> 23 & 255) as usize] += 1;
        }
        let mean = sum / x.len() as f64;
        (mean, (squares / x.len() as f64 - mean * mean).sqrt(), largest, exponents)
    }

    pub(super) fn clip_by_global_norm<X: AsMut<[f32]>>(tensors: &mut [X], max_norm: f32) {
        let squares: f32 = tensors.iter_mut().flat_map(|x| x.as_mut()).map(|x| *x * *x).sum();
        let scale = max_norm / squares.sqrt();
        if scale < 1.0 {
            tensors.iter_mut().flat_map(|x| x.as_mut()).for_each(|x| *x *= scale);
        }
    }
}

fn sums(c: &mut Criterion) {
    for len in LENGTHS {
        let (a, b) = (uniform(len, -1.0_f32, 1.0, 1), uniform(len, -1.0, 1.0, 2));
        let mut group_of_sum = group(c, format!("sum {len}"), bytes(1, len));
        group_of_sum.bench_function("nanproof", |bencher| bencher.iter(|| sum(black_box(&a)).unwrap()));
        group_of_sum.bench_function("naive", |bencher| bencher.iter(|| naive::sum(black_box(&a))));
        drop(group_of_sum);

        let mut group_of_dot = group(c, format!("dot {len}"), bytes(2, len));
        group_of_dot.bench_function("nanproof", |bencher| bencher.iter(|| dot(black_box(&a), black_box(&b)).unwrap()));
        group_of_dot.bench_function("naive", |bencher| bencher.iter(|| naive::dot(black_box(&a), black_box(&b))));
    }
}

fn norms(c: &mut Criterion) {
    for len in LENGTHS {
        let x = uniform(len, -1.0_f32, 1.0, 1);
        let mut group = group(c, format!("l2_norm {len}"), bytes(1, len));
        group.bench_function("nanproof", |bencher| bencher.iter(|| l2_norm(black_box(&x)).unwrap()));
        group.bench_function("nanproof partial", |bencher| {
            bencher.iter(|| NormPartial::of(black_box(&x)).unwrap());
        });
        group.bench_function("naive", |bencher| bencher.iter(|| naive::l2_norm(black_box(&x))));
        group.bench_function("limit: read", |bencher| bencher.iter(|| limit::read(black_box(&x))));
    }
}

fn checks(c: &mut Criterion) {
    for len in LENGTHS {
        let x = uniform(len, -1.0_f32, 1.0, 1);
        let mut group = group(c, format!("check_finite {len}"), bytes(1, len));
        group.bench_function("nanproof", |bencher| bencher.iter(|| check_finite(black_box(&x)).unwrap()));
        group.bench_function("naive", |bencher| bencher.iter(|| naive::all_finite(black_box(&x))));
        group.bench_function("limit: read", |bencher| bencher.iter(|| limit::read(black_box(&x))));
    }
}

fn statistics(c: &mut Criterion) {
    for len in LENGTHS {
        let x = uniform(len, -1.0_f32, 1.0, 1);
        let mut group = group(c, format!("statistics {len}"), bytes(1, len));
        group.bench_function("nanproof", |bencher| bencher.iter(|| TensorStats::of(black_box(&x)).unwrap()));
        group.bench_function("naive", |bencher| bencher.iter(|| naive::statistics(black_box(&x))));
        group.bench_function("limit: read", |bencher| bencher.iter(|| limit::read(black_box(&x))));
    }
}

/// Unscaling and clipping, one after the other and in one.
fn unscales(c: &mut Criterion) {
    for len in LENGTHS {
        let x = uniform(len, -1.0_f32, 1.0, 1);
        let mut group = group(c, format!("unscale and clip {len}"), bytes(3, len));
        group.bench_function("nanproof, in one", |bencher| {
            let options = Clipping { loss_scale: 1.5, ..Clipping::default() };
            bencher.iter_batched_ref(
                || x.clone(),
                |x| clip_by_global_norm_with(options, &mut [x], 1.0, None).unwrap(),
                BatchSize::PerIteration,
            );
        });
        group.bench_function("nanproof, in two", |bencher| {
            bencher.iter_batched_ref(
                || x.clone(),
                |x| {
                    unscale(&mut [x], 1.5).unwrap();
                    clip_by_norm(x, 1.0).unwrap()
                },
                BatchSize::PerIteration,
            );
        });
    }
}

/// A gradient that points both ways, so that the weights stay.
fn steps(c: &mut Criterion) {
    for len in LENGTHS {
        let g = uniform(len, -1.0_f32, 1.0, 1);
        let [mut w, mut m, mut v] = [1.0, 0.0, 0.25].map(|x| vec![x; len]);
        let sgd = Sgd { learning_rate: 1e-6, momentum: 0.9, weight_decay: 0.0 };
        let mut group = group(c, format!("step of an optimiser {len}"), bytes(7, len));
        group.bench_function("nanproof adamw", |bencher| {
            bencher.iter(|| AdamW::default().step(1000, black_box(&mut w), &g, &mut m, &mut v).unwrap());
        });
        group.bench_function("naive adamw", |bencher| {
            bencher.iter(|| naive::adamw(black_box(&mut w), &g, &mut m, &mut v));
        });
        group.bench_function("nanproof adam", |bencher| {
            bencher.iter(|| Adam::default().step(1000, black_box(&mut w), &g, &mut m, &mut v).unwrap());
        });
        group.bench_function("nanproof sgd", |bencher| {
            bencher.iter(|| sgd.step(black_box(&mut w), &g, &mut m).unwrap());
        });
    }
}

fn clips_by_norm(c: &mut Criterion) {
    for len in LENGTHS {
        let x = uniform(len, -1.0_f32, 1.0, 1);
        let mut group = group(c, format!("clip_by_norm {len}"), bytes(3, len));
        group.bench_function("nanproof", |bencher| {
            bencher.iter_batched_ref(|| x.clone(), |x| clip_by_norm(x, 1.0).unwrap(), BatchSize::PerIteration);
        });
        group.bench_function("naive", |bencher| {
            bencher.iter_batched_ref(
                || x.clone(),
                |x| naive::clip_by_global_norm(&mut [x], 1.0),
                BatchSize::PerIteration,
            );
        });
        group.bench_function("limit: read, then scale", |bencher| {
            bencher.iter_batched_ref(
                || x.clone(),
                |x| {
                    let bits = limit::read(black_box(x));
                    limit::scale(x, black_box(0.5));
                    bits
                },
                BatchSize::PerIteration,
            );
        });
    }
}

/// A hundred tensors, once within the limit (one pass) and once beyond it (two).
fn clips_by_global_norm(c: &mut Criterion) {
    for len in LENGTHS {
        let tensors = vec![uniform(len, -1.0_f32, 1.0, 1); 100];
        for (what, limit, passes) in [("within", 1e9, 1), ("beyond", 1.0, 3)] {
            let name = format!("clip_by_global_norm 100x{len} {what}");
            let mut group = group(c, name, bytes(passes, 100 * len));
            group.sample_size(10);
            group.bench_function("nanproof", |bencher| {
                bencher.iter_batched_ref(
                    || tensors.clone(),
                    |tensors| {
                        let mut views: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
                        clip_by_global_norm(&mut views, limit).unwrap()
                    },
                    BatchSize::PerIteration,
                );
            });
            group.bench_function("naive", |bencher| {
                bencher.iter_batched_ref(
                    || tensors.clone(),
                    |tensors| naive::clip_by_global_norm(tensors, limit),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = quick();
    targets = sums, norms, checks, statistics, clips_by_norm, clips_by_global_norm, unscales, steps
}
criterion_main!(benches);
