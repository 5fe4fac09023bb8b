//! AVX2 with FMA: a block is two registers, a mask two registers of all ones or all zeros.

use pulp::x86::V3;
use pulp::{Simd as _, cast, f32x4, f32x8, f64x4, m32x8, m64x4, u32x8, u64x2};

use super::{Enter, Simd, Tiled};
use crate::kernel::Kernel;

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(V3);

impl Avx2 {
    /// The proof, where there is one.
    #[inline]
    pub fn detect() -> Option<Self> {
        V3::try_new().map(Self)
    }

    /// `lookup` of half a block: by halves of numbers, in halves of the table, between which the third bit of the number of
    /// the entry decides.
    #[inline(always)]
    fn lookup_f64x4(self, [low, high]: [f64x4; 2], a: f64x4) -> f64x4 {
        let (avx, avx2) = (self.0.avx, self.0.avx2);
        let twice = avx2._mm256_slli_epi64::<1>(cast(a));
        let of_halves = self
            .0
            .wrapping_add_u32x8(cast(avx2._mm256_shuffle_epi32::<0b10_10_00_00>(twice)), u32x8(0, 1, 0, 1, 0, 1, 0, 1));
        let low = avx2._mm256_permutevar8x32_epi32(cast(low), cast(of_halves));
        let high = avx2._mm256_permutevar8x32_epi32(cast(high), cast(of_halves));
        cast(avx._mm256_blendv_pd(cast(low), cast(high), cast(avx2._mm256_slli_epi64::<61>(cast(a)))))
    }
}

/// `N` neighbours from `at` on of each of some lines.
#[inline(always)]
pub(super) fn parts<T: Copy, const N: usize, const LANES: usize, const LINES: usize>(
    lines: [&[T; LANES]; LINES],
    at: usize,
) -> [[T; N]; LINES] {
    let mut parts = [[lines[0][0]; N]; LINES];
    for (part, line) in parts.iter_mut().zip(lines) {
        part.copy_from_slice(&line[at..at + N]);
    }
    parts
}

/// The lines of a square, each of which begins so far from the one before.
#[inline(always)]
pub(super) fn square<T, const LANES: usize>(x: &[T], stride: usize) -> [&[T; LANES]; LANES] {
    const REACH: &str = "the square lies inside the slice";
    let mut lines = [x.first_chunk().expect(REACH); LANES];
    for (i, line) in lines.iter_mut().enumerate() {
        *line = x[i * stride..].first_chunk().expect(REACH);
    }
    lines
}

impl Simd<f32> for Avx2 {
    type Vector = [f32x8; 2];
    type Mask = [m32x8; 2];
    type Wide = Self;

    #[inline(always)]
    fn vectorize<K: Kernel<Elem = f32>>(self, kernel: K) -> K::Output {
        self.0.vectorize(Enter { simd: self, kernel })
    }

