//! Operations on rows beside plain loops. Bytes: 8 an element where a matrix is read and one written, 12 where two are
//! read, 4 where none is written.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{bytes, group, quick, uniform};
use criterion::{Criterion, criterion_group, criterion_main};
use nanproof::{CrossEntropy, MatMut, MatRef};

const SHAPES: [(usize, usize); 2] = [(1024, 1024), (4096, 64)];

/// Plain Rust, a row at a time.
mod naive {
    pub(super) fn logsumexp(x: &[f32]) -> f32 {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        max + x.iter().map(|x| (x - max).exp()).sum::<f32>().ln()
    }

    pub(super) fn softmax(x: &[f32], y: &mut [f32]) {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - max).exp();
            sum += *y;
        }
        for y in y {
            *y /= sum;
        }
    }

    pub(super) fn log_softmax(x: &[f32], y: &mut [f32]) {
        let log = logsumexp(x);
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - log;
        }
    }

    pub(super) fn softmax_backward(p: &[f32], dp: &[f32], dx: &mut [f32]) {
        let dot: f32 = p.iter().zip(dp).map(|(p, dp)| p * dp).sum();
        for ((dx, p), dp) in dx.iter_mut().zip(p).zip(dp) {
            *dx = p * (dp - dot);
        }
    }

    /// The loss of the row; its gradient to `dx`.
    pub(super) fn cross_entropy(x: &[f32], target: usize, rows: usize, dx: &mut [f32]) -> f32 {
        softmax(x, dx);
        let loss = -dx[target].ln();
        dx[target] -= 1.0;
        for dx in dx {
            *dx /= rows as f32;
        }
        loss
    }
}

fn each_shape(c: &mut Criterion, mut bench: impl FnMut(&mut Criterion, usize, usize, &[f32], &mut [f32])) {
    for (rows, cols) in SHAPES {
        let (x, mut y) = (uniform(rows * cols, -10.0, 10.0, 1), vec![0.0; rows * cols]);
        bench(c, rows, cols, &x, &mut y);
    }
}

type Operation = fn(MatRef<'_, f32>, MatMut<'_, f32>) -> nanproof::Result<usize>;

fn map(c: &mut Criterion, name: &str, kernel: Operation, naive: fn(&[f32], &mut [f32])) {
    each_shape(c, |c, rows, cols, x, y| {
        let mut group = group(c, format!("{name} {rows}x{cols}"), bytes(2, x.len()));
        group.bench_function("nanproof", |bencher| {
            let x = MatRef::new(x, rows, cols).unwrap();
            bencher.iter(|| kernel(black_box(x), MatMut::new(y, rows, cols).unwrap()).unwrap());
        });
        group.bench_function("naive", |bencher| {
            bencher.iter(|| {
                for (x, y) in black_box(x).chunks(cols).zip(y.chunks_mut(cols)) {
                    naive(x, y);
                }
            });
        });
    });
}

fn softmax(c: &mut Criterion) {
    map(c, "softmax", nanproof::softmax, naive::softmax);
}

fn log_softmax(c: &mut Criterion) {
    map(c, "log_softmax", nanproof::log_softmax, naive::log_softmax);
}

fn logsumexp(c: &mut Criterion) {
    each_shape(c, |c, rows, cols, x, y| {
        let y = &mut y[..rows];
        let mut group = group(c, format!("logsumexp {rows}x{cols}"), bytes(1, x.len()));
        group.bench_function("nanproof", |bencher| {
            let x = MatRef::new(x, rows, cols).unwrap();
            bencher.iter(|| nanproof::logsumexp(black_box(x), y).unwrap());
        });
        group.bench_function("naive", |bencher| {
            bencher.iter(|| {
                for (x, y) in black_box(x).chunks(cols).zip(y.iter_mut()) {
                    *y = naive::logsumexp(x);
                }
            });
        });
    });
}

fn softmax_backward(c: &mut Criterion) {
    each_shape(c, |c, rows, cols, dp, dx| {
        let mut p = vec![0.0; dp.len()];
        nanproof::softmax(MatRef::new(dp, rows, cols).unwrap(), MatMut::new(&mut p, rows, cols).unwrap()).unwrap();
        let mut group = group(c, format!("softmax_backward {rows}x{cols}"), bytes(3, p.len()));
        group.bench_function("nanproof", |bencher| {
            let (p, dp) = (MatRef::new(&p, rows, cols).unwrap(), MatRef::new(dp, rows, cols).unwrap());
            let mut dx = MatMut::new(dx, rows, cols).unwrap();
            bencher.iter(|| nanproof::softmax_backward(black_box(p), black_box(dp), dx.reborrow()).unwrap());
        });
        group.bench_function("naive", |bencher| {
            bencher.iter(|| {
                for ((p, dp), dx) in black_box(&p).chunks(cols).zip(black_box(dp).chunks(cols)).zip(dx.chunks_mut(cols))
                {
                    naive::softmax_backward(p, dp, dx);
                }
            });
        });
    });
}

fn cross_entropy(c: &mut Criterion) {
    each_shape(c, |c, rows, cols, x, dx| {
        let targets = uniform(rows, 0, cols as u32, 3);
        let mut group = group(c, format!("cross_entropy_with_gradient {rows}x{cols}"), bytes(2, x.len()));
        group.bench_function("nanproof", |bencher| {
            let (options, x) = (CrossEntropy::default(), MatRef::new(x, rows, cols).unwrap());
            let mut dx = MatMut::new(dx, rows, cols).unwrap();
            bencher.iter(|| {
                nanproof::cross_entropy_with_gradient(options, black_box(x), black_box(&targets), dx.reborrow())
                    .unwrap()
            });
        });
        group.bench_function("naive", |bencher| {
            bencher.iter(|| {
                let rows_of = black_box(x).chunks(cols).zip(black_box(&targets)).zip(dx.chunks_mut(cols));
                let losses = rows_of.map(|((x, &target), dx)| naive::cross_entropy(x, target as usize, rows, dx));
                losses.sum::<f32>() / rows as f32
            });
        });
    });
}

criterion_group! {
    name = benches;
    config = quick();
    targets = softmax, log_softmax, logsumexp, softmax_backward, cross_entropy
}
criterion_main!(benches);
