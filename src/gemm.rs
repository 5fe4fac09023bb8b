//! The loops of the matrix product, `C = f(alpha A B + old)`, for a C whose rows are contiguous.
//!
//! ```text
//! for columns of B that fit the L2 cache together with their k-block     (PANELS)
//!   for k-blocks                                                         (Float::K_BLOCK)
//!     pack that part of B, unless it is as good where it is
//!     for rows of A, a register tile at a time                           (ROWS, MID or LOW)
//!       pack them, unless they are read but once or twice: they stay in the L1 cache
//!       for columns of that part of B, a register tile at a time         (BLOCKS): micro::tile, then store
//! ```
//!
//! A product of one row goes through B once, without a tile: `gemv`.
//!
//! What an element is made of depends on `k` alone: in a k-block one ascending chain of fused multiply-adds from +0,
//! and `c = alpha * chain + old` for the first block, `c = alpha * chain + c` for the others. Tiles, packing and
//! threads only move data.

use core::ops::Range;

mod gemv;
mod micro;
mod pack;
mod scratch;
mod target;

pub(crate) use scratch::HasScratch;
pub(crate) use target::Target;

use crate::finite::Watch;
use crate::float::Float;
use crate::kernel::{Kernel, outline};
use crate::lanes::Lanes;
use crate::ops::linear::Activation;
use crate::simd::{Simd, Tiled};
use crate::sweep::{first_lanes, load_tail, store_tail};
use crate::view::MatRef;
use micro::{Left, Right, Sums, tile};
use pack::{pack_columns, pack_panels, pack_rows};
use scratch::Scratch;

/// Tiles of B that are packed together: with a k-block of 2 KiB a column, three quarters of the L2 cache of the CPUs
/// that a tile of 16 columns (AVX2: 512 KiB) or 32 (AVX-512: 1 MiB) is meant for.
const PANELS: usize = 12;

/// Columns are split over threads at multiples of this, the widest tile.
const COLUMNS_CUT: usize = 32;

/// Tiles of B for which it does not pay to copy the rows of A.
const DIRECT_PANELS: usize = 8;

/// Rows of A below which packing B does not pay.
const DIRECT_ROWS: usize = 64;

/// The kernel of the matrix product; whether all of `alpha A B + old` is finite. Neither `k` nor `alpha` is 0.
#[derive(Debug)]
pub struct Gemm<'a, T> {
    pub(crate) alpha: T,
    pub(crate) a: MatRef<'a, T>,
    pub(crate) b: MatRef<'a, T>,
    pub(crate) old: Old<'a, T>,
    pub(crate) c: Target<'a, T>,
    /// What becomes of the sums at the end.
    pub(crate) activation: Activation,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Old<'a, T> {
    /// C times a factor; with 0, C is not read.
    Scaled(T),
    /// The same row for every row of C.
    Row(&'a [T]),
}

impl<T: Float> Kernel for Gemm<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        simd.with_tile(self)
    }

    fn work(&self) -> usize {
        (self.c.rows().saturating_mul(self.c.cols()) / 32).saturating_mul(self.a.cols())
    }

    /// By columns where there are many: two threads then pack different parts of B.
    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { alpha, a, b, old, c, activation } = self;
        let (rows, cols) = (c.rows(), c.cols());
        if cols >= 4 * COLUMNS_CUT && cols >= rows / 4 {
            let at = (cols / 2).next_multiple_of(COLUMNS_CUT);
            let (c, c2) = c.split_cols(at);
            let (b, b2) = (b.t().rows_before(at).t(), b.t().rows_from(at).t());
            let (old, old2) = match old {
                Old::Row(row) => (Old::Row(&row[..at]), Old::Row(&row[at..])),
                scaled @ Old::Scaled(_) => (scaled, scaled),
            };
            Ok((Self { alpha, a, b, old, c, activation }, Self { alpha, a, b: b2, old: old2, c: c2, activation }))
        } else {
            match c.halve_rows() {
                Ok((c, c2)) => {
                    let (a, a2) = (a.rows_before(c.rows()), a.rows_from(c.rows()));
                    Ok((Self { alpha, a, b, old, c, activation }, Self { alpha, a: a2, b, old, c: c2, activation }))
                }
                Err(c) => Err(Self { alpha, a, b, old, c, activation }),
            }
        }
    }
}

