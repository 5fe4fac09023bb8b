//! Calls that come again and again, as in training, ask for no memory once the scratch of their thread is there.

mod common;

use std::alloc::System;

use common::{Kind, data, mat, mat_mut, num};
use nanproof::{
    AdamW, Clipping, Float, Matmul, Safe, Softmax, Storage, TensorMut, clip_by_global_norm, clip_by_global_norm_mixed,
    clip_by_norm, clip_by_value, dot, l2_norm, log_softmax, logsumexp, matmul, matmul_backward, matmul_mixed,
    matmul_with, relu, safe_div, safe_div_with, softmax, softmax_backward, softmax_with, sum, tanh, tanh_backward,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls `f` until it asks for no memory, which must be soon: threads start, and get their scratch, in their own time.
#[track_caller]
fn quiet(name: &str, mut f: impl FnMut() -> nanproof::Result<()>) {
    let mut requests = || {
        let region = Region::new(ALLOCATOR);
        f().expect(name);
        let change = region.change();
        change.allocations + change.reallocations
    };
    assert!((0..20).any(|_| requests() == 0), "{name}: {} requests in each call", requests());
}

fn steady_state<T: Float + Storage<Compute = T>>() {
    const ROWS: usize = 37;
    const COLS: usize = 129;
    let [x, y, z] = [1, 2, 3].map(|seed| data::<T>(seed, Kind::Within(1.0), ROWS * COLS));
    let (mut a, mut b, mut c) = (x.clone(), y.clone(), z.iter().map(|z| z.abs()).collect::<Vec<_>>());
    let mut square = vec![T::zero(); ROWS * ROWS];
    let mut values = vec![T::zero(); ROWS];
    let one = T::one();

    quiet("relu", || relu(&x, &mut a));
    quiet("tanh", || tanh(&x, &mut a));
    quiet("tanh_backward", || tanh_backward(&x, &y, &mut a));
    quiet("safe_div", || safe_div(&x, &y, &mut a).map(drop));
    quiet("safe_div_with", || safe_div_with(Safe::default(), &x, &y, &mut a).map(drop));
    quiet("sum", || sum(&x).map(drop));
    quiet("dot", || dot(&x, &y).map(drop));
    quiet("l2_norm", || l2_norm(&x).map(drop));
    quiet("clip_by_value", || clip_by_value(&mut a, one).map(drop));
    quiet("clip_by_norm", || clip_by_norm(&mut a, one).map(drop));
    quiet("clip_by_global_norm", || clip_by_global_norm(&mut [&mut a, &mut b], one).map(drop));
    let mut tensors = [TensorMut::new(&mut a), TensorMut::new(&mut b)];
    quiet("clip_by_global_norm_mixed", || {
        clip_by_global_norm_mixed(Clipping::default(), &mut tensors, num(0.5), None).map(drop)
    });
    drop(tensors);
    quiet("softmax", || softmax(mat(&x, ROWS, COLS), mat_mut(&mut a, ROWS, COLS)).map(drop));
    quiet("softmax_with", || {
        softmax_with(Softmax::default(), mat(&x, ROWS, COLS), mat_mut(&mut a, ROWS, COLS)).map(drop)
    });
    quiet("log_softmax", || log_softmax(mat(&x, ROWS, COLS), mat_mut(&mut a, ROWS, COLS)).map(drop));
    quiet("logsumexp", || logsumexp(mat(&x, ROWS, COLS), &mut values));
    quiet("softmax_backward", || {
        softmax_backward(mat(&x, ROWS, COLS), mat(&y, ROWS, COLS), mat_mut(&mut a, ROWS, COLS))
    });
    quiet("matmul", || matmul(mat(&x, ROWS, COLS), mat(&y, COLS, ROWS), mat_mut(&mut square, ROWS, ROWS)));
    quiet("matmul_with", || {
        let options = Matmul { alpha: num(0.5), ..Matmul::default() };
        matmul_with(options, mat(&x, COLS, ROWS).t(), mat(&y, ROWS, COLS).t(), mat_mut(&mut square, ROWS, ROWS))
    });
    quiet("matmul_with, accumulating", || {
        let options = Matmul { beta: num(0.5), ..Matmul::default() };
        matmul_with(options, mat(&x, ROWS, COLS), mat(&y, COLS, ROWS), mat_mut(&mut square, ROWS, ROWS))
    });
    quiet("matmul_mixed", || matmul_mixed(mat(&x, ROWS, COLS), mat(&y, COLS, ROWS), mat_mut(&mut square, ROWS, ROWS)));
    let dc = vec![one; ROWS * ROWS];
    quiet("matmul_backward", || {
        let (da, db) = (mat_mut(&mut a, ROWS, COLS), mat_mut(&mut b, COLS, ROWS));
        matmul_backward(mat(&x, ROWS, COLS), mat(&y, COLS, ROWS), mat(&dc, ROWS, ROWS), da, db)
    });
    quiet("adamw", || AdamW::default().step(3, &mut a, &x, &mut b, &mut c));
}

// One test: another thread would allocate meanwhile.
#[test]
fn no_allocation_in_the_steady_state() {
    steady_state::<f32>();
    steady_state::<f64>();
}
