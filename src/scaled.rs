//! [`Scaled`], a number with an exponent of its own, and sums in arithmetic wide enough that nothing overflows on the
//! way: what the cold paths compute with.

use core::cmp::Ordering;

use crate::float::Float;
use crate::kernel::Join;
use crate::reduce::TwoTerm;

/// `mantissa * 2^exponent`, with `1 <= |mantissa| < 2`, or a mantissa that is zero, infinite or NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scaled<T> {
    pub(crate) mantissa: T,
    pub(crate) exponent: i32,
}

impl<T: Float> Scaled<T> {
    /// `x * 2^exponent`.
    pub(crate) fn new(x: T, exponent: i32) -> Self {
        if x.is_zero() || !x.is_finite() {
            return Self { mantissa: x, exponent: 0 };
        }
        let normal = if x.is_normal() { x } else { x * power(T::FRACTION_BITS.cast_signed() + 1) };
        let shift = if x.is_normal() { 0 } else { T::FRACTION_BITS.cast_signed() + 1 };
        let own = exponent_of(normal);
        let exponent_bits = u64::from((own + T::BIAS).unsigned_abs()) << T::FRACTION_BITS;
        let one_bits = T::one().to_bits();
        Self { mantissa: T::from_bits(normal.to_bits() - exponent_bits + one_bits), exponent: exponent + own - shift }
    }

    pub(crate) fn is_zero(self) -> bool {
        self.mantissa.is_zero()
    }

    /// The number itself, rounded where it is subnormal; infinite where it is too large.
    pub(crate) fn value(self) -> T {
        ldexp(self.mantissa, self.exponent)
    }

    /// Which magnitude is the larger, of numbers that are finite.
    pub(crate) fn compare_magnitude(self, b: Self) -> Ordering {
        let key = |x: Self| (!x.is_zero(), x.exponent);
        key(self).cmp(&key(b)).then(self.mantissa.abs().to_bits().cmp(&b.mantissa.abs().to_bits()))
    }

    pub(crate) fn neg(self) -> Self {
        Self { mantissa: -self.mantissa, ..self }
    }

    pub(crate) fn div(self, b: Self) -> Self {
        Self::new(self.mantissa / b.mantissa, self.exponent - b.exponent)
    }

    pub(crate) fn mul(self, b: Self) -> Self {
        Self::new(self.mantissa * b.mantissa, self.exponent + b.exponent)
    }

    pub(crate) fn add(self, b: Self) -> Self {
        if self.mantissa.is_zero() || b.mantissa.is_zero() {
            return if self.mantissa.is_zero() { b } else { self };
        }
        let exponent = self.exponent.max(b.exponent);
        let aligned = |x: Self| ldexp(x.mantissa, x.exponent - exponent);
        Self::new(aligned(self) + aligned(b), exponent)
    }
}

impl Scaled<f64> {
    /// A number in `f64`.
    pub(crate) fn of<T: Float>(x: T) -> Self {
        Self::new(x.to_f64().unwrap_or(f64::NAN), 0)
    }

    /// The mantissa rounded to `T`, with the exponent.
    pub(crate) fn round<T: Float>(self) -> Scaled<T> {
        Scaled::new(T::from(self.mantissa).unwrap_or_else(T::nan), self.exponent)
    }

    /// The number, rounded to `T`.
    pub(crate) fn narrow<T: Float>(self) -> T {
        T::from(self.value()).unwrap_or_else(T::nan)
    }
}

/// `floor(log2 |x|)` of a normal number.
pub(crate) fn exponent_of<T: Float>(x: T) -> i32 {
    let exponent_and_sign = i32::try_from(x.to_bits() >> T::FRACTION_BITS).expect("twelve bits at most");
    (exponent_and_sign & (2 * T::BIAS + 1)) - T::BIAS
}

/// The exponent of the power of two that brings a magnitude near 1 when divided by it, or as near as one factor can.
pub(crate) fn scaling_exponent<T: Float>(magnitude: T) -> i32 {
    Scaled::new(magnitude, 0).exponent.clamp(2 - T::BIAS, T::BIAS - 2)
}

