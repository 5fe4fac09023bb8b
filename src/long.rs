//! [`Long`], a number of about 100 bits with an exponent of its own: what is worked out once for a row.

use crate::float::Float;
use crate::kernel::Join;
use crate::reduce::TwoTerm;
use crate::scaled::{exponent_of, ldexp, power};

/// `(high + low) * 2^exponent`, the first part being near 1, or zero, infinite or NaN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Long {
    high: f64,
    low: f64,
    exponent: i32,
}

impl Long {
    pub(crate) const ZERO: Self = Self { high: 0.0, low: 0.0, exponent: 0 };

    /// `terms * 2^exponent`.
    #[inline]
    pub(crate) fn new(terms: TwoTerm<f64>, exponent: i32) -> Self {
        let high = terms.value();
        let low = terms.error - (high - terms.sum);
        let own = if high == 0.0 || !high.is_finite() { 0 } else { exponent_of(high).clamp(-1000, 1000) };
        let scale = power::<f64>(-own);
        Self { high: high * scale, low: low * scale, exponent: own + exponent }
    }

    /// A number as it is.
    pub(crate) fn of<T: Float>(x: T) -> Self {
        Self::new(TwoTerm { sum: x.to_f64().unwrap_or(f64::NAN), error: 0.0 }, 0)
    }

    /// A count.
    #[expect(clippy::cast_precision_loss, reason = "each half has 32 bits")]
    pub(crate) fn count(n: usize) -> Self {
        let (upper, lower) = ((n as u64 >> 32) as f64, (n as u64 & u64::from(u32::MAX)) as f64);
        let upper = upper * power::<f64>(32);
        Self::new(TwoTerm { sum: upper + lower, error: lower - ((upper + lower) - upper) }, 0)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.high == 0.0
    }

    /// The exponent of the largest power of two that is not above the magnitude.
    pub(crate) fn log2(self) -> i32 {
        if self.is_zero() { i32::MIN / 4 } else { exponent_of(self.high) + self.exponent }
    }

    pub(crate) fn neg(self) -> Self {
        Self { high: -self.high, low: -self.low, ..self }
    }

    #[inline]
    pub(crate) fn add(self, b: Self) -> Self {
        let (a, b) = if self.log2() >= b.log2() { (self, b) } else { (b, self) };
        let scale = power::<f64>((b.exponent - a.exponent).max(-300));
        let a_terms = TwoTerm { sum: a.high, error: a.low };
        let b_terms = TwoTerm { sum: b.high * scale, error: b.low * scale };
        Self::new(a_terms.join(b_terms), a.exponent)
    }

    // Products and roots of numbers near 1 are near enough.

    #[inline]
    pub(crate) fn mul(self, b: Self) -> Self {
        let high = self.high * b.high;
        let low = fma(self.high, b.high, -high) + (self.high * b.low + self.low * b.high);
        Self { high, low, exponent: self.exponent + b.exponent }
    }

    /// The quotient; by 0 it is no number.
    #[inline]
    pub(crate) fn div(self, b: Self) -> Self {
        let high = self.high / b.high;
        let low = (fma(-high, b.high, self.high) + (self.low - high * b.low)) / b.high;
        Self { high, low, exponent: self.exponent - b.exponent }
    }

    /// The square root of a number that is not negative.
    #[inline]
    pub(crate) fn sqrt(self) -> Self {
        if self.is_zero() {
            return self;
        }
        let odd = self.exponent.rem_euclid(2);
        let scale = power::<f64>(odd);
        let square = Self { high: self.high * scale, low: self.low * scale, exponent: self.exponent - odd };
        let high = num_traits::Float::sqrt(square.high);
        let low = (fma(-high, high, square.high) + square.low) / (2.0 * high);
        Self { high, low, exponent: square.exponent / 2 }
    }

    /// Whether the number is above `b`, both not negative.
    pub(crate) fn is_above(self, b: Self) -> bool {
        let difference = self.add(b.neg());
        difference.high > 0.0
    }

    /// The number times `2^shift`, rounded to `T`.
    pub(crate) fn round<T: Float>(self, shift: i32) -> T {
        let exponent = self.exponent + shift;
        let value = ldexp(self.high + self.low, exponent);
        T::from(value + self.second_rounding(value, exponent)).unwrap_or_else(T::nan)
    }

    /// What the number times `2^exponent` lacks if it has become a `value` that is subnormal, and so was rounded twice.
    fn second_rounding(self, value: f64, exponent: i32) -> f64 {
        if value.is_normal() || !value.is_finite() {
            return 0.0;
        }
        let missing = (self.high - ldexp(value, -exponent)) + self.low;
        let places = ldexp(missing, exponent + 1074);
        if places.abs() > 0.5 { f64::from_bits(1).copysign(places) } else { 0.0 }
    }

    /// The number times `2^shift` in two terms of `T`.
    pub(crate) fn parts<T: Float>(self, shift: i32) -> TwoTerm<T> {
        let shift = self.exponent + shift;
        let sum = T::from(ldexp(self.high, shift)).unwrap_or_else(T::nan);
        if !sum.is_normal() {
            return TwoTerm { sum, error: T::zero() };
        }
        let missing = ldexp(self.high, shift) - sum.to_f64().unwrap_or(f64::NAN);
        TwoTerm { sum, error: T::from(missing + ldexp(self.low, shift)).unwrap_or_else(T::zero) }
    }
}

fn fma(a: f64, b: f64, c: f64) -> f64 {
    num_traits::Float::mul_add(a, b, c)
}
