//! The loops of the matrix product, `C = alpha A B + beta C`, for a C whose rows are contiguous.
//!
//! ```text
//! for columns of B that fit the L2 cache together with their k-block     (COLUMNS)
//!   for k-blocks                                                         (K_BLOCK)
//!     pack that part of B
//!     for rows of A, a register tile at a time                           (ROWS)
//!       pack them: they stay in the L1 cache
//!       for columns of the packed B, a register tile at a time           (BLOCKS): micro::tile, then store
//! ```
//!
//! What an element is made of depends on `k` alone: in a k-block one ascending chain of fused multiply-adds from +0,
//! and `c = alpha * chain + beta * c` for the first block, `c = alpha * chain + c` for the others. Tiles, packing and
//! threads only move data.

mod micro;
mod pack;

use crate::finite::Watch;
use crate::float::Float;
use crate::kernel::Kernel;
use crate::lanes::Lanes;
use crate::simd::{Simd, Tiled};
use crate::sweep::{load_tail, store_tail};
use crate::view::{MatMut, MatRef};
use micro::tile;
use pack::{PackedA, PackedB};

/// Columns of B that are packed together: with a k-block of 2 KiB a column, three quarters of a 1 MiB L2 cache.
const COLUMNS: usize = 384;

/// The kernel of the matrix product; whether all of C is finite. Neither `k` nor `alpha` is 0.
#[derive(Debug)]
pub struct Gemm<'a, T> {
    pub(crate) alpha: T,
    pub(crate) a: MatRef<'a, T>,
    pub(crate) b: MatRef<'a, T>,
    pub(crate) beta: T,
    /// Its rows are contiguous.
    pub(crate) c: MatMut<'a, T>,
}

impl<T: Float> Kernel for Gemm<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        simd.with_tile(self)
    }

    fn work(&self) -> usize {
        (self.c.as_ref().area() / 32).saturating_mul(self.a.cols())
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { alpha, a, b, beta, c } = self;
        match c.halve_rows() {
            Ok((c, c2)) => {
                let (a, a2) = (a.rows_before(c.rows()), a.rows_from(c.rows()));
                Ok((Self { alpha, a, b, beta, c }, Self { alpha, a: a2, b, beta, c: c2 }))
            }
            Err(c) => Err(Self { alpha, a, b, beta, c }),
        }
    }
}

impl<T: Float> Tiled<T> for Gemm<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(self, simd: S) -> bool {
        let Self { alpha, a, b, beta, mut c } = self;
        let (n, k) = (c.cols(), a.cols());
        let mut packed_a = PackedA::new(ROWS, k);
        let mut packed_b = PackedB::new::<BLOCKS>(k, n.min(COLUMNS));
        let mut watch = Watch::new(simd);
        for col in (0..n).step_by(COLUMNS) {
            let cols = COLUMNS.min(n - col);
            for start in (0..k).step_by(T::K_BLOCK) {
                let depth = T::K_BLOCK.min(k - start);
                packed_b.pack::<BLOCKS>(b, start, depth, col, cols);
                let store =
                    Store { alpha, beta: if start == 0 { beta } else { T::one() }, is_last: start + depth == k };
                let mut panel = Panel { simd, store, col, b: &packed_b, watch: &mut watch };
                let mut row = 0;
                while row < c.rows() {
                    let rows = c.rows() - row;
                    row += if rows >= ROWS {
                        packed_a.pack(a, row, ROWS, start, depth);
                        panel.sweep::<ROWS, BLOCKS>(&packed_a, &mut c, row)
                    } else if rows >= 4 && ROWS > 4 {
                        packed_a.pack(a, row, 4, start, depth);
                        panel.sweep::<4, BLOCKS>(&packed_a, &mut c, row)
                    } else {
                        packed_a.pack(a, row, 1, start, depth);
                        panel.sweep::<1, BLOCKS>(&packed_a, &mut c, row)
                    };
                }
            }
        }
        watch.all_finite()
    }
}

/// What happens to the sum of a k-block.
#[derive(Clone, Copy)]
struct Store<T> {
    alpha: T,
    beta: T,
    is_last: bool,
}

/// The tiles of one packed part of B against rows of A.
struct Panel<'a, T: Float, S: Simd<T>> {
    simd: S,
    store: Store<T>,
    col: usize,
    b: &'a PackedB<T>,
    watch: &'a mut Watch<T, S>,
}

impl<T: Float, S: Simd<T>> Panel<'_, T, S> {
    /// Computes `ROWS` rows of C; returns how many.
    #[inline(always)]
    fn sweep<const ROWS: usize, const BLOCKS: usize>(
        &mut self,
        a: &PackedA<T>,
        c: &mut MatMut<'_, T>,
        row: usize,
    ) -> usize {
        for (i, (b, width)) in self.b.panels::<BLOCKS>().enumerate() {
            let sums = tile::<T, S, ROWS, BLOCKS>(self.simd, a.rows(), b);
            let col = self.col + i * BLOCKS * T::LANES;
            for (i, sums) in sums.into_iter().enumerate() {
                if let Some(c) = c.row_mut(row + i) {
                    self.store_row(sums, &mut c[col..col + width]);
                }
            }
        }
        ROWS
    }

    #[inline(always)]
    fn store_row<const BLOCKS: usize>(&mut self, sums: [Lanes<T, S>; BLOCKS], c: &mut [T]) {
        let (blocks, tail) = T::blocks_mut(c);
        for (c, &sum) in blocks.iter_mut().zip(&sums) {
            let new = self.store.update(sum, Lanes::load(self.simd, c));
            *c = new.store();
            if self.store.is_last {
                self.watch.see(new);
            }
        }
        if !tail.is_empty() {
            let new = self.store.update(sums[blocks.len()], load_tail(self.simd, tail, T::zero()));
            store_tail(new, tail);
            if self.store.is_last {
                self.watch.see(load_tail(self.simd, tail, T::zero()));
            }
        }
    }
}

impl<T: Float> Store<T> {
    /// `alpha * sum + beta * old`; the old value does not count if `beta` is 0.
    #[inline(always)]
    fn update<S: Simd<T>>(self, sum: Lanes<T, S>, old: Lanes<T, S>) -> Lanes<T, S> {
        let alpha = sum.all(self.alpha);
        if self.beta.is_zero() { alpha * sum } else { alpha.mul_add(sum, old.all(self.beta) * old) }
    }
}
