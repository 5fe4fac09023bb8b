//! [`Lanes`]: a block in registers with operators, so that kernels read like formulas.
//!
//! Beside them, once for every instruction set, what takes several operations: sums and products with their rounding
//! errors, signs, folds over the lanes.

use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

use crate::float::Float;
use crate::simd::Simd;

/// A block of `T` in the registers of `S`.
#[derive(Clone, Copy, Debug)]
pub struct Lanes<T: Float, S: Simd<T>> {
    pub(crate) simd: S,
    pub(crate) vector: S::Vector,
}

/// A truth value for each lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask<T: Float, S: Simd<T>> {
    simd: S,
    mask: S::Mask,
}

impl<T: Float, S: Simd<T>> Lanes<T, S> {
    #[inline(always)]
    pub(crate) fn new(simd: S, vector: S::Vector) -> Self {
        Self { simd, vector }
    }

    #[inline(always)]
    pub(crate) fn splat(simd: S, x: T) -> Self {
        Self::new(simd, simd.splat(x))
    }

    #[inline(always)]
    pub(crate) fn zero(simd: S) -> Self {
        Self::splat(simd, T::zero())
    }

    #[inline(always)]
    pub(crate) fn load(simd: S, block: &T::Block) -> Self {
        Self::new(simd, simd.load(block))
    }

    /// The same value in every lane, on the same instruction set.
    #[inline(always)]
    pub(crate) fn all(self, x: T) -> Self {
        Self::splat(self.simd, x)
    }

    #[inline(always)]
    pub(crate) fn store(self) -> T::Block {
        self.simd.store(self.vector)
    }

    /// The lanes in `f64`: the lower half and the upper half; of `f64` the block itself and zeros.
    #[inline(always)]
    pub(crate) fn widen(self) -> [Lanes<f64, S::Wide>; 2] {
        let [low, high] = self.simd.widen(self.vector);
        [Lanes::new(self.simd.wide(), low), Lanes::new(self.simd.wide(), high)]
    }

    /// Runs a formula that every kernel may share: see [`Simd::share`].
    #[inline(always)]
    pub(crate) fn share<R>(self, formula: impl FnOnce() -> R) -> R {
        self.simd.share(formula)
    }

    /// The first lane.
    #[inline(always)]
    pub(crate) fn first(self) -> T {
        self.store().as_ref()[0]
    }

