//! Operations on elements beside plain loops, at 100,000 elements. Bytes: 4 for each time that an element is read or
//! written.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{bytes, group, quick, uniform};
use criterion::{Criterion, criterion_group, criterion_main};
use nanproof::{AdamW, Sgd};

const LEN: usize = 100_000;

type Map = fn(&[f32], &mut [f32]) -> nanproof::Result<()>;
type Zip = fn(&[f32], &[f32], &mut [f32]) -> nanproof::Result<()>;

/// `y[i] = f(x[i])`.
fn map(c: &mut Criterion, name: &str, kernel: Map, naive: impl Fn(f32) -> f32) {
    let (x, mut y) = (uniform(LEN, -5.0, 5.0, 1), vec![0.0; LEN]);
    let mut group = group(c, name.into(), bytes(2, LEN));
    group.bench_function("nanproof", |bencher| bencher.iter(|| kernel(black_box(&x), &mut y).unwrap()));
    group.bench_function("naive", |bencher| {
        bencher.iter(|| {
            for (y, &x) in y.iter_mut().zip(black_box(&x)) {
                *y = naive(x);
            }
        });
    });
}

/// `y[i] = f(a[i], b[i])`.
fn zip(c: &mut Criterion, name: &str, kernel: Zip, naive: impl Fn(f32, f32) -> f32) {
    let (a, b, mut y) = (uniform(LEN, -5.0, 5.0, 1), uniform(LEN, -5.0, 5.0, 2), vec![0.0; LEN]);
    let mut group = group(c, name.into(), bytes(3, LEN));
    group.bench_function("nanproof", |bencher| bencher.iter(|| kernel(black_box(&a), black_box(&b), &mut y).unwrap()));
    group.bench_function("naive", |bencher| {
        bencher.iter(|| {
            for ((y, &a), &b) in y.iter_mut().zip(black_box(&a)).zip(black_box(&b)) {
                *y = naive(a, b);
            }
        });
    });
}

fn activations(c: &mut Criterion) {
    map(c, "relu", nanproof::relu, |x| x.max(0.0));
    zip(c, "relu_backward", nanproof::relu_backward, |x, dy| if x > 0.0 { dy } else { 0.0 });
    map(c, "tanh", nanproof::tanh, f32::tanh);
    zip(c, "tanh_backward", nanproof::tanh_backward, |x, dy| dy * (1.0 - x.tanh().powi(2)));
}

fn safe_div(c: &mut Criterion) {
    let kernel: Zip = |a, b, q| nanproof::safe_div(a, b, q).map(|_| ());
    zip(c, "safe_div", kernel, |a, b| if b == 0.0 { 0.0 } else { a / b });
}

fn clip_by_value(c: &mut Criterion) {
    let mut x = uniform(LEN, -5.0_f32, 5.0, 1);
    let mut group = group(c, "clip_by_value".into(), bytes(2, LEN));
    group.bench_function("nanproof", |bencher| {
        bencher.iter(|| nanproof::clip_by_value(black_box(&mut x), 2.0).unwrap());
    });
    group.bench_function("naive", |bencher| {
        bencher.iter(|| {
            for x in black_box(&mut x) {
                *x = x.clamp(-2.0, 2.0);
            }
        });
    });
}

fn sgd(c: &mut Criterion) {
    let sgd = Sgd { learning_rate: 1e-3, momentum: 0.9, weight_decay: 1e-2 };
    let (g, mut w, mut v) = (uniform(LEN, -1.0, 1.0, 1), uniform(LEN, -1.0, 1.0, 2), vec![0.0; LEN]);
    let mut group = group(c, "sgd".into(), bytes(5, LEN));
    group.bench_function("nanproof", |bencher| bencher.iter(|| sgd.step(&mut w, black_box(&g), &mut v).unwrap()));
    group.bench_function("naive", |bencher| {
        bencher.iter(|| {
            for ((w, v), g) in w.iter_mut().zip(&mut v).zip(black_box(&g)) {
                *v = sgd.momentum * *v + g + sgd.weight_decay * *w;
                *w -= sgd.learning_rate * *v;
            }
        });
    });
}

fn adamw(c: &mut Criterion) {
    let adamw = AdamW::default();
    let (g, mut w) = (uniform(LEN, -1.0_f32, 1.0, 1), uniform(LEN, -1.0, 1.0, 2));
    let (mut m, mut v) = (vec![0.0; LEN], vec![0.0; LEN]);
    let mut group = group(c, "adamw".into(), bytes(7, LEN));
    group.bench_function("nanproof", |bencher| {
        bencher.iter(|| adamw.step(10, &mut w, black_box(&g), &mut m, &mut v).unwrap());
    });
    group.bench_function("naive", |bencher| {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = adamw;
        bencher.iter(|| {
            let (correction1, correction2) = (1.0 - beta1.powi(10), 1.0 - beta2.powi(10));
            for (((w, m), v), g) in w.iter_mut().zip(&mut m).zip(&mut v).zip(black_box(&g)) {
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *w -= learning_rate * (weight_decay * *w + *m / correction1 / ((*v / correction2).sqrt() + eps));
            }
        });
    });
}

criterion_group! {
    name = benches;
    config = quick();
    targets = activations, safe_div, clip_by_value, sgd, adamw
}
criterion_main!(benches);
