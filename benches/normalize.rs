//! Normalisations and statistics of rows beside plain loops and a copy of the matrix. Bytes: 8 an element where a matrix
//! is read and one written, 12 where two are read, 4 where none is written.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{bytes, group, quick, uniform};
use criterion::{Criterion, criterion_group, criterion_main};
use nanproof::{
    LayerNorm, LayerNormGradients, MatMut, MatRef, Result, RmsNorm, Variance, layer_norm, layer_norm_backward,
    lp_norm_rows, normalize, rms_norm, rms_norm_backward, std_rows,
};

/// From memory, from the second-level cache, and short rows.
const SHAPES: [(usize, usize); 3] = [(4096, 768), (64, 768), (4096, 64)];

/// Plain Rust, a row at a time.
fn naive_layer_norm(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
    let rate = 1.0 / (variance + 1e-5).sqrt();
    for (i, y) in y.iter_mut().enumerate() {
        *y = (x[i] - mean) * rate * weight[i] + bias[i];
    }
}

type Forward = fn(MatRef<'_, f32>, &[f32], MatMut<'_, f32>) -> Result<()>;

fn forward(c: &mut Criterion) {
    let operations: [(&str, Forward); 4] = [
        ("layer_norm", |x, w, y| layer_norm(LayerNorm::default(), x, Some(w), Some(w), y)),
        ("layer_norm, plain", |x, _, y| layer_norm(LayerNorm::default(), x, None, None, y)),
        ("rms_norm", |x, w, y| rms_norm(RmsNorm::default(), x, Some(w), y)),
        ("normalize", |x, _, y| normalize(0.0, x, y)),
    ];
    for (rows, cols) in SHAPES {
        let (x, w) = (uniform(rows * cols, -10.0, 10.0, 1), uniform(cols, -1.0, 1.0, 2));
        let mut y = vec![0.0; rows * cols];
        let mut group = group(c, format!("normalize {rows}x{cols}"), bytes(2, x.len()));
        for (name, operation) in operations {
            group.bench_function(name, |bencher| {
                let x = MatRef::new(&x, rows, cols).unwrap();
                bencher.iter(|| operation(black_box(x), &w, MatMut::new(&mut y, rows, cols).unwrap()).unwrap());
            });
        }
        group.bench_function("naive layer_norm", |bencher| {
            bencher.iter(|| {
                for (x, y) in black_box(&x).chunks(cols).zip(y.chunks_mut(cols)) {
                    naive_layer_norm(x, &w, &w, y);
                }
            });
        });
        group.bench_function("copy", |bencher| bencher.iter(|| y.copy_from_slice(black_box(&x))));
    }
}

type Backward = fn(MatRef<'_, f32>, &[f32], MatRef<'_, f32>, MatMut<'_, f32>, [&mut [f32]; 2]) -> Result<()>;

fn backward(c: &mut Criterion) {
    let operations: [(&str, Backward); 3] = [
        ("layer_norm_backward", |x, w, dy, dx, [dw, db]| {
            let gradients = LayerNormGradients { dx, dw: Some(dw), db: Some(db) };
            layer_norm_backward(LayerNorm::default(), x, Some(w), dy, gradients)
        }),
        ("layer_norm_backward, dx alone", |x, w, dy, dx, _| {
            layer_norm_backward(LayerNorm::default(), x, Some(w), dy, LayerNormGradients { dx, dw: None, db: None })
        }),
        ("rms_norm_backward", |x, w, dy, dx, [dw, _]| {
            rms_norm_backward(RmsNorm::default(), x, Some(w), dy, dx, Some(dw))
        }),
    ];
    for (rows, cols) in SHAPES {
        let [x, dy] = [1, 2].map(|seed| uniform(rows * cols, -10.0, 10.0, seed));
        let (w, mut dx) = (uniform(cols, -1.0, 1.0, 3), vec![0.0; rows * cols]);
        let (mut dw, mut db) = (vec![0.0; cols], vec![0.0; cols]);
        let mut group = group(c, format!("normalize backward {rows}x{cols}"), bytes(3, x.len()));
        for (name, operation) in operations {
            group.bench_function(name, |bencher| {
                let (x, dy) = (MatRef::new(&x, rows, cols).unwrap(), MatRef::new(&dy, rows, cols).unwrap());
                bencher.iter(|| {
                    let dx = MatMut::new(&mut dx, rows, cols).unwrap();
                    operation(black_box(x), &w, dy, dx, [&mut dw, &mut db]).unwrap();
                });
            });
        }
    }
}

type Reduction = fn(MatRef<'_, f32>, &mut [f32]) -> Result<()>;

fn reductions(c: &mut Criterion) {
    let operations: [(&str, Reduction); 4] = [
        ("std_rows", |x, y| std_rows(Variance::default(), x, y)),
        ("lp_norm_rows, p = 1", |x, y| lp_norm_rows(1.0, x, y)),
        ("lp_norm_rows, p = 2", |x, y| lp_norm_rows(2.0, x, y)),
        ("lp_norm_rows, p = 3", |x, y| lp_norm_rows(3.0, x, y)),
    ];
    for (rows, cols) in SHAPES {
        let (x, mut y) = (uniform(rows * cols, -10.0, 10.0, 1), vec![0.0; rows]);
        let mut group = group(c, format!("statistics {rows}x{cols}"), bytes(1, x.len()));
        for (name, operation) in operations {
            group.bench_function(name, |bencher| {
                let x = MatRef::new(&x, rows, cols).unwrap();
                bencher.iter(|| operation(black_box(x), &mut y).unwrap());
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = quick();
    targets = forward, backward, reductions
}
criterion_main!(benches);
