//! What the build target guarantees (SSE2, NEON, simd128, anything at all), by way of `wide`.

use wide::{f32x16, f64x8};

use super::soft_fma::{block_fma_f32, block_fma_f64};
use super::{Simd, Tiled};
use crate::kernel::Kernel;

/// The instruction set of the build target; always there.
#[derive(Clone, Copy, Debug)]
pub struct Baseline;

/// Whether `wide` rounds its `mul_add` once on this target.
const FUSED: bool = cfg!(any(target_feature = "fma", all(target_arch = "aarch64", target_feature = "neon")));

#[inline(never)]
fn call<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl Simd<f32> for Baseline {
    type Vector = f32x16;
    type Mask = f32x16;
    type Wide = Self;

    #[inline(never)] // one copy of each kernel
    fn vectorize<K: Kernel<Elem = f32>>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn share<R>(self, formula: impl FnOnce() -> R) -> R {
        if FUSED { formula() } else { call(formula) }
    }

    #[inline(always)]
    fn with_tile<J: Tiled<f32>>(self, job: J) -> J::Output {
        if cfg!(target_arch = "aarch64") {
            job.run::<Self, 6, 4, 2, 1>(self) // 24 of the 32 registers of 16 bytes hold sums
        } else {
            job.run::<Self, 2, 2, 1, 1>(self) // 8 of 16
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x16 {
        f32x16::splat(x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> f32x16 {
        f32x16::new(*x)
    }
    #[inline(always)]
    fn store(self, x: f32x16) -> [f32; 16] {
        x.to_array()
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: f32x16) -> [f64x8; 2] {
        let (low, high) = x.as_array().split_at(8);
        let half = |x: &[f32]| f64x8::new(core::array::from_fn(|i| f64::from(x[i])));
        [half(low), half(high)]
    }

    #[inline(always)]
    fn add(self, a: f32x16, b: f32x16) -> f32x16 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x16, b: f32x16) -> f32x16 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x16, b: f32x16) -> f32x16 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x16, b: f32x16) -> f32x16 {
        a / b
    }
    #[inline(always)]
    fn sqrt(self, a: f32x16) -> f32x16 {
        a.sqrt()
    }
    #[inline(always)]
    fn mul_add(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        if FUSED { a.mul_add(b, c) } else { f32x16::new(block_fma_f32(a.as_array(), b.as_array(), c.as_array())) }
    }

    #[inline(always)]
    fn lt(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_lt(b)
    }
    #[inline(always)]
    fn le(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_le(b)
    }
    #[inline(always)]
    fn eq(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_eq(b)
    }

    #[inline(always)]
    fn select(self, mask: f32x16, a: f32x16, b: f32x16) -> f32x16 {
        mask.bitselect(a, b)
    }
    #[inline(always)]
    fn mask_and(self, a: f32x16, b: f32x16) -> f32x16 {
        a & b
    }
    #[inline(always)]
    fn mask_or(self, a: f32x16, b: f32x16) -> f32x16 {
        a | b
    }
    #[inline(always)]
    fn mask_not(self, a: f32x16) -> f32x16 {
        !a
    }
    #[inline(always)]
    fn any(self, mask: f32x16) -> bool {
        mask.any()
    }

    #[inline(always)]
    fn and(self, a: f32x16, b: f32x16) -> f32x16 {
        a & b
    }
    #[inline(always)]
    fn or(self, a: f32x16, b: f32x16) -> f32x16 {
        a | b
    }
    #[inline(always)]
    fn xor(self, a: f32x16, b: f32x16) -> f32x16 {
        a ^ b
    }
    #[inline(always)]
    fn int_add(self, a: f32x16, b: f32x16) -> f32x16 {
        f32x16::from_bits(a.to_bits() + b.to_bits())
    }
    #[inline(always)]
    fn int_sub(self, a: f32x16, b: f32x16) -> f32x16 {
        f32x16::from_bits(a.to_bits() - b.to_bits())
    }
    #[inline(always)]
    fn shl(self, a: f32x16, n: u32) -> f32x16 {
        f32x16::from_bits(a.to_bits() << n)
    }
    #[inline(always)]
    fn shr(self, a: f32x16, n: u32) -> f32x16 {
        f32x16::from_bits(a.to_bits() >> n)
    }
    #[inline(always)]
    fn bit(self, a: f32x16) -> f32x16 {
        f32x16::new(a.to_array().map(|a| f32::from_bits(if a.to_bits() < 32 { 1 << a.to_bits() } else { 0 })))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 8], a: f32x16) -> f32x16 {
        f32x16::new(a.to_array().map(|a| table[(a.to_bits() & 7) as usize]))
    }

    #[inline(always)]
    fn transpose(self, x: &[f32], stride: usize, count: usize, mut each: impl FnMut(usize, f32x16)) {
        for j in 0..count {
            let mut column = [0.0; 16];
            for (i, lane) in column.iter_mut().enumerate() {
                *lane = x[i * stride + j];
            }
            each(j, f32x16::new(column));
        }
    }
}