    /// `self * b + c`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_add(self, b: Self, c: Self) -> Self {
        Self::new(self.simd, self.simd.mul_add(self.vector, b.vector, c.vector))
    }

    /// `self * b + c` of factors whose product is exact.
    #[inline(always)]
    pub(crate) fn mul_add_exact(self, b: Self, c: Self) -> Self {
        Self::new(self.simd, self.simd.mul_add_exact(self.vector, b.vector, c.vector))
    }

    #[inline(always)]
    pub(crate) fn sqrt(self) -> Self {
        Self::new(self.simd, self.simd.sqrt(self.vector))
    }

    #[inline(always)]
    pub(crate) fn abs(self) -> Self {
        self & self.all(T::ABS_MASK)
    }

    /// The magnitude of `self` with the sign of `sign`.
    #[inline(always)]
    pub(crate) fn copy_sign(self, sign: Self) -> Self {
        let sign_bit = self.all(-T::zero());
        self.abs() | (sign & sign_bit)
    }

    #[inline(always)]
    pub(crate) fn lt(self, b: Self) -> Mask<T, S> {
        Mask { simd: self.simd, mask: self.simd.lt(self.vector, b.vector) }
    }

    #[inline(always)]
    pub(crate) fn le(self, b: Self) -> Mask<T, S> {
        Mask { simd: self.simd, mask: self.simd.le(self.vector, b.vector) }
    }

    #[inline(always)]
    pub(crate) fn eq(self, b: Self) -> Mask<T, S> {
        Mask { simd: self.simd, mask: self.simd.eq(self.vector, b.vector) }
    }

    /// The larger of the two; `b` if either is NaN. A running maximum `x.larger(max)` therefore passes over NaNs: who
    /// folds with it meets them again in a sum.
    #[inline(always)]
    pub(crate) fn larger(self, b: Self) -> Self {
        Self::new(self.simd, self.simd.larger(self.vector, b.vector))
    }

    /// The smaller of the two; `b` if either is NaN.
    #[inline(always)]
    pub(crate) fn smaller(self, b: Self) -> Self {
        Self::new(self.simd, self.simd.smaller(self.vector, b.vector))
    }

    /// All lanes joined by `f`: those of the upper half to those of the lower one, until one is left.
    #[inline(always)]
    pub(crate) fn fold(self, f: impl Fn(T, T) -> T) -> T {
        let mut block = self.store();
        let lanes = block.as_mut();
        let mut half = T::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = f(lanes[i], lanes[i + half]);
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The bits, as integers, plus `b`'s.
    #[inline(always)]
    pub(crate) fn int_add(self, b: Self) -> Self {
        Self::new(self.simd, self.simd.int_add(self.vector, b.vector))
    }

    /// The bits, as integers, minus `b`'s.
    #[inline(always)]
    pub(crate) fn int_sub(self, b: Self) -> Self {
        Self::new(self.simd, self.simd.int_sub(self.vector, b.vector))
    }

    #[inline(always)]
    pub(crate) fn shl(self, n: u32) -> Self {
        Self::new(self.simd, self.simd.shl(self.vector, n))
    }

    #[inline(always)]
    pub(crate) fn shr(self, n: u32) -> Self {
        Self::new(self.simd, self.simd.shr(self.vector, n))
    }

    /// The bit whose number the bits are, alone.
    #[inline(always)]
    pub(crate) fn bit(self) -> Self {
        Self::new(self.simd, self.simd.bit(self.vector))
    }

    /// The entries of a table whose numbers are the last three bits of the lanes.
    #[inline(always)]
    pub(crate) fn lookup(self, table: &[T; 8]) -> Self {
        Self::new(self.simd, self.simd.lookup(table, self.vector))
    }

    /// The sum and its rounding error, exactly, for operands of any size (Knuth).
    #[inline(always)]
    pub(crate) fn two_sum(self, b: Self) -> (Self, Self) {
        let sum = self + b;
        let part = sum - self;
        (sum, (self - (sum - part)) + (b - part))
    }

    /// The sum and its rounding error, exactly, where `|self| >= |b|` or `self` is zero (Dekker).
    #[inline(always)]
    pub(crate) fn fast_two_sum(self, b: Self) -> (Self, Self) {
        let sum = self + b;
        (sum, b - (sum - self))
    }

    /// The product and its rounding error, exactly unless it underflows.
    #[inline(always)]
    pub(crate) fn two_mul(self, b: Self) -> (Self, Self) {
        let product = self * b;
        (product, self.mul_add(b, -product))
    }
}

impl<T: Float, S: Simd<T>> Mask<T, S> {
    /// True in the first `len` lanes.
    #[inline(always)]
    pub(crate) fn first(simd: S, len: usize) -> Self {
        Self { simd, mask: simd.first(len) }
    }

    /// `a` where true, else `b`.
    #[inline(always)]
    pub(crate) fn select(self, a: Lanes<T, S>, b: Lanes<T, S>) -> Lanes<T, S> {
        Lanes::new(self.simd, self.simd.select(self.mask, a.vector, b.vector))
    }

    /// 1 where true, else 0.
    #[inline(always)]
    pub(crate) fn numbers(self) -> T::Block {
        self.select(Lanes::splat(self.simd, T::one()), Lanes::zero(self.simd)).store()
    }

    #[inline(always)]
    pub(crate) fn any(self) -> bool {
        self.simd.any(self.mask)
    }

    #[inline(always)]
    pub(crate) fn all(self) -> bool {
        !(!self).any()
    }
}

impl<T: Float, S: Simd<T>> BitAnd for Mask<T, S> {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, b: Self) -> Self {
        Self { simd: self.simd, mask: self.simd.mask_and(self.mask, b.mask) }
    }
}

impl<T: Float, S: Simd<T>> BitOr for Mask<T, S> {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, b: Self) -> Self {
        Self { simd: self.simd, mask: self.simd.mask_or(self.mask, b.mask) }
    }
}

impl<T: Float, S: Simd<T>> Not for Mask<T, S> {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        Self { simd: self.simd, mask: self.simd.mask_not(self.mask) }
    }
}

/// Gives [`Lanes`] a binary operator of [`Simd`].
macro_rules! operator {
    ($($trait:ident $method:ident $operation:ident),*) => {
        $(impl<T: Float, S: Simd<T>> $trait for Lanes<T, S> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, b: Self) -> Self {
                Self::new(self.simd, self.simd.$operation(self.vector, b.vector))
            }
        })*
    };
}

operator!(Add add add, Sub sub sub, Mul mul mul, Div div div, BitAnd bitand and, BitOr bitor or, BitXor bitxor xor);

impl<T: Float, S: Simd<T>> Neg for Lanes<T, S> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        self ^ self.all(-T::zero())
    }
}
