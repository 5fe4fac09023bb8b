//! All the arithmetic of the matrix product: one register tile.

use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// The sums of `ROWS x BLOCKS` blocks of C over one k-block: `sums[i][j] = a[i][0] b[0][j] + a[i][1] b[1][j] + ...`, each
/// an ascending chain of fused multiply-adds from +0.
#[inline(always)]
pub(super) fn tile<T: Float, S: Simd<T>, const ROWS: usize, const BLOCKS: usize>(
    simd: S,
    a: [&[T]; ROWS],
    b: &[[T::Block; BLOCKS]],
) -> [[Lanes<T, S>; BLOCKS]; ROWS] {
    let mut sums = [[Lanes::zero(simd); BLOCKS]; ROWS];
    // Slices of the length of `b`, so that the loop checks no bounds.
    let a = a.map(
        #[inline(always)]
        |row| &row[..b.len()],
    );
    for (p, b) in b.iter().enumerate() {
        let b = b.each_ref().map(
            #[inline(always)]
            |block| Lanes::load(simd, block),
        );
        for i in 0..ROWS {
            let a = Lanes::splat(simd, a[i][p]);
            for j in 0..BLOCKS {
                sums[i][j] = a.mul_add(b[j], sums[i][j]);
            }
        }
    }
    sums
}
