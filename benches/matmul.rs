//! The matrix product beside `matrixmultiply` (through `ndarray`) and plain loops. An element is a floating-point
//! operation: Gelem/s are GFLOP/s.

#![allow(missing_docs, reason = "macros of criterion")]

mod common;

use std::hint::black_box;

use common::{group, quick, uniform};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nanproof::{Float, MatMut, MatRef, matmul};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar};
use rand::distr::uniform::SampleUniform;

/// The largest product, in multiplications, that plain loops are given: they take seconds for more.
const NAIVE_LIMIT: usize = 1 << 27;

/// `m x k` times `k x n`.
#[derive(Clone, Copy)]
struct Size {
    m: usize,
    k: usize,
    n: usize,
}

fn naive<T: Float>(Size { m, k, n }: Size, a: &[T], b: &[T], c: &mut [T]) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = T::zero();
            for p in 0..k {
                sum = sum + a[i * k + p] * b[p * n + j];
            }
            c[i * n + j] = sum;
        }
    }
}

fn product<T: Float + SampleUniform + LinalgScalar>(criterion: &mut Criterion, size: Size) {
    let Size { m, k, n } = size;
    let (a, b) = (uniform(m * k, -T::one(), T::one(), 1), uniform(k * n, -T::one(), T::one(), 2));
    let mut c = vec![T::zero(); m * n];
    let name = format!("matmul {} {m}x{k}x{n}", std::any::type_name::<T>());
    let mut group = group(criterion, name, Throughput::Elements(2 * (m * k * n) as u64));
    group.bench_function("nanproof", |bencher| {
        let (a, b) = (MatRef::new(&a, m, k).unwrap(), MatRef::new(&b, k, n).unwrap());
        bencher.iter(|| matmul(black_box(a), black_box(b), MatMut::new(&mut c, m, n).unwrap()).unwrap());
    });
    group.bench_function("matrixmultiply", |bencher| {
        let a = ArrayView2::from_shape((m, k), &a).unwrap();
        let b = ArrayView2::from_shape((k, n), &b).unwrap();
        let mut c = ArrayViewMut2::from_shape((m, n), &mut c).unwrap();
        bencher.iter(|| general_mat_mul(T::one(), black_box(&a), black_box(&b), T::zero(), black_box(&mut c)));
    });
    if m * k * n <= NAIVE_LIMIT {
        group.sample_size(10);
        group.bench_function("naive", |bencher| bencher.iter(|| naive(size, black_box(&a), black_box(&b), &mut c)));
    }
}

fn matmuls(criterion: &mut Criterion) {
    for side in [64, 256, 512, 1024] {
        product::<f32>(criterion, Size { m: side, k: side, n: side });
    }
    product::<f32>(criterion, Size { m: 32, k: 128, n: 64 });
    product::<f32>(criterion, Size { m: 4096, k: 64, n: 16 });
    product::<f64>(criterion, Size { m: 512, k: 512, n: 512 });
}

criterion_group! { name = benches; config = quick(); targets = matmuls }
criterion_main!(benches);
