//! The one trait that every kernel is written against: IEEE 754 arithmetic on a 64-byte block.
//!
//! An instruction set is one file beside this one that implements [`Simd`] for `f32` and `f64`. The contract of each
//! operation is exact, so every implementation returns the same bits (the sign and payload of a NaN excepted):
//! `tests/conformance.rs` holds them to it.

use core::fmt::Debug;

use crate::float::Float;
use crate::kernel::Kernel;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod baseline;
mod pair;
mod soft_fma;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use baseline::Baseline;
#[cfg(not(target_arch = "x86_64"))]
pub use baseline::{Baseline as Avx2, Baseline as Avx512};
pub(crate) use pair::Pair;

/// One CPU's arithmetic on a block of `T`. Values of an implementing type prove that the CPU has the instructions.
///
/// There is no `round` and no reciprocal estimate: CPUs differ in them. Where they differ in NaN and zeros, as in a maximum,
/// the operation here says which operand is taken.
pub trait Simd<T: Float>: Copy + Debug + Send + Sync {
    /// A block in registers.
    type Vector: Copy + Debug;
    /// A truth value for each lane.
    type Mask: Copy + Debug;
    /// The arithmetic of the same CPU on `f64`.
    type Wide: Simd<f64>;
    /// Runs a kernel with this instruction set enabled: the only way into it.
    fn vectorize<K: Kernel<Elem = T>>(self, kernel: K) -> K::Output;

    /// Runs a formula; where its operations are not instructions of the CPU, as a function of its own, so that not every
    /// kernel holds a copy of it.
    #[inline(always)]
    fn share<R>(self, formula: impl FnOnce() -> R) -> R {
        formula()
    }

    /// Runs a job with the tiles of a matrix product that the registers hold.
    fn with_tile<J: Tiled<T>>(self, job: J) -> J::Output;

    /// `x` in every lane.
    fn splat(self, x: T) -> Self::Vector;
    /// The lanes of a block.
    fn load(self, x: &T::Block) -> Self::Vector;
    /// The lanes as a block.
    fn store(self, x: Self::Vector) -> T::Block;
    /// The elements of a slice no longer than a block, and +0 in the lanes past them.
    #[inline(always)]
    fn load_tail(self, tail: &[T]) -> Self::Vector {
        let mut block = T::fill(T::zero());
        block.as_mut()[..tail.len()].copy_from_slice(tail);
        self.load(&block)
    }
    /// Writes the first lanes to a slice no longer than a block.
    #[inline(always)]
    fn store_tail(self, x: Self::Vector, tail: &mut [T]) {
        tail.copy_from_slice(&self.store(x).as_ref()[..tail.len()]);
    }

    /// The same instruction set for `f64`.
    fn wide(self) -> Self::Wide;
    /// The lanes in `f64`, exactly: the lower half and the upper half; of `f64` the block itself and a block of zeros.
    fn widen(self, x: Self::Vector) -> [<Self::Wide as Simd<f64>>::Vector; 2];
    /// The lanes of a block in `f64`, as [`widen`](Self::widen) gives them.
    #[inline(always)]
    fn load_wide(self, x: &T::Block) -> [<Self::Wide as Simd<f64>>::Vector; 2] {
        self.widen(self.load(x))
    }

    /// `a + b`, rounded to nearest even.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`, rounded to nearest even.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`, rounded to nearest even.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`, rounded to nearest even.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `sqrt(a)`, rounded to nearest even; NaN below -0.
    fn sqrt(self, a: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once to nearest even.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded to nearest even, of factors whose product is exact.
    #[inline(always)]
    fn mul_add_exact(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.mul_add(a, b, c)
    }

    /// `a < b`; false where either is NaN.
    fn lt(self, a: Self::Vector, b: Self::Vector) -> Self::Mask;
    /// `a <= b`; false where either is NaN.
    fn le(self, a: Self::Vector, b: Self::Vector) -> Self::Mask;
    /// `a == b`; false where either is NaN, true for zeros of either sign.
    fn eq(self, a: Self::Vector, b: Self::Vector) -> Self::Mask;

    /// `a` where the mask is true, else `b`, bit for bit.
    fn select(self, mask: Self::Mask, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a && b`.
    fn mask_and(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `a || b`.
    fn mask_or(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `!a`.
    fn mask_not(self, a: Self::Mask) -> Self::Mask;
    /// True in the first `len` lanes.
    #[inline(always)]
    fn first(self, len: usize) -> Self::Mask {
        let len = T::from(len).unwrap_or_else(T::infinity);
        self.lt(self.load(&T::LANE_NUMBERS), self.splat(len))
    }
    /// Whether any lane is true.
    fn any(self, mask: Self::Mask) -> bool;

    /// `a` where `a > b`, else `b`: the larger, or `b` where either is NaN.
    #[inline(always)]
    fn larger(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.select(self.lt(b, a), a, b)
    }
    /// `a` where `a < b`, else `b`: the smaller, or `b` where either is NaN.
    #[inline(always)]
    fn smaller(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.select(self.lt(a, b), a, b)
    }

    /// `a & b` of the bits.
    fn and(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a | b` of the bits.
    fn or(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a ^ b` of the bits.
    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The wrapping sum of the bits as integers as wide as `T`.
    fn int_add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The wrapping difference of the bits as integers as wide as `T`.
    fn int_sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The bits shifted left by `n`, which is less than the width of `T`; zeros come in.
    fn shl(self, a: Self::Vector, n: u32) -> Self::Vector;
    /// The bits shifted right by `n`, which is less than the width of `T`; zeros come in.
    fn shr(self, a: Self::Vector, n: u32) -> Self::Vector;
    /// Of the bits as an integer `n`, the bit `1 << n` alone; 0 where `T` has not so many.
    fn bit(self, a: Self::Vector) -> Self::Vector;

    /// For each lane, the entry of the table whose number is the last three bits of the lane.
    fn lookup(self, table: &[T; 8], a: Self::Vector) -> Self::Vector;

    /// The transpose of a square of as many lines as a block has lanes, line `i` being the block's worth of elements
    /// from `x[i * stride]`: calls `each(j, [x[j], x[stride + j], x[2 * stride + j], ...])` for each `j < count` in order.
    fn transpose(self, x: &[T], stride: usize, count: usize, each: impl FnMut(usize, Self::Vector));
}

/// A kernel on its way into a function of `pulp` that is compiled for the instruction set.
#[cfg(target_arch = "x86_64")]
struct Enter<S, K> {
    simd: S,
    kernel: K,
}

#[cfg(target_arch = "x86_64")]
impl<K: Kernel, S: Simd<K::Elem>> pulp::NullaryFnOnce for Enter<S, K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.kernel.run(self.simd)
    }
}

/// A job that is compiled for the size of a register tile.
pub trait Tiled<T: Float> {
    /// What it returns.
    type Output;
    /// Does the job with tiles of `ROWS` rows of `BLOCKS` blocks; where fewer rows are left, of `MID` or `LOW` rows, two
    /// thirds and one third of `ROWS`.
    fn run<S: Simd<T>, const ROWS: usize, const MID: usize, const LOW: usize, const BLOCKS: usize>(
        self,
        simd: S,
    ) -> Self::Output;
}