impl<'a, T: Float> Gemm<'a, T> {
    /// What happens to the sums of the k-block of this depth at `start`.
    #[inline(always)]
    fn store(&self, start: usize, depth: usize) -> Store<'a, T> {
        Store {
            alpha: self.alpha,
            old: if start == 0 { self.old } else { Old::Scaled(T::one()) },
            is_last: start + depth == self.a.cols(),
        }
    }

    /// Applies the activation to columns of C, which are in the cache still.
    #[inline(always)]
    fn activate<S: Simd<T>>(&mut self, simd: S, cols: Range<usize>) {
        if self.activation != Activation::Identity {
            outline(simd, Activate { activation: self.activation, c: &mut self.c, cols });
        }
    }
}

/// The activation of columns of C.
struct Activate<'s, 'a, T> {
    activation: Activation,
    c: &'s mut Target<'a, T>,
    cols: Range<usize>,
}

impl<T: Float> Kernel for Activate<'_, '_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        for row in 0..self.c.rows() {
            self.activation.apply_row(simd, &mut self.c.row_mut(row)[self.cols.clone()]);
        }
    }
}

impl<T: Float> Tiled<T> for Gemm<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>, const ROWS: usize, const MID: usize, const LOW: usize, const BLOCKS: usize>(
        mut self,
        simd: S,
    ) -> bool {
        if self.c.rows() == 1 && gemv::fits(self.b) {
            return gemv::row(simd, &mut self);
        }
        let width = BLOCKS * T::LANES;
        let (m, n, depth) = (self.c.rows(), self.c.cols(), self.a.cols().min(T::K_BLOCK));
        let in_place = is_direct(self.b) && m < DIRECT_ROWS;
        let step = if in_place { n } else { PANELS * width };
        let packed_cols = if !in_place { step.min(n.next_multiple_of(width)) } else { n % width };
        let packs_left = !(self.a.row(0).is_some() && n <= DIRECT_PANELS * width);
        let left_len = if packs_left { ROWS * depth } else { 0 };
        let right_len = packed_cols.next_multiple_of(width) * depth;
        let mut scratch = if left_len + right_len > 0 { T::take_scratch() } else { Scratch::new() };
        let [left, right] = scratch.parts(left_len, right_len);
        let mut finite = true;
        let mut col = 0;
        while col < n {
            let cols = step.min(n - col);
            for start in (0..self.a.cols()).step_by(T::K_BLOCK) {
                let depth = T::K_BLOCK.min(self.a.cols() - start);
                let b = self.b.window(start..start + depth, col..col + cols);
                let packed_from = if in_place { cols / width * width } else { 0 };
                if packed_from < cols {
                    pack_panels(simd, b.window(0..depth, packed_from..cols), width, right);
                }
                let slab = Slab { b, packed: right, packed_from };
                let place = Place { col, start };
                finite &= Pass { simd, gemm: &mut self, left, slab, place }.run::<ROWS, MID, LOW, BLOCKS>();
            }
            self.activate(simd, col..col + cols);
            col += cols;
        }
        if left_len + right_len > 0 {
            T::keep_scratch(scratch);
        }
        finite
    }
}

/// Whether tiles can read B where it is: rows contiguous and apart from each other.
fn is_direct<T>(b: MatRef<'_, T>) -> bool {
    b.row(0).is_some() && (b.row_stride() >= b.cols() || b.rows() == 1)
}

/// Columns of B within a k-block.
#[derive(Clone, Copy)]
struct Slab<'a, T> {
    b: MatRef<'a, T>,
    /// The panels from column `packed_from` on.
    packed: &'a [T],
    packed_from: usize,
}

impl<'a, T: Float> Slab<'a, T> {
    /// The panel at a column of the slab.
    #[inline(always)]
    fn panel<const BLOCKS: usize>(self, col: usize) -> Right<'a, T, BLOCKS> {
        let Self { b, packed, packed_from } = self;
        let width = BLOCKS * T::LANES;
        if col < packed_from && b.row_stride() == width {
            Right::Packed(T::blocks(b.from(0, col)).0.as_chunks().0) // as good as packed
        } else if col < packed_from {
            Right::Lines(b.from(0, col), b.row_stride().max(width))
        } else {
            Right::Packed(T::blocks(&packed[(col - packed_from) * b.rows()..]).0.as_chunks().0)
        }
    }
}

