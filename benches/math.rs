//! The vector functions and activations beside plain loops and a copy. Bytes: an array read and one written, or for
//! gradients two read.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{bytes, group, quick, uniform};
use criterion::{Criterion, criterion_group, criterion_main};
use nanproof::{Result, gelu, gelu_backward, gelu_tanh, math, silu, silu_backward, tanh_backward};

/// In the second-level cache, and from memory.
const LENGTHS: [usize; 2] = [1 << 14, 1 << 20];

type Function<T> = fn(&[T], &mut [T]) -> Result<()>;
type Plain<T> = fn(T) -> T;
type Contest<T> = (&'static str, Function<T>, Option<Plain<T>>);

fn functions(c: &mut Criterion) {
    let functions: [Contest<f32>; 12] = [
        ("exp", math::exp, Some(f32::exp)),
        ("exp2", math::exp2, Some(f32::exp2)),
        ("exp_m1", math::exp_m1, Some(f32::exp_m1)),
        ("ln", math::ln, Some(f32::ln)),
        ("ln_1p", math::ln_1p, Some(f32::ln_1p)),
        ("tanh", math::tanh, Some(f32::tanh)),
        ("sigmoid", math::sigmoid, Some(|x| 1.0 / (1.0 + (-x).exp()))),
        ("softplus", math::softplus, Some(|x| x.max(0.0) + (-x.abs()).exp().ln_1p())),
        ("erf", math::erf, None),
        ("gelu", gelu, None),
        ("gelu_tanh", gelu_tanh, None),
        ("silu", silu, Some(|x| x / (1.0 + (-x).exp()))),
    ];
    for len in LENGTHS {
        contest(c, &format!("math {len}"), &uniform(len, 0.01, 10.0, 1), &functions);
    }
}

fn doubles(c: &mut Criterion) {
    let functions: [Contest<f64>; 3] =
        [("exp", math::exp, Some(f64::exp)), ("ln", math::ln, Some(f64::ln)), ("tanh", math::tanh, Some(f64::tanh))];
    for len in LENGTHS {
        contest(c, &format!("math f64 {len}"), &uniform(len, 0.01, 10.0, 1), &functions);
    }
}

/// Functions of a type, their plain loops, and a copy.
fn contest<T: Copy + Default>(c: &mut Criterion, name: &str, x: &[T], functions: &[Contest<T>]) {
    let mut y = vec![T::default(); x.len()];
    let mut group = group(c, name.into(), bytes(2 * size_of::<T>() / size_of::<f32>(), x.len()));
    for &(name, function, plain) in functions {
        group.bench_function(name, |bencher| bencher.iter(|| function(black_box(x), &mut y).unwrap()));
        if let Some(plain) = plain {
            group.bench_function(format!("naive {name}"), |bencher| {
                bencher.iter(|| black_box(x).iter().zip(&mut y).for_each(|(&x, y)| *y = plain(x)));
            });
        }
    }
    group.bench_function("copy", |bencher| bencher.iter(|| y.copy_from_slice(black_box(x))));
}

type Gradient = fn(&[f32], &[f32], &mut [f32]) -> Result<()>;

fn gradients(c: &mut Criterion) {
    let gradients: [(&str, Gradient); 3] =
        [("tanh_backward", tanh_backward), ("gelu_backward", gelu_backward), ("silu_backward", silu_backward)];
    for len in LENGTHS {
        let [x, dy] = [1, 2].map(|seed| uniform(len, -10.0, 10.0, seed));
        let mut dx = vec![0.0; len];
        let mut group = group(c, format!("math backward {len}"), bytes(3, len));
        for (name, gradient) in gradients {
            group.bench_function(name, |bencher| bencher.iter(|| gradient(black_box(&x), &dy, &mut dx).unwrap()));
        }
    }
}

criterion_group! {
    name = benches;
    config = quick();
    targets = functions, gradients, doubles
}
criterion_main!(benches);
