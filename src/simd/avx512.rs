//! AVX-512 (F, BW, CD, DQ, VL): a block is one register, a mask one mask register.

use pulp::x86::V4;
use pulp::{Simd as _, b8, b16, cast, f32x8, f32x16, f64x8, u32x16, u64x2, u64x8};

use super::avx2::{parts, square};
use super::{Enter, Simd, Tiled};
use crate::kernel::Kernel;

/// Proof that the CPU has AVX-512.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(V4);

impl Avx512 {
    /// The proof, where there is one.
    #[inline]
    pub fn detect() -> Option<Self> {
        V4::try_new().map(Self)
    }
}

impl Simd<f32> for Avx512 {
    type Vector = f32x16;
    type Mask = b16;
    type Wide = Self;

    #[inline(always)]
    fn vectorize<K: Kernel<Elem = f32>>(self, kernel: K) -> K::Output {
        self.0.vectorize(Enter { simd: self, kernel })
    }

    /// 24 of the 32 registers hold sums.
    #[inline(always)]
    fn with_tile<J: Tiled<f32>>(self, job: J) -> J::Output {
        job.run::<Self, 12, 8, 4, 2>(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x16 {
        self.0.splat_f32x16(x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> f32x16 {
        cast(*x)
    }
    #[inline(always)]
    fn store(self, x: f32x16) -> [f32; 16] {
        cast(x)
    }
    #[inline(always)]
    fn load_tail(self, tail: &[f32]) -> f32x16 {
        self.0.partial_load_f32s(tail)
    }
    #[inline(always)]
    fn store_tail(self, x: f32x16, tail: &mut [f32]) {
        self.0.partial_store_f32s(tail, x);
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: f32x16) -> [f64x8; 2] {
        let [low, high]: [f32x8; 2] = cast(x);
        [self.0.convert_f32x8_to_f64x8(low), self.0.convert_f32x8_to_f64x8(high)]
    }
    /// From memory, a conversion needs no shuffle.
    #[inline(always)]
    fn load_wide(self, x: &[f32; 16]) -> [f64x8; 2] {
        let (halves, _) = x.as_chunks::<8>();
        [self.0.convert_f32x8_to_f64x8(cast(halves[0])), self.0.convert_f32x8_to_f64x8(cast(halves[1]))]
    }

    #[inline(always)]
    fn add(self, a: f32x16, b: f32x16) -> f32x16 {
        self.0.add_f32x16(a, b)
    }
    #[inline(always)]
    fn sub(self, a: f32x16, b: f32x16) -> f32x16 {
        self.0.sub_f32x16(a, b)
    }
    #[inline(always)]
    fn mul(self, a: f32x16, b: f32x16) -> f32x16 {
        self.0.mul_f32x16(a, b)
    }
    #[inline(always)]
    fn div(self, a: f32x16, b: f32x16) -> f32x16 {
        self.0.div_f32x16(a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: f32x16) -> f32x16 {
        self.0.sqrt_f32x16(a)
    }
    #[inline(always)]
    fn mul_add(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        self.0.mul_add_f32x16(a, b, c)
    }

    #[inline(always)]
    fn lt(self, a: f32x16, b: f32x16) -> b16 {
        self.0.cmp_lt_f32x16(a, b)
    }
    #[inline(always)]
    fn le(self, a: f32x16, b: f32x16) -> b16 {
        self.0.cmp_le_f32x16(a, b)
    }
    #[inline(always)]
    fn eq(self, a: f32x16, b: f32x16) -> b16 {
        self.0.cmp_eq_f32x16(a, b)
    }

    #[inline(always)]
    fn select(self, mask: b16, a: f32x16, b: f32x16) -> f32x16 {
        self.0.select_f32x16(mask, a, b)
    }
    #[inline(always)]
    fn larger(self, a: f32x16, b: f32x16) -> f32x16 {
        self.0.max_f32x16(a, b)
    }
    #[inline(always)]
    fn smaller(self, a: f32x16, b: f32x16) -> f32x16 {
        self.0.min_f32x16(a, b)
    }
    #[inline(always)]
    fn mask_and(self, a: b16, b: b16) -> b16 {
        b16(a.0 & b.0)
    }
    #[inline(always)]
    fn mask_or(self, a: b16, b: b16) -> b16 {
        b16(a.0 | b.0)
    }
    #[inline(always)]
    fn mask_not(self, a: b16) -> b16 {
        b16(!a.0)
    }
    #[inline(always)]
    fn any(self, mask: b16) -> bool {
        mask.0 != 0
    }

    #[inline(always)]
    fn and(self, a: f32x16, b: f32x16) -> f32x16 {
        cast(self.0.and_u32x16(cast(a), cast(b)))
    }
    #[inline(always)]
    fn or(self, a: f32x16, b: f32x16) -> f32x16 {
        cast(self.0.or_u32x16(cast(a), cast(b)))
    }
    #[inline(always)]
    fn xor(self, a: f32x16, b: f32x16) -> f32x16 {
        cast(self.0.xor_u32x16(cast(a), cast(b)))
    }
    #[inline(always)]
    fn int_add(self, a: f32x16, b: f32x16) -> f32x16 {
        cast(self.0.wrapping_add_u32x16(cast(a), cast(b)))
    }
    #[inline(always)]
    fn int_sub(self, a: f32x16, b: f32x16) -> f32x16 {
        cast(self.0.wrapping_sub_u32x16(cast(a), cast(b)))
    }
    #[inline(always)]
    fn shl(self, a: f32x16, n: u32) -> f32x16 {
        let a: u32x16 = cast(a);
        cast(self.0.shl_u32x16(a, u64x2(u64::from(n), 0)))
    }
    #[inline(always)]
    fn shr(self, a: f32x16, n: u32) -> f32x16 {
        let a: u32x16 = cast(a);
        cast(self.0.shr_u32x16(a, u64x2(u64::from(n), 0)))
    }
    #[inline(always)]
    fn bit(self, a: f32x16) -> f32x16 {
        cast(self.0.shl_dyn_u32x16(self.0.splat_u32x16(1), cast(a)))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 8], a: f32x16) -> f32x16 {
        let table: f32x16 = cast([*table; 2]);
        cast(self.0.avx512f._mm512_permutexvar_ps(cast(a), cast(table)))
    }

    /// Four columns at a time: each register takes four neighbours of every fourth line, so that the rest is a transpose
    /// of 4 x 4 within its quarters.
    #[inline(always)]
    fn transpose(self, x: &[f32], stride: usize, count: usize, mut each: impl FnMut(usize, f32x16)) {
        const FIRST: i32 = 0b01_00_01_00;
        const SECOND: i32 = 0b11_10_11_10;
        let avx = self.0.avx512f;
        let lines = square::<f32, 16>(x, stride);
        for j in (0..16).step_by(4) {
            if j >= count {
                break;
            }
            let quarters = |i| cast(parts::<_, 4, 16, 4>([lines[i], lines[i + 4], lines[i + 8], lines[i + 12]], j));
            let [r0, r1, r2, r3] = [quarters(0), quarters(1), quarters(2), quarters(3)];
            let (a, b) = (avx._mm512_unpacklo_ps(r0, r1), avx._mm512_unpackhi_ps(r0, r1));
            let (c, d) = (avx._mm512_unpacklo_ps(r2, r3), avx._mm512_unpackhi_ps(r2, r3));
            let columns = [
                avx._mm512_shuffle_ps::<FIRST>(a, c),
                avx._mm512_shuffle_ps::<SECOND>(a, c),
                avx._mm512_shuffle_ps::<FIRST>(b, d),
                avx._mm512_shuffle_ps::<SECOND>(b, d),
            ];
            for (k, column) in columns.into_iter().enumerate() {
                if j + k < count {
                    each(j + k, cast(column));
                }
            }
        }
    }
}

impl Simd<f64> for Avx512 {
    type Vector = f64x8;
    type Mask = b8;
    type Wide = Self;

    #[inline(always)]
    fn vectorize<K: Kernel<Elem = f64>>(self, kernel: K) -> K::Output {
        self.0.vectorize(Enter { simd: self, kernel })
    }

    /// 24 of the 32 registers hold sums.
    #[inline(always)]
    fn with_tile<J: Tiled<f64>>(self, job: J) -> J::Output {
        job.run::<Self, 12, 8, 4, 2>(self)
    }

    #[inline(always)]
    fn splat(self, x: f64) -> f64x8 {
        self.0.splat_f64x8(x)
    }
    #[inline(always)]
    fn load(self, x: &[f64; 8]) -> f64x8 {
        cast(*x)
    }
    #[inline(always)]
    fn store(self, x: f64x8) -> [f64; 8] {
        cast(x)
    }
    #[inline(always)]
    fn load_tail(self, tail: &[f64]) -> f64x8 {
        self.0.partial_load_f64s(tail)
    }
    #[inline(always)]
    fn store_tail(self, x: f64x8, tail: &mut [f64]) {
        self.0.partial_store_f64s(tail, x);
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: f64x8) -> [f64x8; 2] {
        [x, self.0.splat_f64x8(0.0)]
    }

    #[inline(always)]
    fn add(self, a: f64x8, b: f64x8) -> f64x8 {
        self.0.add_f64x8(a, b)
    }
    #[inline(always)]
    fn sub(self, a: f64x8, b: f64x8) -> f64x8 {
        self.0.sub_f64x8(a, b)
    }
    #[inline(always)]
    fn mul(self, a: f64x8, b: f64x8) -> f64x8 {
        self.0.mul_f64x8(a, b)
    }
    #[inline(always)]
    fn div(self, a: f64x8, b: f64x8) -> f64x8 {
        self.0.div_f64x8(a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: f64x8) -> f64x8 {
        self.0.sqrt_f64x8(a)
    }
    #[inline(always)]
    fn mul_add(self, a: f64x8, b: f64x8, c: f64x8) -> f64x8 {
        self.0.mul_add_f64x8(a, b, c)
    }

    #[inline(always)]
    fn lt(self, a: f64x8, b: f64x8) -> b8 {
        self.0.cmp_lt_f64x8(a, b)
    }
    #[inline(always)]
    fn le(self, a: f64x8, b: f64x8) -> b8 {
        self.0.cmp_le_f64x8(a, b)
    }
    #[inline(always)]
    fn eq(self, a: f64x8, b: f64x8) -> b8 {
        self.0.cmp_eq_f64x8(a, b)
    }

    #[inline(always)]
    fn select(self, mask: b8, a: f64x8, b: f64x8) -> f64x8 {
        self.0.select_f64x8(mask, a, b)
    }
    #[inline(always)]
    fn larger(self, a: f64x8, b: f64x8) -> f64x8 {
        self.0.max_f64x8(a, b)
    }
    #[inline(always)]
    fn smaller(self, a: f64x8, b: f64x8) -> f64x8 {
        self.0.min_f64x8(a, b)
    }
    #[inline(always)]
    fn mask_and(self, a: b8, b: b8) -> b8 {
        b8(a.0 & b.0)
    }
    #[inline(always)]
    fn mask_or(self, a: b8, b: b8) -> b8 {
        b8(a.0 | b.0)
    }
    #[inline(always)]
    fn mask_not(self, a: b8) -> b8 {
        b8(!a.0)
    }
    #[inline(always)]
    fn any(self, mask: b8) -> bool {
        mask.0 != 0
    }

    #[inline(always)]
    fn and(self, a: f64x8, b: f64x8) -> f64x8 {
        cast(self.0.and_u64x8(cast(a), cast(b)))
    }
    #[inline(always)]
    fn or(self, a: f64x8, b: f64x8) -> f64x8 {
        cast(self.0.or_u64x8(cast(a), cast(b)))
    }
    #[inline(always)]
    fn xor(self, a: f64x8, b: f64x8) -> f64x8 {
        cast(self.0.xor_u64x8(cast(a), cast(b)))
    }
    #[inline(always)]
    fn int_add(self, a: f64x8, b: f64x8) -> f64x8 {
        cast(self.0.wrapping_add_u64x8(cast(a), cast(b)))
    }
    #[inline(always)]
    fn int_sub(self, a: f64x8, b: f64x8) -> f64x8 {
        cast(self.0.wrapping_sub_u64x8(cast(a), cast(b)))
    }
    #[inline(always)]
    fn shl(self, a: f64x8, n: u32) -> f64x8 {
        let a: u64x8 = cast(a);
        cast(self.0.shl_u64x8(a, u64x2(u64::from(n), 0)))
    }
    #[inline(always)]
    fn shr(self, a: f64x8, n: u32) -> f64x8 {
        let a: u64x8 = cast(a);
        cast(self.0.shr_u64x8(a, u64x2(u64::from(n), 0)))
    }
    #[inline(always)]
    fn bit(self, a: f64x8) -> f64x8 {
        cast(self.0.shl_dyn_u64x8(self.0.splat_u64x8(1), cast(a)))
    }
    #[inline(always)]
    fn lookup(self, table: &[f64; 8], a: f64x8) -> f64x8 {
        cast(self.0.avx512f._mm512_permutexvar_pd(cast(a), cast(*table)))
    }

    /// Two columns at a time, as for `f32`.
    #[inline(always)]
    fn transpose(self, x: &[f64], stride: usize, count: usize, mut each: impl FnMut(usize, f64x8)) {
        let avx = self.0.avx512f;
        let lines = square::<f64, 8>(x, stride);
        for j in (0..8).step_by(2) {
            if j >= count {
                break;
            }
            let quarters = |i| cast(parts::<_, 2, 8, 4>([lines[i], lines[i + 2], lines[i + 4], lines[i + 6]], j));
            let [r0, r1] = [quarters(0), quarters(1)];
            each(j, cast(avx._mm512_unpacklo_pd(r0, r1)));
            if j + 1 < count {
                each(j + 1, cast(avx._mm512_unpackhi_pd(r0, r1)));
            }
        }
    }
}