/// A slab against all rows of A.
struct Pass<'s, 'a, T: Float, S: Simd<T>> {
    simd: S,
    gemm: &'s mut Gemm<'a, T>,
    left: &'s mut [T],
    slab: Slab<'s, T>,
    place: Place,
}

/// Where a slab lies.
#[derive(Clone, Copy)]
struct Place {
    /// Its first column.
    col: usize,
    /// Where its k-block begins.
    start: usize,
}

impl<T: Float, S: Simd<T>> Pass<'_, '_, T, S> {
    /// Computes all rows of C; whether they are finite.
    #[inline(always)]
    fn run<const ROWS: usize, const MID: usize, const LOW: usize, const BLOCKS: usize>(mut self) -> bool {
        let m = self.gemm.c.rows();
        let mut finite = true;
        let mut row = 0;
        while row < m {
            let rows = m - row;
            // No thin tile at the end where two of MID rows do: too few chains in it to fill the pipes.
            let (done, all_finite) = if rows > ROWS + LOW || rows == ROWS || (MID < rows && rows < ROWS) {
                self.band::<ROWS, BLOCKS>(row)
            } else if rows > LOW {
                self.band::<MID, BLOCKS>(row)
            } else {
                self.band::<LOW, BLOCKS>(row)
            };
            row += done;
            finite &= all_finite;
        }
        finite
    }

    /// Computes `ROWS` rows of C, or as many as there are; how many, and whether they are finite.
    #[inline(always)]
    fn band<const ROWS: usize, const BLOCKS: usize>(&mut self, row: usize) -> (usize, bool) {
        let (depth, cols) = (self.slab.b.rows(), self.slab.b.cols());
        let rows = ROWS.min(self.gemm.c.rows() - row);
        let a = self.gemm.a.window(row..row + rows, self.place.start..self.place.start + depth);
        let left = if a.row(0).is_some() && cols <= DIRECT_PANELS * BLOCKS * T::LANES {
            Left::Rows(direct_rows(a))
        } else if a.t().row(0).is_some() && a.col_stride() >= rows {
            Left::Columns(pack_columns::<T, ROWS>(a, &mut self.left[..ROWS * depth]))
        } else {
            Left::Rows(pack_rows::<T, ROWS>(a, self.left))
        };
        let store = self.gemm.store(self.place.start, depth);
        let band: Band<'_, '_, T, ROWS, BLOCKS> =
            Band { left, slab: self.slab, store, c: &mut self.gemm.c, rows: row..row + rows, col: self.place.col };
        (rows, outline(self.simd, band))
    }
}

/// A slab against the rows of a tile; whether what is written is finite. A function of its own, so that the registers are
/// its own.
struct Band<'s, 'a, T, const ROWS: usize, const BLOCKS: usize> {
    left: Left<'s, T, ROWS>,
    slab: Slab<'s, T>,
    store: Store<'s, T>,
    c: &'s mut Target<'a, T>,
    rows: Range<usize>,
    col: usize,
}

impl<T: Float, const ROWS: usize, const BLOCKS: usize> Kernel for Band<'_, '_, T, ROWS, BLOCKS> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let mut watch = Watch::new(simd);
        let (depth, cols) = (self.slab.b.rows(), self.slab.b.cols());
        let mut c: [&mut [T]; ROWS] = self.c.rows_mut(self.rows.clone());
        let width = BLOCKS * T::LANES;
        let mut col = 0;
        while col < cols {
            let sums: Sums<T, S, ROWS, BLOCKS> = tile(simd, self.left, self.slab.panel(col), depth);
            let at = self.col + col;
            if self.rows.len() == ROWS && col + width <= cols {
                self.store.whole(sums, at, &mut c, &mut watch);
            } else {
                for (c, sums) in c.iter_mut().zip(&sums).take(self.rows.len()) {
                    self.store.row(sums, at, &mut c[at..self.col + cols.min(col + width)], &mut watch);
                }
            }
            col += width;
        }
        watch.all_finite()
    }
}

