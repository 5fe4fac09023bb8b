//! Products of few columns, whose rows of A and C follow each other: so many rows at a time from the first to the last.
//! Where `k` is short, setting up a tile would cost more than its products; where C is wider than a tile by no more than
//! a block, a narrow tile for the rest would be too slow. Small squares are among them.

use core::mem;

use super::micro::{Left, Right, Sums, no_sums, tile};
use super::pack::pack_panels;
use super::{Gemm, in_memory, store_all, watch_all, write_blocks};
use crate::finite::Watch;
use crate::float::Float;
use crate::kernel::Kernel;
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::sweep::store_first;
use crate::view::MatRef;

/// The longest `k` of a C that is no wider than two blocks, the widest tile.
const DEPTH: usize = 64;

/// The whole product, `ROWS` rows at a time of as many columns as `BLOCKS` blocks have lanes; whether it is finite.
pub(super) struct Narrow<'s, 'a, T, const ROWS: usize, const BLOCKS: usize>(pub(super) &'s mut Gemm<'a, T>);

impl<T: Float, const ROWS: usize, const BLOCKS: usize> Narrow<'_, '_, T, ROWS, BLOCKS> {
    const WIDTH: usize = BLOCKS * T::LANES;

    /// Whether the product is of this kind, and its sums are what is written.
    #[inline(always)]
    pub(super) fn fits(&self) -> bool {
        let Self(gemm) = self;
        let depth = if gemm.c.cols() > 2 * T::LANES { T::K_BLOCK } else { DEPTH };
        let is_small = gemm.c.rows() >= ROWS && gemm.c.cols() <= Self::WIDTH && gemm.a.cols() <= depth;
        is_small && gemm.store(0).is_plain() && gemm.a.is_gapless() && gemm.c.is_gapless()
    }

    /// Packs B. Where its rows follow each other, they run over into the next ones: what is too much of a product runs over
    /// into the next row of C.
    #[inline(always)]
    fn pack<S: Simd<T>>(simd: S, b: MatRef<'_, T>, packed: &mut [T]) {
        let mut done = 0;
        if b.is_gapless() {
            for (p, packed) in T::blocks_mut(packed).0.as_chunks_mut::<BLOCKS>().0.iter_mut().enumerate() {
                let Some(line) = T::blocks(b.tail(p, 0)).0.first_chunk() else { break };
                *packed = *line;
                done = p + 1;
            }
        }
        if done < b.rows() {
            pack_panels::<T, S, BLOCKS>(simd, b.window(done..b.rows(), 0..b.cols()), &mut packed[done * Self::WIDTH..]);
        }
    }
}

impl<T: Float, const ROWS: usize, const BLOCKS: usize> Kernel for Narrow<'_, '_, T, ROWS, BLOCKS> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self(gemm) = self;
        let (m, n, k) = (gemm.c.rows(), gemm.c.cols(), gemm.a.cols());
        let is_packed = n == Self::WIDTH && gemm.b.is_gapless();
        let mut scratch = (!is_packed).then(T::take_scratch);
        let packed = scratch.as_mut().map_or_else(Default::default, |scratch| {
            let [_, packed] = scratch.parts(0, k * Self::WIDTH);
            Self::pack(simd, gemm.b, packed);
            &*packed
        });
        let lines = T::blocks(if is_packed { gemm.b.tail(0, 0) } else { packed }).0.as_chunks().0;
        let (a, c) = (gemm.a.tail(0, 0), &mut gemm.c.tail_mut(0, 0)[..m * n]);
        let mut watch = Watch::new(simd);
        for row in (0..m).step_by(ROWS) {
            let row = row.min(m - ROWS); // the last are computed with some of those before once more
            let mut rest = &a[row * k..];
            let mut rows = [rest; ROWS];
            for row in &mut rows {
                (*row, rest) = rest.split_at(k);
            }
            let sums: Sums<T, S, ROWS, BLOCKS> = tile(no_sums(simd), &Left::Rows(rows), Right::Packed(lines), k);
            let c = &mut c[row * n..];
            if c.len() >= (ROWS - 1) * n + Self::WIDTH {
                // Each row runs over into the next ones, which are written later.
                let mut rest = c;
                for sums in &sums {
                    write_blocks(rest, store_all(*sums));
                    rest = &mut mem::take(&mut rest)[n..];
                }
                watch_all(sums, &mut watch);
            } else {
                let sums = in_memory(sums);
                for (sums, c) in sums.iter().zip(c.chunks_exact_mut(n)) {
                    for (sum, c) in sums.iter().zip(c.chunks_mut(T::LANES)) {
                        let sum = Lanes::load(simd, sum);
                        watch.see(sum);
                        store_first(sum, c, c.len());
                    }
                }
            }
        }
        if let Some(scratch) = scratch {
            T::keep_scratch(scratch);
        }
        gemm.activate(simd, 0..n);
        watch.all_finite()
    }
}
