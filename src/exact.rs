//! [`Exact`], a sum without rounding: a fixed-point number wide enough for the squares of every element there is.
//!
//! Integer addition is associative and commutative, so whatever is added in whatever order and grouping gives the same
//! bits. Source: U. Kulisch, V. Snyder, "The exact dot product as basic tool for long interval arithmetic", Computing 91,
//! 2011.

use crate::float::Float;
use crate::kernel::Join;
use crate::scaled::Scaled;

/// An integer of `64 * LIMBS` bits in units of `2^(-64 * LIMBS_BELOW)`, lowest limb first, in two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exact<T: Float> {
    limbs: T::Limbs,
}

impl<T: Float> Exact<T> {
    pub(crate) fn zero() -> Self {
        Self { limbs: T::NO_LIMBS }
    }

    /// Adds `x * 2^exponent`; what lies below the unit is cut off.
    #[inline]
    pub(crate) fn add(&mut self, x: f64, exponent: i32) {
        let field = i32::try_from(x.to_bits() >> 52 & 0x7ff).expect("eleven bits");
        let fraction = x.to_bits() & ((1 << 52) - 1);
        let mantissa = if field == 0 { fraction } else { fraction | 1 << 52 };
        let unit = 64 * i32::try_from(T::LIMBS_BELOW).expect("a few");
        let at = field.max(1) - 1075 + exponent + unit;
        let (mantissa, at) =
            if at < 0 { (mantissa.checked_shr(at.unsigned_abs()).unwrap_or(0), 0) } else { (mantissa, at) };
        let at = usize::try_from(at).expect("not negative");
        let limbs = self.limbs.as_mut().get_mut(at / 64..).unwrap_or_default();
        let shifted = u128::from(mantissa) << (at % 64);
        let parts = [low_half(shifted), low_half(shifted >> 64)];
        if x.is_sign_negative() { subtract(limbs, &parts) } else { add(limbs, &parts) }
    }

    /// The square root.
    pub(crate) fn sqrt(&self) -> Scaled<f64> {
        let limbs = self.limbs.as_ref();
        let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else { return Scaled::new(0.0, 0) };
        // The 128 highest bits as the sum of two numbers, the first below 2.
        let limb = |below: usize| top.checked_sub(below).map_or(0, |i| u128::from(limbs[i]));
        let zeros = limbs[top].leading_zeros();
        let high = (limb(0) << 64 | limb(1)) << zeros | (limb(2) << zeros) >> 64;
        let mantissa = exactly(low_half(high >> 75)) * POWER_MINUS_52;
        let rest = exactly(low_half(high >> 22) & ((1 << 53) - 1)) * POWER_MINUS_52 * POWER_MINUS_52 * 0.5;
        let highest_bit = i64::try_from(64 * top).unwrap_or(i64::MAX) + 63 - i64::from(zeros);
        let unit = i64::try_from(64 * T::LIMBS_BELOW).unwrap_or(i64::MAX);
        let exponent = i32::try_from(highest_bit - unit).expect("a few thousand");
        let odd = exponent.rem_euclid(2);
        let (mantissa, rest) = if odd == 1 { (2.0 * mantissa, 2.0 * rest) } else { (mantissa, rest) };
        // Newton's step from the rounded root.
        let root = num_traits::Float::sqrt(mantissa);
        let residual = num_traits::Float::mul_add(-root, root, mantissa) + rest;
        Scaled::new(root + residual / (2.0 * root), (exponent - odd) / 2)
    }

    pub(crate) fn limbs(&self) -> &[u64] {
        self.limbs.as_ref()
    }

    pub(crate) fn limbs_mut(&mut self) -> &mut [u64] {
        self.limbs.as_mut()
    }
}

impl<T: Float> Join for Exact<T> {
    fn join(mut self, b: Self) -> Self {
        add(self.limbs.as_mut(), b.limbs.as_ref());
        self
    }
}

const POWER_MINUS_52: f64 = f64::EPSILON;

/// An integer of 53 bits or less.
#[expect(clippy::cast_precision_loss, reason = "there are no more bits than fit")]
fn exactly(x: u64) -> f64 {
    x as f64
}

#[expect(clippy::cast_possible_truncation, reason = "documented")]
fn low_half(x: u128) -> u64 {
    x as u64
}

/// Adds `b`, and the carry to what lies above it.
fn add(limbs: &mut [u64], b: &[u64]) {
    let mut carry = false;
    for (i, limb) in limbs.iter_mut().enumerate() {
        let term = match b.get(i) {
            Some(&term) => term,
            None if carry => 0,
            None => break,
        };
        let (sum, first) = limb.overflowing_add(term);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        (*limb, carry) = (sum, first || second);
    }
}

/// Subtracts `b`, and the borrow from what lies above it.
fn subtract(limbs: &mut [u64], b: &[u64]) {
    let mut borrow = false;
    for (i, limb) in limbs.iter_mut().enumerate() {
        let term = match b.get(i) {
            Some(&term) => term,
            None if borrow => 0,
            None => break,
        };
        let (difference, first) = limb.overflowing_sub(term);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        (*limb, borrow) = (difference, first || second);
    }
}
