//! All the arithmetic of the matrix product: one register tile.

use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// `ROWS` rows of A within a k-block, as a tile reads them.
#[derive(Clone, Copy)]
pub(super) enum Left<'a, T, const ROWS: usize> {
    /// Row by row.
    Rows([&'a [T]; ROWS]),
    /// Column by column: columns that begin so far from each other.
    Columns(&'a [T], usize),
}

/// Columns of B within a k-block, as wide as a tile.
pub(super) enum Right<'a, T: Float, const BLOCKS: usize> {
    /// Packed: one line after the other.
    Packed(&'a [[T::Block; BLOCKS]]),
    /// Where they are: lines that begin so far from each other.
    Lines(&'a [T], usize),
    /// The same, and packed on the way.
    Copied(&'a [T], usize, &'a mut [[T::Block; BLOCKS]]),
}

/// The sums of a tile, block by block.
pub(super) type Sums<T, S, const ROWS: usize, const BLOCKS: usize> = [[Lanes<T, S>; BLOCKS]; ROWS];

/// No sums yet: +0.
#[inline(always)]
pub(super) fn no_sums<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    simd: S,
) -> Sums<T, S, ROWS, BLOCKS> {
    [[Lanes::zero(simd); BLOCKS]; ROWS]
}

/// Adds the products of `ROWS x BLOCKS` blocks of C over a part of `k` to their sums: `a[i][0] b[0][j] + a[i][1] b[1][j] +
/// ...`, each an ascending chain of fused multiply-adds.
#[inline(always)]
pub(super) fn tile<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    sums: Sums<T, S, ROWS, BLOCKS>,
    a: &Left<'_, T, ROWS>,
    b: Right<'_, T, BLOCKS>,
    depth: usize,
) -> Sums<T, S, ROWS, BLOCKS> {
    match a {
        Left::Rows(rows) => {
            let rows = of_depth(rows, depth);
            chains(
                sums,
                #[inline(always)]
                |p, i| rows[i][p],
                b,
                depth,
            )
        }
        &Left::Columns(columns, stride) => chains(
            sums,
            #[inline(always)]
            |p, i| columns[p * stride..][..ROWS][i],
            b,
            depth,
        ),
    }
}

/// Rows of a length that a loop knows, so that it checks no bounds.
#[inline(always)]
pub(super) fn of_depth<'a, T, const ROWS: usize>(rows: &[&'a [T]; ROWS], depth: usize) -> [&'a [T]; ROWS] {
    let mut rows = *rows;
    for row in &mut rows {
        *row = &row[..depth];
    }
    rows
}

/// The sums, with element `(i, p)` of A from `a(p, i)`.
#[inline(always)]
pub(super) fn chains<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    mut sums: Sums<T, S, ROWS, BLOCKS>,
    a: impl Fn(usize, usize) -> T,
    b: Right<'_, T, BLOCKS>,
    depth: usize,
) -> Sums<T, S, ROWS, BLOCKS> {
    match b {
        Right::Packed(lines) => {
            let lines = &lines[..depth];
            #[expect(clippy::needless_range_loop, reason = "one counter serves the bounds of A as well")]
            for p in 0..depth {
                step(&mut sums, &a, p, &lines[p]);
            }
        }
        Right::Lines(lines, stride) => each_line(
            lines,
            stride,
            depth,
            #[inline(always)]
            |p, line| step(&mut sums, &a, p, line),
        ),
        Right::Copied(lines, stride, packed) => {
            let packed = &mut packed[..depth];
            each_line(
                lines,
                stride,
                depth,
                #[inline(always)]
                |p, line| {
                    packed[p] = *line;
                    step(&mut sums, &a, p, line);
                },
            );
        }
    }
    sums
}

/// Calls `f` with the beginnings of so many lines of B.
#[inline(always)]
fn each_line<T: Float, const BLOCKS: usize>(
    mut rest: &[T],
    stride: usize,
    depth: usize,
    mut f: impl FnMut(usize, &[T::Block; BLOCKS]),
) {
    for p in 0..depth {
        let Some(line) = T::blocks(rest).0.first_chunk() else { break };
        f(p, line);
        // The last line may be shorter than the stride.
        let Some(next) = rest.get(stride..) else { break };
        rest = next;
    }
}

/// Adds the products of column `p` of A and a line of B.
#[inline(always)]
fn step<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    sums: &mut Sums<T, S, ROWS, BLOCKS>,
    a: &impl Fn(usize, usize) -> T,
    p: usize,
    line: &[T::Block; BLOCKS],
) {
    let simd = sums[0][0].simd;
    let mut b = [Lanes::zero(simd); BLOCKS];
    for (b, block) in b.iter_mut().zip(line) {
        *b = Lanes::load(simd, block);
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        let a = Lanes::splat(simd, a(p, i));
        for (sum, &b) in sums.iter_mut().zip(&b) {
            *sum = a.mul_add(b, *sum);
        }
    }
}