impl Simd<f64> for Baseline {
    type Vector = f64x8;
    type Mask = f64x8;
    type Wide = Self;

    #[inline(never)] // one copy of each kernel
    fn vectorize<K: Kernel<Elem = f64>>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn share<R>(self, formula: impl FnOnce() -> R) -> R {
        if FUSED { formula() } else { call(formula) }
    }

    #[inline(always)]
    fn with_tile<J: Tiled<f64>>(self, job: J) -> J::Output {
        if cfg!(target_arch = "aarch64") {
            job.run::<Self, 6, 4, 2, 1>(self) // 24 of the 32 registers of 16 bytes hold sums
        } else {
            job.run::<Self, 2, 2, 1, 1>(self) // 8 of 16
        }
    }

    #[inline(always)]
    fn splat(self, x: f64) -> f64x8 {
        f64x8::splat(x)
    }
    #[inline(always)]
    fn load(self, x: &[f64; 8]) -> f64x8 {
        f64x8::new(*x)
    }
    #[inline(always)]
    fn store(self, x: f64x8) -> [f64; 8] {
        x.to_array()
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: f64x8) -> [f64x8; 2] {
        [x, f64x8::splat(0.0)]
    }

    #[inline(always)]
    fn add(self, a: f64x8, b: f64x8) -> f64x8 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f64x8, b: f64x8) -> f64x8 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f64x8, b: f64x8) -> f64x8 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f64x8, b: f64x8) -> f64x8 {
        a / b
    }
    #[inline(always)]
    fn sqrt(self, a: f64x8) -> f64x8 {
        a.sqrt()
    }
    #[inline(always)]
    fn mul_add(self, a: f64x8, b: f64x8, c: f64x8) -> f64x8 {
        if FUSED { a.mul_add(b, c) } else { f64x8::new(block_fma_f64(a.as_array(), b.as_array(), c.as_array())) }
    }
    #[inline(always)]
    fn mul_add_exact(self, a: f64x8, b: f64x8, c: f64x8) -> f64x8 {
        a * b + c
    }

    #[inline(always)]
    fn lt(self, a: f64x8, b: f64x8) -> f64x8 {
        a.simd_lt(b)
    }
    #[inline(always)]
    fn le(self, a: f64x8, b: f64x8) -> f64x8 {
        a.simd_le(b)
    }
    #[inline(always)]
    fn eq(self, a: f64x8, b: f64x8) -> f64x8 {
        a.simd_eq(b)
    }

    #[inline(always)]
    fn select(self, mask: f64x8, a: f64x8, b: f64x8) -> f64x8 {
        mask.bitselect(a, b)
    }
    #[inline(always)]
    fn mask_and(self, a: f64x8, b: f64x8) -> f64x8 {
        a & b
    }
    #[inline(always)]
    fn mask_or(self, a: f64x8, b: f64x8) -> f64x8 {
        a | b
    }
    #[inline(always)]
    fn mask_not(self, a: f64x8) -> f64x8 {
        !a
    }
    #[inline(always)]
    fn any(self, mask: f64x8) -> bool {
        mask.any()
    }

    #[inline(always)]
    fn and(self, a: f64x8, b: f64x8) -> f64x8 {
        a & b
    }
    #[inline(always)]
    fn or(self, a: f64x8, b: f64x8) -> f64x8 {
        a | b
    }
    #[inline(always)]
    fn xor(self, a: f64x8, b: f64x8) -> f64x8 {
        a ^ b
    }
    #[inline(always)]
    fn int_add(self, a: f64x8, b: f64x8) -> f64x8 {
        f64x8::from_bits(a.to_bits() + b.to_bits())
    }
    #[inline(always)]
    fn int_sub(self, a: f64x8, b: f64x8) -> f64x8 {
        f64x8::from_bits(a.to_bits() - b.to_bits())
    }
    #[inline(always)]
    fn shl(self, a: f64x8, n: u32) -> f64x8 {
        f64x8::from_bits(a.to_bits() << n)
    }
    #[inline(always)]
    fn shr(self, a: f64x8, n: u32) -> f64x8 {
        f64x8::from_bits(a.to_bits() >> n)
    }
    #[inline(always)]
    fn bit(self, a: f64x8) -> f64x8 {
        f64x8::new(a.to_array().map(|a| f64::from_bits(if a.to_bits() < 64 { 1 << a.to_bits() } else { 0 })))
    }
    #[inline(always)]
    fn lookup(self, table: &[f64; 8], a: f64x8) -> f64x8 {
        f64x8::new(a.to_array().map(|a| table[(a.to_bits() & 7) as usize]))
    }

    #[inline(always)]
    fn transpose(self, x: &[f64], stride: usize, count: usize, mut each: impl FnMut(usize, f64x8)) {
        for j in 0..count {
            let mut column = [0.0; 8];
            for (i, lane) in column.iter_mut().enumerate() {
                *lane = x[i * stride + j];
            }
            each(j, f64x8::new(column));
        }
    }
}
