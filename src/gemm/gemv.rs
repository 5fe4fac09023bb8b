//! The product of one row with a matrix: the matrix is read once, as it lies in memory, with the bits of the tiles.

use super::{Gemm, STREAMS, Store};
use crate::finite::Watch;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::sweep::load_tail;
use crate::view::MatRef;

/// Blocks of the result that are summed together: their sums stay in the L1 cache, and B is read 16 KiB of a line at a
/// time.
const SLAB: usize = 256;

/// Whether B can be read as it lies: its rows or its columns are contiguous.
pub(super) fn fits<T>(b: MatRef<'_, T>) -> bool {
    b.row(0).is_some() || b.t().row(0).is_some()
}

/// Computes the only row of C; whether it is finite.
#[inline(always)]
pub(super) fn row<T: Float, S: Simd<T>>(simd: S, gemm: &mut Gemm<'_, T>) -> bool {
    let k = gemm.a.cols();
    // A part of A at a time, if it is a column.
    let mut scratch = T::take_scratch();
    let n = gemm.c.cols();
    // Deep columns are followed to their end, a block of them at a time: what streams they make the processor foresees.
    let slab = if gemm.b.row(0).is_none() && k > T::K_BLOCK { T::LANES } else { n.min(SLAB * T::LANES) };
    let [copy, sums] = scratch.parts(T::K_BLOCK.min(k), slab.next_multiple_of(T::LANES));
    let sums = T::blocks_mut(sums).0;
    let mut watch = Watch::new(simd);
    for col in (0..n).step_by(slab) {
        let cols = slab.min(n - col);
        for start in (0..k).step_by(T::K_BLOCK) {
            let depth = T::K_BLOCK.min(k - start);
            let a = gemm.a.window(0..1, start..start + depth);
            let a = match a.row(0) {
                Some(row) => row,
                None => {
                    copy.iter_mut().zip(a.row_iter(0)).for_each(|(copy, &x)| *copy = x);
                    &copy[..depth]
                }
            };
            let b = gemm.b.window(start..start + depth, col..col + cols);
            if b.row(0).is_some() {
                by_rows(simd, a, b, sums);
            } else {
                by_columns(simd, a, b, sums);
            }
            let store: Store<'_, T> = gemm.store(start);
            for (col, sums) in (col..col + cols).step_by(T::LANES).zip(&*sums) {
                let len = T::LANES.min(n - col);
                store.block(simd, sums, (0, col), len, gemm.c.tail_mut(0, col), &mut watch);
            }
        }
        gemm.activate(simd, col..col + cols);
    }
    T::keep_scratch(scratch);
    watch.all_finite()
}

/// Sums lines of B, some at a time.
#[inline(always)]
fn by_rows<T: Float, S: Simd<T>>(simd: S, a: &[T], b: MatRef<'_, T>, sums: &mut [T::Block]) {
    let sums = &mut sums[..b.cols().div_ceil(T::LANES)];
    sums.fill(T::fill(T::zero()));
    let (groups, rest) = a.as_chunks::<STREAMS>();
    for (i, a) in groups.iter().enumerate() {
        add_lines(simd, a, b, i * STREAMS, sums);
    }
    for (i, &a) in rest.iter().enumerate() {
        add_lines(simd, &[a], b, groups.len() * STREAMS + i, sums);
    }
}

/// Adds the products with the lines of B from `first` on, in their order.
#[inline(always)]
fn add_lines<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    a: &[T; N],
    b: MatRef<'_, T>,
    first: usize,
    sums: &mut [T::Block],
) {
    let mut lines: [&[T::Block]; N] = [&[]; N];
    let mut tails: [&[T]; N] = [&[]; N];
    let mut factors = [Lanes::zero(simd); N];
    let whole = b.cols() / T::LANES;
    for i in 0..N {
        let (line, tail) = T::blocks(&b.tail(first + i, 0)[..b.cols()]);
        (lines[i], tails[i]) = (&line[..whole], tail);
        factors[i] = Lanes::splat(simd, a[i]);
    }
    for (j, sums) in sums[..whole].iter_mut().enumerate() {
        let mut sum = Lanes::load(simd, sums);
        for (&factor, line) in factors.iter().zip(&lines) {
            sum = factor.mul_add(Lanes::load(simd, &line[j]), sum);
        }
        *sums = sum.store();
    }
    if let Some(sums) = sums.get_mut(whole) {
        let mut sum = Lanes::load(simd, sums);
        for (&factor, tail) in factors.iter().zip(tails) {
            sum = factor.mul_add(load_tail(simd, tail, T::zero()), sum);
        }
        *sums = sum.store();
    }
}

/// Sums columns of B, which are contiguous: squares of B go through registers.
#[inline(always)]
fn by_columns<T: Float, S: Simd<T>>(simd: S, a: &[T], b: MatRef<'_, T>, sums: &mut [T::Block]) {
    let whole = b.cols() / T::LANES;
    for (j, sums) in sums[..b.cols().div_ceil(T::LANES)].iter_mut().enumerate() {
        let mut sum = Lanes::zero(simd);
        let squares = if j < whole { a.len() / T::LANES } else { 0 };
        for (i, a) in T::blocks(a).0[..squares].iter().enumerate() {
            simd.transpose(
                b.tail(i * T::LANES, j * T::LANES),
                b.col_stride(),
                T::LANES,
                #[inline(always)]
                |p, line| sum = Lanes::splat(simd, a.as_ref()[p]).mul_add(Lanes::new(simd, line), sum),
            );
        }
        let cols = j * T::LANES..b.cols().min((j + 1) * T::LANES);
        for (p, &a) in a.iter().enumerate().skip(squares * T::LANES) {
            let mut line = T::fill(T::zero());
            for (lane, j) in line.as_mut().iter_mut().zip(cols.clone()) {
                *lane = b.tail(p, j)[0];
            }
            sum = Lanes::splat(simd, a).mul_add(Lanes::load(simd, &line), sum);
        }
        *sums = sum.store();
    }
}
