//! Sums, norms and clipping by norms beside plain loops. Bytes: 4 for each time that an element must be read or written.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{bytes, group, quick, uniform};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nanproof::{clip_by_global_norm, clip_by_norm, dot, l2_norm, sum};

const LENGTHS: [usize; 2] = [1_000, 100_000];

/// Plain Rust.
mod naive {
    pub(super) fn sum(x: &[f32]) -> f32 {
        x.iter().sum()
    }

    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    pub(super) fn l2_norm(x: &[f32]) -> f32 {
        x.iter().map(|x| x * x).sum::<f32>().sqrt()
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
        group.bench_function("naive", |bencher| bencher.iter(|| naive::l2_norm(black_box(&x))));
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
    targets = sums, norms, clips_by_norm, clips_by_global_norm
}
criterion_main!(benches);