/// `2^n`, for `n` in the range of normal numbers.
pub(crate) fn power<T: Float>(n: i32) -> T {
    let field = u64::try_from(n.clamp(1 - T::BIAS, T::BIAS) + T::BIAS).expect("positive");
    T::from_bits(field << T::FRACTION_BITS)
}

/// `x * 2^n`, rounded once unless the result is subnormal.
pub(crate) fn ldexp<T: Float>(mut x: T, mut n: i32) -> T {
    while n != 0 && x.is_finite() && !x.is_zero() {
        let step = n.clamp(2 - T::BIAS, T::BIAS - 1);
        x = x * power(step);
        n -= step;
    }
    x
}

/// A sum of products in `f64`, with its rounding errors. No product and no sum overflows: of large products the factors
/// are scaled, and they are summed apart, so that the others do not underflow and count if the large ones cancel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WideSum {
    /// Both factors are taken times `2^-SCALE`.
    large: TwoTerm<f64>,
    rest: TwoTerm<f64>,
}

impl WideSum {
    /// The power of two from which on products are large.
    const LARGE: i32 = 900;
    const SCALE: i32 = 530;

    pub(crate) fn new() -> Self {
        Self { large: TwoTerm::zero(), rest: TwoTerm::zero() }
    }

    pub(crate) fn add_product<T: Float>(self, a: T, b: T) -> Self {
        let [a, b] = [a, b].map(|x| x.to_f64().unwrap_or(f64::NAN));
        let joined = |sum: TwoTerm<f64>, a: f64, b: f64| {
            let product = a * b;
            sum.join(TwoTerm { sum: product, error: num_traits::Float::mul_add(a, b, -product) })
        };
        if (a * b).abs() < power(Self::LARGE) {
            Self { rest: joined(self.rest, a, b), ..self }
        } else {
            let scale = power::<f64>(-Self::SCALE);
            Self { large: joined(self.large, a * scale, b * scale), ..self }
        }
    }

    /// The sum, rounded to `T`.
    pub(crate) fn value<T: Float>(self) -> T {
        self.scaled().narrow()
    }

    /// The sum over a divisor, rounded to `T`.
    pub(crate) fn divided_by<T: Float>(self, divisor: T) -> T {
        self.scaled().div(Scaled::of(divisor)).narrow()
    }

    /// The sum, with an exponent of its own.
    pub(crate) fn scaled(self) -> Scaled<f64> {
        Scaled::new(self.large.value(), 2 * Self::SCALE).add(Scaled::new(self.rest.value(), 0))
    }
}

/// A sum of numbers of any size, with its rounding errors: nothing over- or underflows on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaledSum {
    sum: Scaled<f64>,
    error: Scaled<f64>,
}

impl ScaledSum {
    pub(crate) fn new() -> Self {
        let zero = Scaled { mantissa: 0.0, exponent: 0 };
        Self { sum: zero, error: zero }
    }

    /// Adds a number, keeping the rounding error (Knuth).
    pub(crate) fn add(self, x: Scaled<f64>) -> Self {
        let sum = self.sum.add(x);
        if !sum.mantissa.is_finite() {
            return Self { sum, ..self };
        }
        let part = sum.add(self.sum.neg());
        let error = self.sum.add(part.add(sum.neg())).add(x.add(part.neg()));
        Self { sum, error: self.error.add(error) }
    }

    /// The sum, rounded to `T`.
    pub(crate) fn value<T: Float>(self) -> T {
        self.sum.add(self.error).narrow()
    }
}

/// A number in `f64`.
#[inline(always)]
pub(crate) fn wide<T: Float>(x: T) -> f64 {
    x.to_f64().unwrap_or(f64::NAN)
}

/// A number of `f64`, rounded to another type.
#[inline(always)]
pub(crate) fn narrow<T: Float>(x: f64) -> T {
    T::from(x).unwrap_or_else(T::nan)
}

/// `x` in `f64`, times the scale of its type.
pub(crate) fn widen<T: Float>(x: T) -> f64 {
    wide(x) * power::<f64>(T::WIDE_SCALE)
}

/// What a sum of products of widened numbers stands for.
pub(crate) fn unwiden<T: Float>(sum: f64) -> Scaled<f64> {
    Scaled::new(sum, -2 * T::WIDE_SCALE)
}