    /// 12 of the 16 registers hold sums.
    #[inline(always)]
    fn with_tile<J: Tiled<f32>>(self, job: J) -> J::Output {
        job.run::<Self, 6, 4, 2, 1>(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32x8; 2] {
        [self.0.splat_f32x8(x); 2]
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [f32x8; 2] {
        cast(*x)
    }
    #[inline(always)]
    fn store(self, x: [f32x8; 2]) -> [f32; 16] {
        cast(x)
    }
    #[inline(always)]
    fn load_tail(self, tail: &[f32]) -> [f32x8; 2] {
        let (low, high) = tail.split_at(tail.len().min(8));
        [self.0.partial_load_f32s(low), self.0.partial_load_f32s(high)]
    }
    #[inline(always)]
    fn store_tail(self, [low, high]: [f32x8; 2], tail: &mut [f32]) {
        let (first, rest) = tail.split_at_mut(tail.len().min(8));
        self.0.partial_store_f32s(first, low);
        self.0.partial_store_f32s(rest, high);
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: [f32x8; 2]) -> [[f64x4; 2]; 2] {
        let [a, b, c, d]: [f32x4; 4] = cast(x);
        [
            [self.0.convert_f32x4_to_f64x4(a), self.0.convert_f32x4_to_f64x4(b)],
            [self.0.convert_f32x4_to_f64x4(c), self.0.convert_f32x4_to_f64x4(d)],
        ]
    }
    /// From memory, a conversion needs no shuffle.
    #[inline(always)]
    fn load_wide(self, x: &[f32; 16]) -> [[f64x4; 2]; 2] {
        let (quarters, _) = x.as_chunks::<4>();
        [
            [self.0.convert_f32x4_to_f64x4(cast(quarters[0])), self.0.convert_f32x4_to_f64x4(cast(quarters[1]))],
            [self.0.convert_f32x4_to_f64x4(cast(quarters[2])), self.0.convert_f32x4_to_f64x4(cast(quarters[3]))],
        ]
    }

    #[inline(always)]
    fn add(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.add_f32x8(a[0], b[0]), self.0.add_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn sub(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.sub_f32x8(a[0], b[0]), self.0.sub_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn mul(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.mul_f32x8(a[0], b[0]), self.0.mul_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn div(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.div_f32x8(a[0], b[0]), self.0.div_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn sqrt(self, a: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.sqrt_f32x8(a[0]), self.0.sqrt_f32x8(a[1])]
    }
    #[inline(always)]
    fn mul_add(self, a: [f32x8; 2], b: [f32x8; 2], c: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.mul_add_f32x8(a[0], b[0], c[0]), self.0.mul_add_f32x8(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn lt(self, a: [f32x8; 2], b: [f32x8; 2]) -> [m32x8; 2] {
        [self.0.cmp_lt_f32x8(a[0], b[0]), self.0.cmp_lt_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn le(self, a: [f32x8; 2], b: [f32x8; 2]) -> [m32x8; 2] {
        [self.0.cmp_le_f32x8(a[0], b[0]), self.0.cmp_le_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn eq(self, a: [f32x8; 2], b: [f32x8; 2]) -> [m32x8; 2] {
        [self.0.cmp_eq_f32x8(a[0], b[0]), self.0.cmp_eq_f32x8(a[1], b[1])]
    }

    #[inline(always)]
    fn select(self, mask: [m32x8; 2], a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.select_f32x8(mask[0], a[0], b[0]), self.0.select_f32x8(mask[1], a[1], b[1])]
    }
    #[inline(always)]
    fn larger(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.max_f32x8(a[0], b[0]), self.0.max_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn smaller(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.min_f32x8(a[0], b[0]), self.0.min_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn mask_and(self, a: [m32x8; 2], b: [m32x8; 2]) -> [m32x8; 2] {
        [self.0.and_m32x8(a[0], b[0]), self.0.and_m32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn mask_or(self, a: [m32x8; 2], b: [m32x8; 2]) -> [m32x8; 2] {
        [self.0.or_m32x8(a[0], b[0]), self.0.or_m32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn mask_not(self, a: [m32x8; 2]) -> [m32x8; 2] {
        [self.0.not_m32x8(a[0]), self.0.not_m32x8(a[1])]
    }
    #[inline(always)]
    fn any(self, mask: [m32x8; 2]) -> bool {
        self.0.avx._mm256_movemask_ps(cast(self.0.or_m32x8(mask[0], mask[1]))) != 0
    }

    #[inline(always)]
    fn and(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.and_f32x8(a[0], b[0]), self.0.and_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn or(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.or_f32x8(a[0], b[0]), self.0.or_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn xor(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.xor_f32x8(a[0], b[0]), self.0.xor_f32x8(a[1], b[1])]
    }
    #[inline(always)]
    fn int_add(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [
            cast(self.0.wrapping_add_u32x8(cast(a[0]), cast(b[0]))),
            cast(self.0.wrapping_add_u32x8(cast(a[1]), cast(b[1]))),
        ]
    }
    #[inline(always)]
    fn int_sub(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [
            cast(self.0.wrapping_sub_u32x8(cast(a[0]), cast(b[0]))),
            cast(self.0.wrapping_sub_u32x8(cast(a[1]), cast(b[1]))),
        ]
    }
    #[inline(always)]
    fn shl(self, a: [f32x8; 2], n: u32) -> [f32x8; 2] {
        [
            cast(self.0.shl_u32x8(cast(a[0]), u64x2(u64::from(n), 0))),
            cast(self.0.shl_u32x8(cast(a[1]), u64x2(u64::from(n), 0))),
        ]
    }
    #[inline(always)]
    fn shr(self, a: [f32x8; 2], n: u32) -> [f32x8; 2] {
        [
            cast(self.0.shr_u32x8(cast(a[0]), u64x2(u64::from(n), 0))),
            cast(self.0.shr_u32x8(cast(a[1]), u64x2(u64::from(n), 0))),
        ]
    }
    #[inline(always)]
    fn bit(self, a: [f32x8; 2]) -> [f32x8; 2] {
        [
            cast(self.0.shl_dyn_u32x8(self.0.splat_u32x8(1), cast(a[0]))),
            cast(self.0.shl_dyn_u32x8(self.0.splat_u32x8(1), cast(a[1]))),
        ]
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 8], a: [f32x8; 2]) -> [f32x8; 2] {
        [
            cast(self.0.avx2._mm256_permutevar8x32_ps(cast(*table), cast(a[0]))),
            cast(self.0.avx2._mm256_permutevar8x32_ps(cast(*table), cast(a[1]))),
        ]
    }

    /// Four columns at a time: each register takes four neighbours of a line and of the line four below it, so that the
    /// rest is a transpose of 4 x 4 within its halves.
    #[inline(always)]
    fn transpose(self, x: &[f32], stride: usize, count: usize, mut each: impl FnMut(usize, [f32x8; 2])) {
        const FIRST: i32 = 0b01_00_01_00;
        const SECOND: i32 = 0b11_10_11_10;
        let avx = self.0.avx;
        let lines = square::<f32, 16>(x, stride);
        for j in (0..16).step_by(4) {
            if j >= count {
                break;
            }
            let mut columns = [[self.0.splat_f32x8(0.0); 2]; 4];
            for (half, i) in [(0, 0), (1, 8)] {
                let r0 = cast(parts::<_, 4, 16, 2>([lines[i], lines[i + 4]], j));
                let r1 = cast(parts::<_, 4, 16, 2>([lines[i + 1], lines[i + 5]], j));
                let r2 = cast(parts::<_, 4, 16, 2>([lines[i + 2], lines[i + 6]], j));
                let r3 = cast(parts::<_, 4, 16, 2>([lines[i + 3], lines[i + 7]], j));
                let (a, b) = (avx._mm256_unpacklo_ps(r0, r1), avx._mm256_unpackhi_ps(r0, r1));
                let (c, d) = (avx._mm256_unpacklo_ps(r2, r3), avx._mm256_unpackhi_ps(r2, r3));
                columns[0][half] = cast(avx._mm256_shuffle_ps::<FIRST>(a, c));
                columns[1][half] = cast(avx._mm256_shuffle_ps::<SECOND>(a, c));
                columns[2][half] = cast(avx._mm256_shuffle_ps::<FIRST>(b, d));
                columns[3][half] = cast(avx._mm256_shuffle_ps::<SECOND>(b, d));
            }
            for (k, column) in columns.into_iter().enumerate() {
                if j + k < count {
                    each(j + k, column);
                }
            }
        }
    }
}

impl Simd<f64> for Avx2 {
    type Vector = [f64x4; 2];
    type Mask = [m64x4; 2];
    type Wide = Self;

    #[inline(always)]
    fn vectorize<K: Kernel<Elem = f64>>(self, kernel: K) -> K::Output {
        self.0.vectorize(Enter { simd: self, kernel })
    }

    /// 12 of the 16 registers hold sums.
    #[inline(always)]
    fn with_tile<J: Tiled<f64>>(self, job: J) -> J::Output {
        job.run::<Self, 6, 4, 2, 1>(self)
    }

    #[inline(always)]
    fn splat(self, x: f64) -> [f64x4; 2] {
        [self.0.splat_f64x4(x); 2]
    }
    #[inline(always)]
    fn load(self, x: &[f64; 8]) -> [f64x4; 2] {
        cast(*x)
    }
    #[inline(always)]
    fn store(self, x: [f64x4; 2]) -> [f64; 8] {
        cast(x)
    }
    #[inline(always)]
    fn load_tail(self, tail: &[f64]) -> [f64x4; 2] {
        let (low, high) = tail.split_at(tail.len().min(4));
        [self.0.partial_load_f64s(low), self.0.partial_load_f64s(high)]
    }
    #[inline(always)]
    fn store_tail(self, [low, high]: [f64x4; 2], tail: &mut [f64]) {
        let (first, rest) = tail.split_at_mut(tail.len().min(4));
        self.0.partial_store_f64s(first, low);
        self.0.partial_store_f64s(rest, high);
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: [f64x4; 2]) -> [[f64x4; 2]; 2] {
        [x, [self.0.splat_f64x4(0.0); 2]]
    }

    #[inline(always)]
    fn add(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.add_f64x4(a[0], b[0]), self.0.add_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn sub(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.sub_f64x4(a[0], b[0]), self.0.sub_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn mul(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.mul_f64x4(a[0], b[0]), self.0.mul_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn div(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.div_f64x4(a[0], b[0]), self.0.div_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn sqrt(self, a: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.sqrt_f64x4(a[0]), self.0.sqrt_f64x4(a[1])]
    }
    #[inline(always)]
    fn mul_add(self, a: [f64x4; 2], b: [f64x4; 2], c: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.mul_add_f64x4(a[0], b[0], c[0]), self.0.mul_add_f64x4(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn lt(self, a: [f64x4; 2], b: [f64x4; 2]) -> [m64x4; 2] {
        [self.0.cmp_lt_f64x4(a[0], b[0]), self.0.cmp_lt_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn le(self, a: [f64x4; 2], b: [f64x4; 2]) -> [m64x4; 2] {
        [self.0.cmp_le_f64x4(a[0], b[0]), self.0.cmp_le_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn eq(self, a: [f64x4; 2], b: [f64x4; 2]) -> [m64x4; 2] {
        [self.0.cmp_eq_f64x4(a[0], b[0]), self.0.cmp_eq_f64x4(a[1], b[1])]
    }

    #[inline(always)]
    fn select(self, mask: [m64x4; 2], a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.select_f64x4(mask[0], a[0], b[0]), self.0.select_f64x4(mask[1], a[1], b[1])]
    }
    #[inline(always)]
    fn larger(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.max_f64x4(a[0], b[0]), self.0.max_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn smaller(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.min_f64x4(a[0], b[0]), self.0.min_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn mask_and(self, a: [m64x4; 2], b: [m64x4; 2]) -> [m64x4; 2] {
        [self.0.and_m64x4(a[0], b[0]), self.0.and_m64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn mask_or(self, a: [m64x4; 2], b: [m64x4; 2]) -> [m64x4; 2] {
        [self.0.or_m64x4(a[0], b[0]), self.0.or_m64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn mask_not(self, a: [m64x4; 2]) -> [m64x4; 2] {
        [self.0.not_m64x4(a[0]), self.0.not_m64x4(a[1])]
    }
    #[inline(always)]
    fn any(self, mask: [m64x4; 2]) -> bool {
        self.0.avx._mm256_movemask_pd(cast(self.0.or_m64x4(mask[0], mask[1]))) != 0
    }

    #[inline(always)]
    fn and(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.and_f64x4(a[0], b[0]), self.0.and_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn or(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.or_f64x4(a[0], b[0]), self.0.or_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn xor(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.xor_f64x4(a[0], b[0]), self.0.xor_f64x4(a[1], b[1])]
    }
    #[inline(always)]
    fn int_add(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [
            cast(self.0.wrapping_add_u64x4(cast(a[0]), cast(b[0]))),
            cast(self.0.wrapping_add_u64x4(cast(a[1]), cast(b[1]))),
        ]
    }
    #[inline(always)]
    fn int_sub(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [
            cast(self.0.wrapping_sub_u64x4(cast(a[0]), cast(b[0]))),
            cast(self.0.wrapping_sub_u64x4(cast(a[1]), cast(b[1]))),
        ]
    }
    #[inline(always)]
    fn shl(self, a: [f64x4; 2], n: u32) -> [f64x4; 2] {
        [
            cast(self.0.shl_u64x4(cast(a[0]), u64x2(u64::from(n), 0))),
            cast(self.0.shl_u64x4(cast(a[1]), u64x2(u64::from(n), 0))),
        ]
    }
    #[inline(always)]
    fn shr(self, a: [f64x4; 2], n: u32) -> [f64x4; 2] {
        [
            cast(self.0.shr_u64x4(cast(a[0]), u64x2(u64::from(n), 0))),
            cast(self.0.shr_u64x4(cast(a[1]), u64x2(u64::from(n), 0))),
        ]
    }
    #[inline(always)]
    fn bit(self, a: [f64x4; 2]) -> [f64x4; 2] {
        [
            cast(self.0.shl_dyn_u64x4(self.0.splat_u64x4(1), cast(a[0]))),
            cast(self.0.shl_dyn_u64x4(self.0.splat_u64x4(1), cast(a[1]))),
        ]
    }
    #[inline(always)]
    fn lookup(self, table: &[f64; 8], a: [f64x4; 2]) -> [f64x4; 2] {
        let table = cast(*table);
        [self.lookup_f64x4(table, a[0]), self.lookup_f64x4(table, a[1])]
    }

    /// Two columns at a time, as for `f32`.
    #[inline(always)]
    fn transpose(self, x: &[f64], stride: usize, count: usize, mut each: impl FnMut(usize, [f64x4; 2])) {
        let avx = self.0.avx;
        let lines = square::<f64, 8>(x, stride);
        for j in (0..8).step_by(2) {
            if j >= count {
                break;
            }
            let mut columns = [[self.0.splat_f64x4(0.0); 2]; 2];
            for (half, i) in [(0, 0), (1, 4)] {
                let r0 = cast(parts::<_, 2, 8, 2>([lines[i], lines[i + 2]], j));
                let r1 = cast(parts::<_, 2, 8, 2>([lines[i + 1], lines[i + 3]], j));
                columns[0][half] = cast(avx._mm256_unpacklo_pd(r0, r1));
                columns[1][half] = cast(avx._mm256_unpackhi_pd(r0, r1));
            }
            for (k, column) in columns.into_iter().enumerate() {
                if j + k < count {
                    each(j + k, column);
                }
            }
        }
    }
}