/// The rows of a part of A, the last of them again and again where `ROWS` is more than it has.
#[inline(always)]
fn direct_rows<'a, T: Float, const ROWS: usize>(a: MatRef<'a, T>) -> [&'a [T]; ROWS] {
    let mut rest = a.from(0, 0);
    let mut rows: [&[T]; ROWS] = [&rest[..a.cols()]; ROWS];
    for (i, row) in rows.iter_mut().enumerate().skip(1) {
        if i < a.rows() {
            rest = &rest[a.row_stride()..];
        }
        *row = &rest[..a.cols()];
    }
    rows
}

/// What happens to the sum of a k-block.
#[derive(Clone, Copy)]
struct Store<'a, T> {
    alpha: T,
    old: Old<'a, T>,
    is_last: bool,
}

impl<T: Float> Store<'_, T> {
    /// Writes the sums of a tile to whole blocks of rows of C, from a column on.
    #[inline(always)]
    fn whole<S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
        self,
        mut sums: Sums<T, S, ROWS, BLOCKS>,
        col: usize,
        c: &mut [&mut [T]; ROWS],
        watch: &mut Watch<T, S>,
    ) {
        // Which kind of old it is, is asked once a tile.
        match self.old {
            Old::Scaled(beta) if beta.is_zero() => {
                for sum in sums.as_flattened_mut() {
                    *sum = self.update(*sum, *sum);
                }
            }
            Old::Scaled(_) => {
                for i in 0..ROWS {
                    self.update_row(&mut sums[i], &c[i][col..]);
                }
            }
            Old::Row(row) => {
                for sums in &mut sums {
                    self.update_row(sums, &row[col..]);
                }
            }
        }
        for i in 0..ROWS {
            if let Some(c) = T::blocks_mut(&mut c[i][col..]).0.first_chunk_mut::<BLOCKS>() {
                for j in 0..BLOCKS {
                    c[j] = sums[i][j].store();
                }
            }
        }
        if self.is_last {
            for sum in sums.as_flattened() {
                watch.see(*sum);
            }
        }
    }

    #[inline(always)]
    fn update_row<S: Simd<T>, const BLOCKS: usize>(self, sums: &mut [Lanes<T, S>; BLOCKS], old: &[T]) {
        if let Some(old) = T::blocks(old).0.first_chunk::<BLOCKS>() {
            for j in 0..BLOCKS {
                sums[j] = self.update(sums[j], Lanes::load(sums[j].simd, &old[j]));
            }
        }
    }

    /// Writes the sums of a row of C, from a column on.
    #[inline(always)]
    fn row<S: Simd<T>>(self, sums: &[Lanes<T, S>], col: usize, c: &mut [T], watch: &mut Watch<T, S>) {
        let simd = sums[0].simd;
        let (blocks, tail) = T::blocks_mut(c);
        let (whole, len) = (blocks.len(), tail.len());
        for (i, (c, &sum)) in blocks.iter_mut().zip(sums).enumerate() {
            let old = match self.old {
                Old::Scaled(_) => Lanes::load(simd, c),
                Old::Row(row) => Lanes::load(simd, &T::blocks(&row[col..]).0[i]),
            };
            let new = self.update(sum, old);
            *c = new.store();
            if self.is_last {
                watch.see(new);
            }
        }
        if !tail.is_empty() {
            let zero = Lanes::zero(simd);
            let old = match self.old {
                Old::Scaled(beta) if beta.is_zero() => zero,
                Old::Scaled(_) => load_tail(simd, tail, T::zero()),
                Old::Row(row) => load_tail(simd, &row[col + whole * T::LANES..][..len], T::zero()),
            };
            let new = self.update(sums[whole], old);
            store_tail(new, tail);
            if self.is_last {
                watch.see(first_lanes(simd, len).select(new, zero));
            }
        }
    }

    /// `alpha * sum + old`; an old element that does not count has no part in it.
    #[inline(always)]
    fn update<S: Simd<T>>(self, sum: Lanes<T, S>, old: Lanes<T, S>) -> Lanes<T, S> {
        let alpha = sum.all(self.alpha);
        match self.old {
            Old::Scaled(beta) if beta.is_zero() => alpha * sum,
            Old::Scaled(beta) => alpha.mul_add(sum, sum.all(beta) * old),
            Old::Row(_) => alpha.mul_add(sum, old),
        }
    }
}
