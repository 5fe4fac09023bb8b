//! AVX2 with FMA: a block is two registers, a mask two registers of all ones or all zeros.

use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast, f32x4, f32x8, f64x4, m32x8, m64x4, u64x2};

use super::{Simd, Tiled};
use crate::float::Float;
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
}

struct Enter<K> {
    simd: Avx2,
    kernel: K,
}

impl<K: Kernel<Elem: Float>> NullaryFnOnce for Enter<K>
where
    Avx2: Simd<K::Elem>,
{
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.kernel.run(self.simd)
    }
}

#[inline(always)]
fn both<A: Copy, R>(a: [A; 2], f: impl Fn(A) -> R) -> [R; 2] {
    [f(a[0]), f(a[1])]
}

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: [A; 2], b: [B; 2], f: impl Fn(A, B) -> R) -> [R; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
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
        job.run::<Self, 6, 1>(self)
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
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: [f32x8; 2]) -> [[f64x4; 2]; 2] {
        both(
            x,
            #[inline(always)]
            |x| {
                let [low, high]: [f32x4; 2] = cast(x);
                [self.0.convert_f32x4_to_f64x4(low), self.0.convert_f32x4_to_f64x4(high)]
            },
        )
    }

    #[inline(always)]
    fn add(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.add_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn sub(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.sub_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn mul(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.mul_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn div(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.div_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn sqrt(self, a: [f32x8; 2]) -> [f32x8; 2] {
        both(
            a,
            #[inline(always)]
            |a| self.0.sqrt_f32x8(a),
        )
    }
    #[inline(always)]
    fn mul_add(self, a: [f32x8; 2], b: [f32x8; 2], c: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.mul_add_f32x8(a[0], b[0], c[0]), self.0.mul_add_f32x8(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn lt(self, a: [f32x8; 2], b: [f32x8; 2]) -> [m32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.cmp_lt_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn le(self, a: [f32x8; 2], b: [f32x8; 2]) -> [m32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.cmp_le_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn eq(self, a: [f32x8; 2], b: [f32x8; 2]) -> [m32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.cmp_eq_f32x8(a, b),
        )
    }

    #[inline(always)]
    fn select(self, mask: [m32x8; 2], a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        [self.0.select_f32x8(mask[0], a[0], b[0]), self.0.select_f32x8(mask[1], a[1], b[1])]
    }
    #[inline(always)]
    fn mask_and(self, a: [m32x8; 2], b: [m32x8; 2]) -> [m32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.and_m32x8(a, b),
        )
    }
    #[inline(always)]
    fn mask_or(self, a: [m32x8; 2], b: [m32x8; 2]) -> [m32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.or_m32x8(a, b),
        )
    }
    #[inline(always)]
    fn mask_not(self, a: [m32x8; 2]) -> [m32x8; 2] {
        both(
            a,
            #[inline(always)]
            |a| self.0.not_m32x8(a),
        )
    }
    #[inline(always)]
    fn any(self, mask: [m32x8; 2]) -> bool {
        self.0.avx._mm256_movemask_ps(cast(self.0.or_m32x8(mask[0], mask[1]))) != 0
    }

    #[inline(always)]
    fn and(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.and_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn or(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.or_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn xor(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.xor_f32x8(a, b),
        )
    }
    #[inline(always)]
    fn int_add(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| cast(self.0.wrapping_add_u32x8(cast(a), cast(b))),
        )
    }
    #[inline(always)]
    fn int_sub(self, a: [f32x8; 2], b: [f32x8; 2]) -> [f32x8; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| cast(self.0.wrapping_sub_u32x8(cast(a), cast(b))),
        )
    }
    #[inline(always)]
    fn shl(self, a: [f32x8; 2], n: u32) -> [f32x8; 2] {
        both(
            a,
            #[inline(always)]
            |a| cast(self.0.shl_u32x8(cast(a), u64x2(u64::from(n), 0))),
        )
    }
    #[inline(always)]
    fn shr(self, a: [f32x8; 2], n: u32) -> [f32x8; 2] {
        both(
            a,
            #[inline(always)]
            |a| cast(self.0.shr_u32x8(cast(a), u64x2(u64::from(n), 0))),
        )
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
        job.run::<Self, 6, 1>(self)
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
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn widen(self, x: [f64x4; 2]) -> [[f64x4; 2]; 2] {
        [x, [self.0.splat_f64x4(0.0); 2]]
    }

    #[inline(always)]
    fn add(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.add_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn sub(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.sub_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn mul(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.mul_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn div(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.div_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn sqrt(self, a: [f64x4; 2]) -> [f64x4; 2] {
        both(
            a,
            #[inline(always)]
            |a| self.0.sqrt_f64x4(a),
        )
    }
    #[inline(always)]
    fn mul_add(self, a: [f64x4; 2], b: [f64x4; 2], c: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.mul_add_f64x4(a[0], b[0], c[0]), self.0.mul_add_f64x4(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn lt(self, a: [f64x4; 2], b: [f64x4; 2]) -> [m64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.cmp_lt_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn le(self, a: [f64x4; 2], b: [f64x4; 2]) -> [m64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.cmp_le_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn eq(self, a: [f64x4; 2], b: [f64x4; 2]) -> [m64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.cmp_eq_f64x4(a, b),
        )
    }

    #[inline(always)]
    fn select(self, mask: [m64x4; 2], a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        [self.0.select_f64x4(mask[0], a[0], b[0]), self.0.select_f64x4(mask[1], a[1], b[1])]
    }
    #[inline(always)]
    fn mask_and(self, a: [m64x4; 2], b: [m64x4; 2]) -> [m64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.and_m64x4(a, b),
        )
    }
    #[inline(always)]
    fn mask_or(self, a: [m64x4; 2], b: [m64x4; 2]) -> [m64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.or_m64x4(a, b),
        )
    }
    #[inline(always)]
    fn mask_not(self, a: [m64x4; 2]) -> [m64x4; 2] {
        both(
            a,
            #[inline(always)]
            |a| self.0.not_m64x4(a),
        )
    }
    #[inline(always)]
    fn any(self, mask: [m64x4; 2]) -> bool {
        self.0.avx._mm256_movemask_pd(cast(self.0.or_m64x4(mask[0], mask[1]))) != 0
    }

    #[inline(always)]
    fn and(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.and_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn or(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.or_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn xor(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| self.0.xor_f64x4(a, b),
        )
    }
    #[inline(always)]
    fn int_add(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| cast(self.0.wrapping_add_u64x4(cast(a), cast(b))),
        )
    }
    #[inline(always)]
    fn int_sub(self, a: [f64x4; 2], b: [f64x4; 2]) -> [f64x4; 2] {
        zip(
            a,
            b,
            #[inline(always)]
            |a, b| cast(self.0.wrapping_sub_u64x4(cast(a), cast(b))),
        )
    }
    #[inline(always)]
    fn shl(self, a: [f64x4; 2], n: u32) -> [f64x4; 2] {
        both(
            a,
            #[inline(always)]
            |a| cast(self.0.shl_u64x4(cast(a), u64x2(u64::from(n), 0))),
        )
    }
    #[inline(always)]
    fn shr(self, a: [f64x4; 2], n: u32) -> [f64x4; 2] {
        both(
            a,
            #[inline(always)]
            |a| cast(self.0.shr_u64x4(cast(a), u64x2(u64::from(n), 0))),
        )
    }
}
