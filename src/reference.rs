//! What the operations should give: the definitions, slow and plain, in arithmetic that is wider than that of the
//! kernels. For tests, of this crate and of others; written from the formulas and not from the kernels.
//!
//! Results are [`Wide`] numbers, of 100 bits and more, so that errors of `f64` kernels can be told to a fraction of a
//! unit in the last place; of `erfc`, whose terms cancel, 88 bits are right. Sums of products are exact until they are
//! rounded to such a number. `tests/reference.rs` holds them to a library of any precision.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::{Add, Div, Mul, Neg, Sub};

use crate::float::Float;
use crate::ops::{CrossEntropy, Reduction, Targets};
use crate::view::MatRef;

/// A number of more than 100 bits with an exponent of its own: nothing over- or underflows on the way to it.
///
/// ```
/// use nanproof::reference::Wide;
///
/// let square = Wide::new(1e300_f64) * Wide::new(1e300);
/// assert_eq!(square.to_f64(), f64::INFINITY);
/// assert_eq!((square / Wide::new(1e300)).to_f64(), 1e300);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Wide {
    /// Between 1 and 2 in magnitude, or zero, infinite or NaN.
    high: f64,
    /// What the first number lacks.
    low: f64,
    /// The power of two that both are multiplied by.
    exponent: i64,
}

impl Wide {
    /// A number as it is.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(0.1_f32).to_f64(), f64::from(0.1_f32));
    /// ```
    #[must_use]
    pub fn new<T: Float>(x: T) -> Self {
        let x = to_f64(x);
        if x != 0.0 && x.abs() < f64::MIN_POSITIVE {
            return Self::normalized(x * power(64), 0.0, -64);
        }
        Self::normalized(x, 0.0, 0)
    }

    /// The nearest `f64`, but for the second rounding of subnormal numbers.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(0.5_f64).to_f64(), 0.5);
    /// ```
    #[must_use]
    pub fn to_f64(self) -> f64 {
        let x = self.high + self.low;
        match self.exponent {
            -1000..=1000 => x * power(self.exponent),
            ..-1000 => x * power(-1000) * power((self.exponent + 1000).max(-1000)),
            1001.. => x * power(1000) * power((self.exponent - 1000).min(1000)),
        }
    }

    /// The magnitude.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(-0.5_f64).abs().to_f64(), 0.5);
    /// ```
    #[must_use]
    pub fn abs(self) -> Self {
        if self.high < 0.0 { -self } else { self }
    }

    /// The square root.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(6.25_f64).sqrt().to_f64(), 2.5);
    /// ```
    #[must_use]
    pub fn sqrt(self) -> Self {
        if self.is_zero() || !self.is_finite() {
            return Self::new(num_traits::Float::sqrt(self.high));
        }
        // An even exponent, and then one step of Newton's method.
        let odd = self.exponent.rem_euclid(2);
        let x = Self { exponent: odd, ..self };
        let start = Self::new(num_traits::Float::sqrt(x.to_f64()));
        let root = start + (x - start * start) / (start + start);
        Self { exponent: root.exponent + (self.exponent - odd) / 2, ..root }
    }

    /// The exponential.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(1.0_f64).exp().to_f64(), std::f64::consts::E);
    /// ```
    #[must_use]
    pub fn exp(self) -> Self {
        match self.size() {
            Size::Usual => {
                let (series, exponent) = self.reduced_exp_m1();
                let m = Self::ONE + series;
                Self { exponent: m.exponent + exponent, ..m }
            }
            Size::Huge if self.high < 0.0 => Self::ZERO,
            Size::Huge => Self::new(f64::INFINITY),
            Size::Nan => self,
        }
    }

    /// The exponential less 1.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(1e-300_f64).exp_m1().to_f64(), 1e-300);
    /// ```
    #[must_use]
    pub fn exp_m1(self) -> Self {
        match self.size() {
            Size::Usual if self.to_f64().abs() < 0.3 => self.reduced_exp_m1().0,
            _ => self.exp() - Self::ONE,
        }
    }

    /// The natural logarithm.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(2.0_f64).ln().to_f64(), std::f64::consts::LN_2);
    /// ```
    #[must_use]
    pub fn ln(self) -> Self {
        match (self - Self::ONE).ln_series() {
            Some(ln) => ln,
            None => self.ln_newton(),
        }
    }

    /// The logarithm of `1 + self`.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(1e-300_f64).ln_1p().to_f64(), 1e-300);
    /// ```
    #[must_use]
    pub fn ln_1p(self) -> Self {
        match self.ln_series() {
            Some(ln) => ln,
            None => (Self::ONE + self).ln_newton(),
        }
    }

    /// The logarithm of `1 + self`, of a number that is small.
    fn ln_series(self) -> Option<Self> {
        let two = Self::new(2.0);
        // 2 artanh(z) = 2 (z + z^3 / 3 + z^5 / 5 + ...)
        let z = self / (two + self);
        let sum = (0..8_u32).rev().fold(Self::ZERO, |sum, i| sum * z * z + Self::ONE / Self::from(2 * i + 1));
        if self.is_zero() { Some(self) } else { (self.exponent < -10 && self.is_finite()).then(|| two * z * sum) }
    }

    /// One step of Newton's method on `exp(y) = self`, from a value of 50 bits.
    fn ln_newton(self) -> Self {
        if !self.is_finite() || self.high <= 0.0 {
            return Self::new(num_traits::Float::ln(self.high));
        }
        let exponent = self.exponent as f64;
        let start = Self::new(num_traits::Float::ln(self.high)) + Self::new(exponent) * Self::LN_2;
        let step = self * (-start).exp() - Self::ONE;
        start + step - step * step / Self::new(2.0)
    }

    /// The hyperbolic tangent.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(0.5_f64).tanh().to_f64(), 0.46211715726000973);
    /// ```
    #[must_use]
    pub fn tanh(self) -> Self {
        match self.to_f64() {
            x if x.abs() > 200.0 => Self::new(x.signum()),
            _ => {
                let e = (self + self).exp_m1();
                e / (e + Self::new(2.0))
            }
        }
    }

    /// The complement of the error function.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(0.5_f64).erfc().to_f64(), 0.4795001221869535);
    /// ```
    #[must_use]
    pub fn erfc(self) -> Self {
        let two = Self::from(2_u32);
        match self.to_f64() {
            x if x.is_nan() => self,
            x if x < 0.0 => two - (-self).erfc(),
            x if x < 3.0 => Self::ONE - self.erf_series(),
            _ => {
                // e^(-x^2) / sqrt(pi) / (x + 1/2 / (x + 2/2 / (x + 3/2 / (x + ...))))
                let rest = (1..=100_u32).rev().fold(self, |rest, i| self + Self::from(i) / (two * rest));
                (-(self * self)).exp() / (Self::PI.sqrt() * rest)
            }
        }
    }

    /// The error function.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(0.5_f64).erf().to_f64(), 0.5204998778130465);
    /// ```
    #[must_use]
    pub fn erf(self) -> Self {
        if self.to_f64().abs() < 3.0 { self.erf_series() } else { Self::ONE - self.erfc() }
    }

    /// `2 x e^(-x^2) / sqrt(pi) (1 + 2x^2/3 (1 + 2x^2/5 (1 + 2x^2/7 ...)))`.
    fn erf_series(self) -> Self {
        let (two, square) = (Self::from(2_u32), self * self);
        let sum = (1..=90_u32).rev().fold(Self::ONE, |sum, i| Self::ONE + two * square / Self::from(2 * i + 1) * sum);
        two * self * (-square).exp() / Self::PI.sqrt() * sum
    }

    /// The arctangent.
    ///
    /// ```
    /// assert_eq!(nanproof::reference::Wide::new(1.0_f64).atan().to_f64(), std::f64::consts::FRAC_PI_4);
    /// ```
    #[must_use]
    pub fn atan(self) -> Self {
        if !self.is_finite() {
            let quarter_turn = Self { exponent: 0, ..Self::PI };
            return if self.is_nan() { self } else { quarter_turn * Self::new(self.high.signum()) };
        }
        // atan z = 2 atan(z / (1 + sqrt(1 + z^2))), five times, and then z - z^3 / 3 + z^5 / 5 - ...
        let z = (0..5).fold(self, |z, _| z / (Self::ONE + (Self::ONE + z * z).sqrt()));
        let series = (0..14_u32).rev().fold(Self::ZERO, |sum, i| Self::ONE / Self::from(2 * i + 1) - sum * z * z);
        Self::from(32_u32) * z * series
    }

    const PI: Self = Self { high: core::f64::consts::FRAC_PI_2, low: 6.123_233_995_736_766e-17, exponent: 1 };
    const ZERO: Self = Self { high: 0.0, low: 0.0, exponent: 0 };
    const ONE: Self = Self { high: 1.0, low: 0.0, exponent: 0 };
    const LN_2: Self =
        Self { high: 2.0 * core::f64::consts::LN_2, low: 2.0 * 2.319_046_813_846_299_6e-17, exponent: -1 };

    fn is_zero(self) -> bool {
        self.high == 0.0
    }

    fn is_finite(self) -> bool {
        self.high.is_finite()
    }

    fn is_nan(self) -> bool {
        self.high.is_nan()
    }

    fn normalized(high: f64, low: f64, exponent: i64) -> Self {
        if high == 0.0 || !high.is_finite() {
            return Self { high, low: 0.0, exponent: 0 };
        }
        let (high, low) = two_sum(high, low);
        let own = exponent_of(high);
        let (half, rest) = (own / 2, own - own / 2);
        let scale = |x| x * power(-half) * power(-rest);
        Self { high: scale(high), low: scale(low), exponent: exponent + own }
    }

    fn size(self) -> Size {
        match self.to_f64().abs() {
            x if x < 1e5 => Size::Usual,
            x if x.is_nan() => Size::Nan,
            _ => Size::Huge,
        }
    }

    /// `exp(r) - 1` and `n`, with `self = n ln 2 + r`.
    fn reduced_exp_m1(self) -> (Self, i64) {
        let n = num_traits::Float::round(self.to_f64() / core::f64::consts::LN_2);
        let r = self - Self::new(n) * Self::LN_2;
        let sum = (1..=27_u32).rev().fold(Self::ZERO, |sum, i| (sum + Self::ONE) * r / Self::from(i));
        #[expect(clippy::cast_possible_truncation, reason = "a small whole number")]
        (sum, n as i64)
    }
}

enum Size {
    Usual,
    Huge,
    Nan,
}

/// What stands for `f64` and `f32` in generic code.
fn to_f64<T: Float>(x: T) -> f64 {
    x.to_f64().unwrap_or(f64::NAN)
}

/// `2^n`, for `n` in the range of normal numbers.
fn power(n: i64) -> f64 {
    f64::from_bits((n + 1023).unsigned_abs() << 52)
}

/// `floor(log2 |x|)` of a normal number.
fn exponent_of(x: f64) -> i64 {
    (x.to_bits() >> 52 & 0x7ff).cast_signed() - 1023
}

/// A sum and its rounding error.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

impl<T: Float> From<T> for Wide {
    fn from(x: T) -> Self {
        Self::new(x)
    }
}

impl From<u32> for Wide {
    fn from(x: u32) -> Self {
        Self::new(f64::from(x))
    }
}

impl Neg for Wide {
    type Output = Self;

    fn neg(self) -> Self {
        Self { high: -self.high, low: -self.low, ..self }
    }
}

impl Add for Wide {
    type Output = Self;

    fn add(self, b: Self) -> Self {
        if !self.is_finite() || !b.is_finite() {
            return Self::new(self.high + b.high);
        }
        if self.is_zero() || b.is_zero() {
            return if self.is_zero() { b } else { self };
        }
        let (a, b) = if self.exponent < b.exponent { (b, self) } else { (self, b) };
        if b.exponent - a.exponent < -900 {
            return a; // what is so much smaller has no place beside it
        }
        let scale = power(b.exponent - a.exponent);
        let (sum, error) = two_sum(a.high, b.high * scale);
        let (low, low_error) = two_sum(a.low, b.low * scale);
        let (sum, error) = two_sum(sum, error + low);
        Self::normalized(sum, error + low_error, a.exponent)
    }
}

impl Sub for Wide {
    type Output = Self;

    fn sub(self, b: Self) -> Self {
        self + -b
    }
}

impl Mul for Wide {
    type Output = Self;

    fn mul(self, b: Self) -> Self {
        let product = self.high * b.high;
        let error = num_traits::Float::mul_add(self.high, b.high, -product);
        Self::normalized(product, error + (self.high * b.low + self.low * b.high), self.exponent + b.exponent)
    }
}

impl Div for Wide {
    type Output = Self;

    fn div(self, b: Self) -> Self {
        let first = Self::normalized(self.high / b.high, 0.0, self.exponent - b.exponent);
        if first.is_zero() || !first.is_finite() || !b.is_finite() {
            return first;
        }
        let digits = |rest: Self| Self::normalized(rest.high / b.high, 0.0, rest.exponent - b.exponent);
        let rest = self - first * b;
        let second = digits(rest);
        first + second + digits(rest - second * b)
    }
}

impl PartialEq for Wide {
    fn eq(&self, b: &Self) -> bool {
        self.partial_cmp(b) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, b: &Self) -> Option<Ordering> {
        if self.is_finite() && b.is_finite() {
            (*self - *b).high.partial_cmp(&0.0)
        } else {
            self.high.partial_cmp(&b.high)
        }
    }
}

/// A sum of products, exactly: a fixed-point number that spans all products of two `f64`.
struct ExactSum {
    /// Digits of 32 bits, the lowest first, with room for carries.
    digits: [i64; 140],
    /// The sum of the terms that are not finite.
    special: Option<f64>,
}

impl ExactSum {
    /// The weight of the first bit, as a power of two.
    const LOWEST: i64 = -2200;

    fn new() -> Self {
        Self { digits: [0; 140], special: None }
    }

    fn add_product<T: Float>(&mut self, a: T, b: T) {
        let (a, b) = (to_f64(a), to_f64(b));
        if !a.is_finite() || !b.is_finite() {
            self.special = Some(self.special.unwrap_or(0.0) + a * b);
            return;
        }
        // Both are a whole number times a power of two.
        let whole = |x: f64| {
            let (field, fraction) = (x.to_bits() >> 52 & 0x7ff, x.to_bits() & ((1 << 52) - 1));
            if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field.cast_signed() - 1075) }
        };
        let ((m, e), (n, f)) = (whole(a), whole(b));
        let place = (e + f - Self::LOWEST).unsigned_abs();
        let sign = if a.is_sign_negative() == b.is_sign_negative() { 1 } else { -1 };
        let mut product = u128::from(m) * u128::from(n);
        let mut at = usize::try_from(place / 32).expect("a small number");
        while product != 0 {
            let digit = u64::from((product & 0xffff_ffff) as u32) << (place % 32);
            self.digits[at] += sign * (digit & 0xffff_ffff).cast_signed();
            self.digits[at + 1] += sign * (digit >> 32).cast_signed();
            product >>= 32;
            at += 1;
        }
    }

    fn value(mut self) -> Wide {
        if let Some(special) = self.special {
            return Wide::new(special);
        }
        self.carry();
        let is_negative = self.digits[139] < 0;
        if is_negative {
            self.digits = self.digits.map(|digit| -digit);
            self.carry();
        }
        let leading = self.digits.iter().rposition(|&digit| digit != 0).unwrap_or(0);
        let sum = (leading.saturating_sub(5)..=leading).rev().fold(Wide::ZERO, |sum, at| {
            let digit = Wide::new(self.digits[at] as f64);
            let weight = 32 * at.cast_signed() as i64 + Self::LOWEST;
            if digit.is_zero() { sum } else { sum + Wide { exponent: digit.exponent + weight, ..digit } }
        });
        if is_negative { -sum } else { sum }
    }

    /// Leaves digits from 0 to 2^32 - 1, but for the last.
    fn carry(&mut self) {
        for i in 0..self.digits.len() - 1 {
            self.digits[i + 1] += self.digits[i] >> 32;
            self.digits[i] &= 0xffff_ffff;
        }
    }
}

/// The error of `got` in units of the last place that a `T` has at the true value `want`.
///
/// Infinity counts as the power of two after the largest number. NaN is right where NaN is wanted, and else infinitely
/// wrong.
///
/// ```
/// use nanproof::reference::ulp_error;
///
/// assert_eq!(ulp_error(1.0_f32, 1.0_f64), 0.0);
/// assert_eq!(ulp_error(1.0_f32 + f32::EPSILON, 1.0_f64), 1.0);
/// assert_eq!(ulp_error(f64::NAN, 1.0_f64), f64::INFINITY);
/// ```
#[must_use]
pub fn ulp_error<T: Float>(got: T, want: impl Into<Wide>) -> f64 {
    let want = want.into();
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let (largest, smallest) = (exponent_of(to_f64(T::max_value())), exponent_of(to_f64(T::min_positive_value())));
    let beyond = |x: Wide| Wide { high: x.high.signum(), low: 0.0, exponent: largest + 1 };
    let is_beyond = |x: Wide| !x.is_finite() || x.exponent > largest;
    let got = if got.is_infinite() { beyond(Wide::new(got)) } else { Wide::new(got) };
    if is_beyond(want) && is_beyond(got) && (want.high > 0.0) == (got.high > 0.0) {
        return 0.0;
    }
    let want = if is_beyond(want) { beyond(want) } else { want };
    let exponent = if want.is_zero() { smallest } else { want.exponent.clamp(smallest, largest) };
    let last_place = exponent + exponent_of(to_f64(T::epsilon()));
    ((got - want) / Wide { exponent: last_place, ..Wide::ONE }).to_f64().abs()
}

/// `x[0] + x[1] + ...`.
///
/// ```
/// assert_eq!(nanproof::reference::sum(&[1e300_f64, 1.0, -1e300]).to_f64(), 1.0);
/// ```
#[must_use]
pub fn sum<T: Float>(x: &[T]) -> Wide {
    dot(x, &vec![T::one(); x.len()])
}

/// `a[0] b[0] + a[1] b[1] + ...`.
///
/// ```
/// assert_eq!(nanproof::reference::dot(&[1e300_f64, 2.0, 1e300], &[1e300, 0.5, -1e300]).to_f64(), 1.0);
/// ```
#[must_use]
pub fn dot<T: Float>(a: &[T], b: &[T]) -> Wide {
    let mut sum = ExactSum::new();
    a.iter().zip(b).for_each(|(&a, &b)| sum.add_product(a, b));
    sum.value()
}

/// The product `A B`, row by row.
///
/// ```
/// use nanproof::{MatRef, reference};
///
/// let a = MatRef::new(&[1.0_f32, 2.0], 1, 2)?;
/// assert_eq!(reference::matmul(a, a.t())[0].to_f64(), 5.0);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[must_use]
pub fn matmul<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Vec<Wide> {
    let row = |i: usize| a.row_iter(i).copied().collect::<Vec<_>>();
    let col = |j: usize| b.t().row_iter(j).copied().collect::<Vec<_>>();
    (0..a.rows()).flat_map(|i| (0..b.cols()).map(move |j| dot(&row(i), &col(j)))).collect()
}

/// `sqrt(x[0]^2 + x[1]^2 + ...)`.
///
/// ```
/// assert_eq!(nanproof::reference::l2_norm(&[3e-300_f64, 4e-300]).to_f64(), 5e-300);
/// ```
#[must_use]
pub fn l2_norm<T: Float>(x: &[T]) -> Wide {
    dot(x, x).sqrt()
}

/// The gradient of [`l2_norm`]: `g x / |x|`, and 0 where the norm is 0.
///
/// ```
/// assert_eq!(nanproof::reference::l2_norm_backward(&[3.0_f32, 4.0], 5.0)[0].to_f64(), 3.0);
/// ```
#[must_use]
pub fn l2_norm_backward<T: Float>(x: &[T], g: T) -> Vec<Wide> {
    let norm = l2_norm(x);
    x.iter().map(|&x| if norm.is_zero() { norm } else { Wide::new(g) * Wide::new(x) / norm }).collect()
}

/// `(x[0] + x[1] + ...) / n`.
///
/// ```
/// assert_eq!(nanproof::reference::mean(&[1e300_f64, 3.0, -1e300]).to_f64(), 1.0);
/// ```
#[must_use]
pub fn mean<T: Float>(x: &[T]) -> Wide {
    sum(x) / count(x.len())
}

/// `sum((x - mean)^2) / (n - ddof)`.
///
/// ```
/// assert_eq!(nanproof::reference::variance(&[1.0_f32, 2.0, 6.0], 1).to_f64(), 7.0);
/// ```
#[must_use]
pub fn variance<T: Float>(x: &[T], ddof: usize) -> Wide {
    let squares = deviations(x).into_iter().fold(Wide::ZERO, |sum, d| sum + d * d);
    squares / count(x.len() - ddof)
}

/// The gradient of [`variance`]: `g 2 (x - mean) / (n - ddof)`.
///
/// ```
/// assert_eq!(nanproof::reference::variance_backward(&[1.0_f32, 3.0], 0, 5.0)[1].to_f64(), 5.0);
/// ```
#[must_use]
pub fn variance_backward<T: Float>(x: &[T], ddof: usize, g: T) -> Vec<Wide> {
    let factor = Wide::new(g) * Wide::new(2.0_f64) / count(x.len() - ddof);
    deviations(x).into_iter().map(|d| factor * d).collect()
}

/// The gradient of the root of [`variance`]: `g (x - mean) / ((n - ddof) std)`, and 0 where that is 0.
///
/// ```
/// assert_eq!(nanproof::reference::std_backward(&[1.0_f32, 3.0], 0, 4.0)[1].to_f64(), 2.0);
/// ```
#[must_use]
pub fn std_backward<T: Float>(x: &[T], ddof: usize, g: T) -> Vec<Wide> {
    let std = variance(x, ddof).sqrt();
    let factor = Wide::new(g) / count(x.len() - ddof);
    deviations(x).into_iter().map(|d| if std.is_zero() { std } else { factor * d / std }).collect()
}

fn count(n: usize) -> Wide {
    Wide::from(u32::try_from(n).expect("no more than a test can hold"))
}

fn deviations<T: Float>(x: &[T]) -> Vec<Wide> {
    let mean = mean(x);
    x.iter().map(|&x| Wide::new(x) - mean).collect()
}

/// `(|x[0]|^p + |x[1]|^p + ...)^(1/p)`, and the largest magnitude for an infinite `p`.
///
/// ```
/// assert_eq!(nanproof::reference::lp_norm(1.0, &[3.0_f32, -4.0]).to_f64(), 7.0);
/// ```
#[must_use]
pub fn lp_norm<T: Float>(p: T, x: &[T]) -> Wide {
    if p.is_infinite() {
        return x.iter().map(|&x| Wide::new(x).abs()).fold(Wide::ZERO, |a, b| if a < b { b } else { a });
    }
    let p = Wide::new(p);
    let sum =
        x.iter().filter(|x| !x.is_zero()).map(|&x| power_of(Wide::new(x).abs(), p)).fold(Wide::ZERO, |a, b| a + b);
    if sum.is_zero() { sum } else { power_of(sum, Wide::ONE / p) }
}

/// The gradient of [`lp_norm`], for a finite `p`: `g sign(x) (|x| / norm)^(p-1)`, and 0 where `x` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::lp_norm_backward(1.0, &[3.0_f32, -4.0], 5.0)[1].to_f64(), -5.0);
/// ```
#[must_use]
pub fn lp_norm_backward<T: Float>(p: T, x: &[T], g: T) -> Vec<Wide> {
    let (norm, exponent) = (lp_norm(p, x), Wide::new(p) - Wide::ONE);
    let gradient = |&x: &T| {
        if x.is_zero() {
            return Wide::ZERO;
        }
        let size = Wide::new(g) * power_of(Wide::new(x).abs() / norm, exponent);
        if x < T::zero() { -size } else { size }
    };
    x.iter().map(gradient).collect()
}

fn power_of(x: Wide, exponent: Wide) -> Wide {
    (exponent * x.ln()).exp()
}

/// `(x - mean) / sqrt(variance + eps)`; 0 where the divisor is.
///
/// ```
/// assert_eq!(nanproof::reference::layer_norm(&[1.0_f32, 3.0], 0.0)[1].to_f64(), 1.0);
/// ```
#[must_use]
pub fn layer_norm<T: Float>(x: &[T], eps: T) -> Vec<Wide> {
    over(deviations(x), deviation(x, eps))
}

/// `x / sqrt(mean(x^2) + eps)`; 0 where the divisor is.
///
/// ```
/// assert_eq!(nanproof::reference::rms_norm(&[2.0_f32, -2.0], 0.0)[1].to_f64(), -1.0);
/// ```
#[must_use]
pub fn rms_norm<T: Float>(x: &[T], eps: T) -> Vec<Wide> {
    over(widened(x), root_mean_square(x, eps))
}

/// `x / max(|x|, eps)`; 0 where the divisor is.
///
/// ```
/// assert_eq!(nanproof::reference::normalize(&[3.0_f64, 4.0], 0.0)[1].to_f64(), 0.8);
/// ```
#[must_use]
pub fn normalize<T: Float>(x: &[T], eps: T) -> Vec<Wide> {
    let (norm, eps) = (l2_norm(x), Wide::new(eps));
    over(widened(x), if norm < eps { eps } else { norm })
}

fn deviation<T: Float>(x: &[T], eps: T) -> Wide {
    (variance(x, 0) + Wide::new(eps)).sqrt()
}

fn root_mean_square<T: Float>(x: &[T], eps: T) -> Wide {
    (dot(x, x) / count(x.len()) + Wide::new(eps)).sqrt()
}

fn widened<T: Float>(x: &[T]) -> Vec<Wide> {
    x.iter().map(|&x| Wide::new(x)).collect()
}

fn over(x: Vec<Wide>, divisor: Wide) -> Vec<Wide> {
    x.into_iter().map(|x| if divisor.is_zero() { divisor } else { x / divisor }).collect()
}

/// The gradient of [`layer_norm`] for `g = weight dy`: `(g - mean(g) - y mean(g y)) / sqrt(variance + eps)`, and 0 where
/// the divisor is. The terms of each sum.
///
/// ```
/// let dx = nanproof::reference::layer_norm_backward(&[1.0_f32, 3.0], 0.0, &[1.0; 2], &[5.0, 5.0]);
/// assert_eq!(dx[1].into_iter().map(|term| term.to_f64()).sum::<f64>(), 0.0);
/// ```
#[must_use]
pub fn layer_norm_backward<T: Float>(x: &[T], eps: T, weight: &[T], dy: &[T]) -> Vec<[Wide; 3]> {
    let (y, n) = (layer_norm(x, eps), count(x.len()));
    let mean_g = dot(weight, dy) / n;
    let along = along(&y, weight, dy) / n;
    let term = |y: Wide, g: Wide| [g, -mean_g, -(y * along)];
    gradient_terms(&y, weight, dy, deviation(x, eps), term)
}

/// The gradient of [`rms_norm`] for `g = weight dy`: `(g - y mean(g y)) / sqrt(mean(x^2) + eps)`, and 0 where the divisor
/// is. The terms of each sum.
///
/// ```
/// let dx = nanproof::reference::rms_norm_backward(&[2.0_f32, 2.0], 0.0, &[1.0; 2], &[1.0, 0.0]);
/// assert_eq!(dx[0].map(|term| term.to_f64()), [0.5, 0.0, -0.25]);
/// ```
#[must_use]
pub fn rms_norm_backward<T: Float>(x: &[T], eps: T, weight: &[T], dy: &[T]) -> Vec<[Wide; 3]> {
    let y = rms_norm(x, eps);
    let along = along(&y, weight, dy) / count(x.len());
    let term = |y: Wide, g: Wide| [g, Wide::ZERO, -(y * along)];
    gradient_terms(&y, weight, dy, root_mean_square(x, eps), term)
}

/// The gradient of [`normalize`]: `(dy - y sum(dy y)) / |x|` where the norm is above `eps`, else `dy / eps`; 0 where the
/// divisor is. The terms of each sum.
///
/// ```
/// let dx = nanproof::reference::normalize_backward(&[0.0_f32, 2.0], 0.0, &[1.0, 1.0]);
/// assert_eq!(dx[1].map(|term| term.to_f64()), [0.5, 0.0, -0.5]);
/// ```
#[must_use]
pub fn normalize_backward<T: Float>(x: &[T], eps: T, dy: &[T]) -> Vec<[Wide; 3]> {
    let (y, norm, eps) = (normalize(x, eps), l2_norm(x), Wide::new(eps));
    let ones = vec![T::one(); x.len()];
    let along = if eps < norm { along(&y, &ones, dy) } else { Wide::ZERO };
    let term = |y: Wide, g: Wide| [g, Wide::ZERO, -(y * along)];
    gradient_terms(&y, &ones, dy, if norm < eps { eps } else { norm }, term)
}

/// `sum(y weight dy)`.
fn along<T: Float>(y: &[Wide], weight: &[T], dy: &[T]) -> Wide {
    let terms = y.iter().zip(weight).zip(dy).map(|((&y, &w), &dy)| y * Wide::new(w) * Wide::new(dy));
    terms.fold(Wide::ZERO, |a, b| a + b)
}

fn gradient_terms<T: Float>(
    y: &[Wide],
    weight: &[T],
    dy: &[T],
    divisor: Wide,
    terms: impl Fn(Wide, Wide) -> [Wide; 3],
) -> Vec<[Wide; 3]> {
    let each = y.iter().zip(weight).zip(dy).map(|((&y, &w), &dy)| terms(y, Wide::new(w) * Wide::new(dy)));
    each.map(|terms| if divisor.is_zero() { [divisor; 3] } else { terms.map(|term| term / divisor) }).collect()
}

/// `sum(a b) / (|a| |b|)`, and 0 where a norm is.
///
/// ```
/// assert_eq!(nanproof::reference::cosine_similarity(&[3.0_f64, 4.0], &[4.0, 3.0]).to_f64(), 0.96);
/// ```
#[must_use]
pub fn cosine_similarity<T: Float>(a: &[T], b: &[T]) -> Wide {
    let norms = l2_norm(a) * l2_norm(b);
    if norms.is_zero() { norms } else { dot(a, b) / norms }
}

/// The gradient of [`cosine_similarity`] by `a`: `dy (b / |b| - cosine a / |a|) / |a|`, and 0 where a norm is. The terms of
/// each sum.
///
/// ```
/// let da = nanproof::reference::cosine_similarity_backward(&[2.0_f32, 0.0], &[0.0, 4.0], 1.0);
/// assert_eq!(da[1].map(|term| term.to_f64()), [0.5, 0.0]);
/// ```
#[must_use]
pub fn cosine_similarity_backward<T: Float>(a: &[T], b: &[T], dy: T) -> Vec<[Wide; 2]> {
    let (a_norm, b_norm, cosine) = (l2_norm(a), l2_norm(b), cosine_similarity(a, b));
    let gradient = |(&a, &b): (&T, &T)| {
        if a_norm.is_zero() || b_norm.is_zero() {
            return [Wide::ZERO; 2];
        }
        [Wide::new(b) / b_norm, -(cosine * Wide::new(a) / a_norm)].map(|term| Wide::new(dy) * term / a_norm)
    };
    a.iter().zip(b).map(gradient).collect()
}

/// `x` if its norm is at most `max_norm`, else `x max_norm / |x|`.
///
/// ```
/// assert_eq!(nanproof::reference::clip_by_norm(&[3.0_f32, 4.0], 2.5)[0].to_f64(), 1.5);
/// ```
#[must_use]
pub fn clip_by_norm<T: Float>(x: &[T], max_norm: T) -> Vec<Wide> {
    let (norm, max) = (l2_norm(x), Wide::new(max_norm));
    x.iter().map(|&x| if norm <= max { Wide::new(x) } else { Wide::new(x) * max / norm }).collect()
}

/// `exp(x)` over the sum of all `exp(x)`, of one row.
///
/// Zeros if every entry is `-inf`; entries of `+inf` share 1 equally; all NaN if one is.
///
/// ```
/// assert_eq!(nanproof::reference::softmax(&[7.0_f32, 7.0])[1].to_f64(), 0.5);
/// ```
#[must_use]
pub fn softmax<T: Float>(x: &[T]) -> Vec<Wide> {
    let row = Row::new(x);
    x.iter().map(|&x| row.probability(x)).collect()
}

/// The logarithm of [`softmax`], of one row; `-inf` where every entry is.
///
/// ```
/// assert_eq!(nanproof::reference::log_softmax(&[0.0_f64, -50.0])[0].to_f64(), -1.9287498479639178e-22);
/// ```
#[must_use]
pub fn log_softmax<T: Float>(x: &[T]) -> Vec<Wide> {
    let row = Row::new(x);
    x.iter().map(|&x| -row.loss(x)).collect()
}

/// The logarithm of the sum of all `exp(x)`; `-inf` if there are none or all are `-inf`.
///
/// ```
/// assert_eq!(nanproof::reference::logsumexp(&[1000.0_f64, 1000.0]).to_f64(), 1000.0 + 2.0_f64.ln());
/// ```
#[must_use]
pub fn logsumexp<T: Float>(x: &[T]) -> Wide {
    let row = Row::new(x);
    Wide::new(row.max) + row.rest.ln_1p()
}

/// The gradient of [`logsumexp`]: `dy softmax(x)`.
///
/// ```
/// assert_eq!(nanproof::reference::logsumexp_backward(&[1.0_f64, 1.0], 3.0)[0].to_f64(), 1.5);
/// ```
#[must_use]
pub fn logsumexp_backward<T: Float>(x: &[T], dy: T) -> Vec<Wide> {
    softmax(x).into_iter().map(|p| p * Wide::new(dy)).collect()
}

/// The gradient of [`softmax`] from its result: `p (dp - sum(p dp))`, and 0 where `p` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::softmax_backward(&[0.5_f64, 0.5], &[1.0, 0.0])[0].to_f64(), 0.25);
/// ```
#[must_use]
pub fn softmax_backward<T: Float>(p: &[T], dp: &[T]) -> Vec<Wide> {
    let mut sum = ExactSum::new();
    p.iter().zip(dp).filter(|(p, _)| !p.is_zero()).for_each(|(&p, &dp)| sum.add_product(p, dp));
    let sum = sum.value();
    let gradient = |(&p, &dp): (&T, &T)| if p.is_zero() { Wide::ZERO } else { Wide::new(p) * (Wide::new(dp) - sum) };
    p.iter().zip(dp).map(gradient).collect()
}

/// The gradient of [`log_softmax`] from its result: `dy - exp(y) sum(dy)`, and 0 where `y` is `-inf`.
///
/// ```
/// let y = [0.5_f64.ln(); 2];
/// assert_eq!(nanproof::reference::log_softmax_backward(&y, &[1.0, 0.0])[0].to_f64(), 0.5);
/// ```
#[must_use]
pub fn log_softmax_backward<T: Float>(y: &[T], dy: &[T]) -> Vec<Wide> {
    let is_possible = |y: T| y != T::neg_infinity();
    let sum = sum(&y.iter().zip(dy).filter(|(y, _)| is_possible(**y)).map(|(_, &dy)| dy).collect::<Vec<_>>());
    let gradient =
        |(&y, &dy): (&T, &T)| if is_possible(y) { Wide::new(dy) - Wide::new(y).exp() * sum } else { Wide::ZERO };
    y.iter().zip(dy).map(gradient).collect()
}

/// The cross-entropy of softmax: the mean or the sum over the rows of `logsumexp(x) - x[target]`; 0 with no target that
/// counts.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, reference};
///
/// let logits = MatRef::new(&[50.0_f64, 0.0], 1, 2)?;
/// assert_eq!(reference::cross_entropy(CrossEntropy::default(), logits, &[0]).to_f64(), 1.9287498479639178e-22);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[must_use]
pub fn cross_entropy<'a, T: Float>(
    options: CrossEntropy<'a, T>,
    logits: MatRef<'a, T>,
    targets: impl Into<Targets<'a, T>>,
) -> Wide {
    let targets = targets.into();
    let loss = |i| {
        let x = masked_row(options, logits, i);
        let row = Row::new(&x);
        if options.is_plain()
            && let Targets::Classes(classes) = targets
        {
            return row.loss(x[classes[i] as usize]);
        }
        let terms = x.iter().zip(labels(options, targets, x.len(), i)).filter(|(_, label)| *label != Wide::ZERO);
        let sum = terms.fold(Wide::ZERO, |sum, (&x, label)| sum + label * row.loss(x));
        let lse = logsumexp(&x);
        if options.z_loss.is_zero() { sum } else { sum + Wide::new(options.z_loss) * lse * lse }
    };
    let sum = (0..logits.rows()).filter(|&i| counts(options, targets, i)).map(loss).fold(Wide::ZERO, Wide::add);
    sum / divisor(options, logits.rows(), targets)
}

/// The gradient of [`cross_entropy`], row by row: `g (softmax(x) - onehot(target))` over the number of targets if the
/// mean is taken; 0 in rows that do not count, in rows of `-inf` and where a logit is masked.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, reference};
///
/// let logits = MatRef::new(&[0.0_f32, 0.0], 1, 2)?;
/// let gradient = reference::cross_entropy_backward(CrossEntropy::default(), logits, &[0], 1.0);
/// assert_eq!(gradient[0].to_f64(), -0.5);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[must_use]
pub fn cross_entropy_backward<'a, T: Float>(
    options: CrossEntropy<'a, T>,
    logits: MatRef<'a, T>,
    targets: impl Into<Targets<'a, T>>,
    g: T,
) -> Vec<Wide> {
    let targets = targets.into();
    let factor = Wide::new(g) / divisor(options, logits.rows(), targets);
    let gradient = |i| {
        let x = masked_row(options, logits, i);
        let (row, mut p) = (Row::new(&x), softmax(&x));
        if !counts(options, targets, i) || row.is_empty() {
            return vec![Wide::ZERO; x.len()];
        }
        let sum = |p: &[Wide]| p.iter().fold(Wide::ZERO, |sum, &p| sum + p);
        match targets {
            Targets::Classes(classes) if options.is_plain() => {
                let target = classes[i] as usize;
                // p - 1 is taken from the other side, where nothing cancels.
                p[target] = if x.iter().all(|x| *x < T::infinity()) {
                    -(sum(&p[..target]) + sum(&p[target + 1..]))
                } else {
                    p[target] - Wide::ONE
                };
            }
            _ => {
                let labels = labels(options, targets, x.len(), i);
                let z = Wide::new(options.z_loss);
                let slope = if options.z_loss.is_zero() { Wide::ZERO } else { (z + z) * logsumexp(&x) };
                let total = sum(&labels) + slope;
                p.iter_mut().zip(labels).for_each(|(p, label)| *p = total * *p - label);
            }
        }
        let keeps = |j| options.mask.is_none_or(|mask| mask.get(i, j) == Some(true));
        p.into_iter().enumerate().map(|(j, p)| if keeps(j) { factor * p } else { Wide::ZERO }).collect()
    };
    (0..logits.rows()).flat_map(gradient).collect()
}

/// A row of logits, `-inf` where it is masked.
fn masked_row<T: Float>(options: CrossEntropy<'_, T>, logits: MatRef<'_, T>, i: usize) -> Vec<T> {
    let keeps = |j| options.mask.is_none_or(|mask| mask.get(i, j) == Some(true));
    let read = |(j, &x): (usize, &T)| if keeps(j) { x } else { T::neg_infinity() };
    logits.row_iter(i).enumerate().map(read).collect()
}

/// Whether a row counts.
fn counts<T: Float>(options: CrossEntropy<'_, T>, targets: Targets<'_, T>, i: usize) -> bool {
    let Targets::Classes(classes) = targets else { return true };
    let weight = options.weights.and_then(|weights| weights.get(classes[i] as usize));
    Some(classes[i]) != options.ignore && weight.is_none_or(|weight| !weight.is_zero())
}

/// What each class of a row counts: `w ((1 - s) q + s / k)`, where the `k` classes that are not masked have `s / k`.
fn labels<T: Float>(options: CrossEntropy<'_, T>, targets: Targets<'_, T>, classes: usize, i: usize) -> Vec<Wide> {
    let keeps = |j: &usize| options.mask.is_none_or(|mask| mask.get(i, *j) == Some(true));
    let kept = Wide::new((0..classes).filter(keeps).count() as f64);
    let q = |j: usize| match targets {
        Targets::Classes(classes) => Wide::new(f64::from(u8::from(classes[i] as usize == j))),
        Targets::Probabilities(q) => q.get(i, j).map_or(Wide::ZERO, Wide::new),
    };
    let smoothing = Wide::new(options.smoothing);
    let weight = |j: usize| options.weights.map_or(Wide::ONE, |weights| Wide::new(weights[j]));
    let even = |j: usize| if keeps(&j) { smoothing / kept } else { Wide::ZERO };
    (0..classes).map(|j| weight(j) * ((Wide::ONE - smoothing) * q(j) + even(j))).collect()
}

/// The number that losses are divided by.
fn divisor<T: Float>(options: CrossEntropy<'_, T>, rows: usize, targets: Targets<'_, T>) -> Wide {
    let weight = |i| match (options.weights, targets) {
        (Some(weights), Targets::Classes(classes)) => Wide::new(weights[classes[i] as usize]),
        _ => Wide::ONE,
    };
    let total = (0..rows).filter(|&i| counts(options, targets, i)).fold(Wide::ZERO, |sum, i| sum + weight(i));
    if options.reduction == Reduction::Sum || total == Wide::ZERO { Wide::ONE } else { total }
}

/// The largest entry of a row, and the sum of `exp(x - max)` without one term that is 1.
struct Row<T> {
    max: T,
    rest: Wide,
}

impl<T: Float> Row<T> {
    fn new(x: &[T]) -> Self {
        let max =
            x.iter().fold(T::neg_infinity(), |max, &x| if x.is_nan() || max.is_nan() { T::nan() } else { max.max(x) });
        let row = Self { max, rest: Wide::ZERO };
        let first = x.iter().position(|&x| x == max);
        let others = x.iter().enumerate().filter(|&(j, _)| Some(j) != first);
        let rest = others.fold(Wide::ZERO, |sum, (_, &x)| sum + row.below_max(x).exp());
        Self { max, rest: if row.is_empty() { Wide::ZERO } else { rest } }
    }

    /// `x - max`, with `inf - inf = 0`: what is largest has the weight 1.
    fn below_max(&self, x: T) -> Wide {
        if x == self.max { Wide::ZERO } else { Wide::new(x) - Wide::new(self.max) }
    }

    fn is_empty(&self) -> bool {
        self.max == T::neg_infinity()
    }

    fn probability(&self, x: T) -> Wide {
        if self.is_empty() { Wide::ZERO } else { self.below_max(x).exp() / (Wide::ONE + self.rest) }
    }

    fn loss(&self, x: T) -> Wide {
        if self.is_empty() { Wide::new(f64::INFINITY) } else { self.rest.ln_1p() - self.below_max(x) }
    }
}

/// The entropy of the softmax of a row: `sum(p (lse(x) - x))`; 0 of a row of `-inf`.
///
/// ```
/// assert_eq!(nanproof::reference::softmax_entropy(&[3.0_f64, 3.0]).to_f64(), 2.0_f64.ln());
/// ```
#[must_use]
pub fn softmax_entropy<T: Float>(x: &[T]) -> Wide {
    let row = Row::new(x);
    let possible = x.iter().filter(|&&x| x != T::neg_infinity());
    possible.fold(Wide::ZERO, |sum, &x| sum + row.probability(x) * row.loss(x))
}

/// The gradient of [`softmax_entropy`]: `dh p ((lse(x) - x) - h)`; 0 where `p` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::softmax_entropy_backward(&[3.0_f64, 3.0], 1.0)[0].to_f64(), 0.0);
/// ```
#[must_use]
pub fn softmax_entropy_backward<T: Float>(x: &[T], dh: T) -> Vec<Wide> {
    // The logarithm of the sum, in both, is left out: small differences would be lost in it.
    let row = Row::new(x);
    let possible = x.iter().filter(|&&x| x != T::neg_infinity());
    let mean = possible.fold(Wide::ZERO, |sum, &x| sum - row.probability(x) * row.below_max(x));
    let gradient = |&x: &T| {
        if x == T::neg_infinity() {
            return Wide::ZERO;
        }
        -(Wide::new(dh) * row.probability(x) * (row.below_max(x) + mean))
    };
    x.iter().map(gradient).collect()
}

/// The binary cross-entropy of a logit: `-t ln(sigmoid(x)) - (1 - t) ln(1 - sigmoid(x))`, with `0 inf = 0`.
///
/// ```
/// assert_eq!(nanproof::reference::binary_cross_entropy(100.0_f64, 1.0).to_f64(), 3.720075976020836e-44);
/// ```
#[must_use]
pub fn binary_cross_entropy<T: Float>(x: T, t: T) -> Wide {
    // The loss of either outcome: ln(1 + exp(-x)) and ln(1 + exp(x)), of which one is |x| more than the other.
    let small = Wide::new(-x.abs()).exp().ln_1p();
    let weight = if x > T::zero() { Wide::ONE - Wide::new(t) } else { Wide::new(t) };
    if weight == Wide::ZERO { small } else { small + weight * Wide::new(x.abs()) }
}

/// The gradient of [`binary_cross_entropy`]: `g (sigmoid(x) - t)`.
///
/// ```
/// assert_eq!(nanproof::reference::binary_cross_entropy_backward(0.0_f64, 1.0, 2.0).to_f64(), -1.0);
/// ```
#[must_use]
pub fn binary_cross_entropy_backward<T: Float>(x: T, t: T, g: T) -> Wide {
    let e = Wide::new(-x.abs()).exp();
    let rare = e / (Wide::ONE + e);
    let (t, g) = (Wide::new(t), Wide::new(g));
    g * if x > T::zero() { (Wide::ONE - t) - rare } else { rare - t }
}

/// A term of the Kullback-Leibler divergence: `p (ln p - log_q)`; 0 where `p` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::kl_divergence(1.0_f64, -0.5).to_f64(), 0.5);
/// ```
#[must_use]
pub fn kl_divergence<T: Float>(p: T, log_q: T) -> Wide {
    if p.is_zero() { Wide::ZERO } else { Wide::new(p) * (Wide::new(p).ln() - Wide::new(log_q)) }
}

/// The gradients of [`kl_divergence`]: `g (ln p + 1 - log_q)` and `-g p`; 0 where `p` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::kl_divergence_backward(1.0_f64, 0.0, 3.0).map(|x| x.to_f64()), [3.0, -3.0]);
/// ```
#[must_use]
pub fn kl_divergence_backward<T: Float>(p: T, log_q: T, g: T) -> [Wide; 2] {
    let (wide, wide_g) = (Wide::new(p), Wide::new(g));
    match p {
        _ if p.is_zero() => [Wide::ZERO; 2],
        _ if g.is_zero() && p > T::zero() && log_q == T::neg_infinity() => [Wide::ZERO, -(wide_g * wide)],
        _ => [wide_g * (wide.ln() + Wide::ONE - Wide::new(log_q)), -(wide_g * wide)],
    }
}

/// `a / b`, or 0 where `b` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::safe_div(3.0_f32, 2.0).to_f64(), 1.5);
/// assert_eq!(nanproof::reference::safe_div(f32::NAN, 0.0).to_f64(), 0.0);
/// ```
#[must_use]
pub fn safe_div<T: Float>(a: T, b: T) -> Wide {
    if b.is_zero() {
        Wide::ZERO
    } else if b.is_infinite() {
        Wide::new(a / b)
    } else {
        Wide::new(a) / Wide::new(b)
    }
}

/// The gradients of [`safe_div`], `g / b` and `-(g / b) (a / b)`; both 0 where `b` is 0.
///
/// ```
/// let [da, db] = nanproof::reference::safe_div_backward(1e20_f32, 1e20, 1.0);
/// assert_eq!((da.to_f64() as f32, db.to_f64() as f32), (1e-20, -1e-20));
/// ```
#[must_use]
pub fn safe_div_backward<T: Float>(a: T, b: T, g: T) -> [Wide; 2] {
    let da = safe_div(g, b);
    [da, -(da * safe_div(a, b))]
}

/// `a b`, or 0 where `b` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::safe_mul(f32::NAN, 0.0).to_f64(), 0.0);
/// ```
#[must_use]
pub fn safe_mul<T: Float>(a: T, b: T) -> Wide {
    if b.is_zero() { Wide::ZERO } else { Wide::new(a) * Wide::new(b) }
}

/// The gradients of [`safe_mul`], `g b` and `g a`; both 0 where `b` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::safe_mul_backward(3.0_f64, 2.0, 5.0).map(|x| x.to_f64()), [10.0, 15.0]);
/// ```
#[must_use]
pub fn safe_mul_backward<T: Float>(a: T, b: T, g: T) -> [Wide; 2] {
    if b.is_zero() { [Wide::ZERO; 2] } else { [b, a].map(|factor| Wide::new(g) * Wide::new(factor)) }
}

/// `x ln(y)`, or 0 where `x` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::xlogy(0.0_f32, 0.0).to_f64(), 0.0);
/// ```
#[must_use]
pub fn xlogy<T: Float>(x: T, y: T) -> Wide {
    if x.is_zero() { Wide::ZERO } else { Wide::new(x) * Wide::new(y).ln() }
}

/// The gradients of [`xlogy`], `g ln(y)` and `g x / y`, for `y > 0`.
///
/// ```
/// assert_eq!(nanproof::reference::xlogy_backward(2.0_f32, 1.0, 3.0)[1].to_f64(), 6.0);
/// ```
#[must_use]
pub fn xlogy_backward<T: Float>(x: T, y: T, g: T) -> [Wide; 2] {
    let g = Wide::new(g);
    [g * Wide::new(y).ln(), g * Wide::new(x) / Wide::new(y)]
}

/// `x ln(1 + y)`, or 0 where `x` is 0.
///
/// ```
/// assert_eq!(nanproof::reference::xlog1py(2.0_f64, 1e-300).to_f64(), 2e-300);
/// ```
#[must_use]
pub fn xlog1py<T: Float>(x: T, y: T) -> Wide {
    if x.is_zero() { Wide::ZERO } else { Wide::new(x) * Wide::new(y).ln_1p() }
}

/// The gradients of [`xlog1py`], `g ln(1 + y)` and `g x / (1 + y)`, for `y > -1`.
///
/// ```
/// assert_eq!(nanproof::reference::xlog1py_backward(2.0_f32, 0.0, 3.0)[1].to_f64(), 6.0);
/// ```
#[must_use]
pub fn xlog1py_backward<T: Float>(x: T, y: T, g: T) -> [Wide; 2] {
    let (g, y) = (Wide::new(g), Wide::new(y));
    [g * y.ln_1p(), g * Wide::new(x) / (Wide::ONE + y)]
}

/// `x^y`, for `x > 0`.
///
/// ```
/// assert_eq!(nanproof::reference::pow(2.0_f32, 0.5).to_f64(), 2.0_f64.sqrt());
/// ```
#[must_use]
pub fn pow<T: Float>(x: T, y: T) -> Wide {
    (Wide::new(y) * Wide::new(x).ln()).exp()
}

/// The gradients of [`pow`], `g y x^(y-1)` and `g x^y ln(x)`, for `x > 0`.
///
/// ```
/// assert_eq!(nanproof::reference::pow_backward(3.0_f64, 2.0, 1.0)[0].to_f64(), 6.0);
/// ```
#[must_use]
pub fn pow_backward<T: Float>(x: T, y: T, g: T) -> [Wide; 2] {
    let (log, y, g) = (Wide::new(x).ln(), Wide::new(y), Wide::new(g));
    [g * y * ((y - Wide::ONE) * log).exp(), g * (y * log).exp() * log]
}

/// The angle of the point `(x, y)`; with the special values of IEEE 754, but no sign of a zero result.
///
/// ```
/// assert_eq!(nanproof::reference::atan2(0.0_f64, -0.0).to_f64(), std::f64::consts::PI);
/// ```
#[must_use]
pub fn atan2<T: Float>(y: T, x: T) -> Wide {
    let slope = if y.is_zero() && x.is_zero() {
        Wide::ZERO
    } else if y.is_infinite() && x.is_infinite() {
        Wide::ONE
    } else {
        Wide::new(y.abs()) / Wide::new(x.abs())
    };
    let angle = if x.is_sign_negative() { Wide::PI - slope.atan() } else { slope.atan() };
    if y.is_sign_negative() { -angle } else { angle }
}

/// The gradients of [`atan2`], `g x / r^2` and `-g y / r^2` with `r^2 = x^2 + y^2`, of finite operands; 0 where `r` is.
///
/// ```
/// let [dy, dx] = nanproof::reference::atan2_backward(1e-23_f32, 1e-23, 2.0);
/// assert_eq!((dy.to_f64() as f32, dx.to_f64() as f32), (1e23, -1e23));
/// ```
#[must_use]
pub fn atan2_backward<T: Float>(y: T, x: T, g: T) -> [Wide; 2] {
    let [y, x, g] = [y, x, g].map(Wide::new);
    let square = x * x + y * y;
    if square.is_zero() { [Wide::ZERO; 2] } else { [g * x / square, -(g * y / square)] }
}

/// `max(x, 0)`; NaN stays NaN.
///
/// ```
/// assert_eq!(nanproof::reference::relu(-1.0_f32).to_f64(), 0.0);
/// ```
#[must_use]
pub fn relu<T: Float>(x: T) -> Wide {
    if x <= T::zero() { Wide::ZERO } else { Wide::new(x) }
}

/// The hyperbolic tangent.
///
/// ```
/// assert_eq!(nanproof::reference::tanh(f32::INFINITY).to_f64(), 1.0);
/// ```
#[must_use]
pub fn tanh<T: Float>(x: T) -> Wide {
    Wide::new(x).tanh()
}

/// The gradient of [`tanh`]: `dy / cosh(x)^2`.
///
/// ```
/// assert_eq!(nanproof::reference::tanh_backward(0.0_f32, 3.0).to_f64(), 3.0);
/// ```
#[must_use]
pub fn tanh_backward<T: Float>(x: T, dy: T) -> Wide {
    let x = Wide::new(x).abs();
    let e = (-(x + x)).exp(); // 1 / cosh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2 |x|)
    let sum = Wide::ONE + e;
    Wide::new(dy) * (Wide::new(4.0) * e / (sum * sum))
}

/// `2^x`.
///
/// ```
/// assert_eq!(nanproof::reference::exp2(0.5_f64).to_f64(), std::f64::consts::SQRT_2);
/// ```
#[must_use]
pub fn exp2<T: Float>(x: T) -> Wide {
    (Wide::new(x) * Wide::LN_2).exp()
}

/// The logarithm to base 2.
///
/// ```
/// assert_eq!(nanproof::reference::log2(8.0_f64).to_f64(), 3.0);
/// ```
#[must_use]
pub fn log2<T: Float>(x: T) -> Wide {
    Wide::new(x).ln() / Wide::LN_2
}

/// The error function.
///
/// ```
/// assert_eq!(nanproof::reference::erf(f32::INFINITY).to_f64(), 1.0);
/// ```
#[must_use]
pub fn erf<T: Float>(x: T) -> Wide {
    Wide::new(x).erf()
}

/// The complement of the error function.
///
/// ```
/// assert_eq!(nanproof::reference::erfc(0.0_f32).to_f64(), 1.0);
/// ```
#[must_use]
pub fn erfc<T: Float>(x: T) -> Wide {
    Wide::new(x).erfc()
}

/// `1 / (1 + e^-x)`.
///
/// ```
/// assert_eq!(nanproof::reference::sigmoid(0.0_f32).to_f64(), 0.5);
/// ```
#[must_use]
pub fn sigmoid<T: Float>(x: T) -> Wide {
    logistic(Wide::new(x))
}

/// `ln(1 + e^x)`.
///
/// ```
/// assert_eq!(nanproof::reference::softplus(0.0_f64).to_f64(), std::f64::consts::LN_2);
/// ```
#[must_use]
pub fn softplus<T: Float>(x: T) -> Wide {
    if x > T::zero() {
        Wide::new(x) + (-Wide::new(x)).exp().ln_1p() // ln(1 + e^x) - ln(e^x) = ln(1 + e^-x)
    } else {
        Wide::new(x).exp().ln_1p()
    }
}

/// `x / (1 + e^-x)`, and the limit at `-Inf`.
///
/// ```
/// assert_eq!(nanproof::reference::silu(f32::NEG_INFINITY).to_f64(), 0.0);
/// ```
#[must_use]
pub fn silu<T: Float>(x: T) -> Wide {
    gated(x, logistic)
}

/// `x erfc(-x / sqrt(2)) / 2`, and the limit at `-Inf`.
///
/// ```
/// assert_eq!(nanproof::reference::gelu(f32::NEG_INFINITY).to_f64(), 0.0);
/// ```
#[must_use]
pub fn gelu<T: Float>(x: T) -> Wide {
    gated(x, normal)
}

/// `x (1 + tanh(u)) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, and the limit at `-Inf`.
///
/// ```
/// assert_eq!(nanproof::reference::gelu_tanh(f32::NEG_INFINITY).to_f64(), 0.0);
/// ```
#[must_use]
pub fn gelu_tanh<T: Float>(x: T) -> Wide {
    gated(x, |x| logistic(gelu_exponent(x).0))
}

/// `x tanh(ln(1 + e^x))`, and the limit at `-Inf`.
///
/// ```
/// assert_eq!(nanproof::reference::mish(f32::NEG_INFINITY).to_f64(), 0.0);
/// ```
#[must_use]
pub fn mish<T: Float>(x: T) -> Wide {
    gated(x, mish_gate)
}

/// `x` where `x > 0`, else `alpha (e^x - 1)`.
///
/// ```
/// assert_eq!(nanproof::reference::elu(2.0, f32::NEG_INFINITY).to_f64(), -2.0);
/// ```
#[must_use]
pub fn elu<T: Float>(alpha: T, x: T) -> Wide {
    if x > T::zero() { Wide::new(x) } else { Wide::new(alpha) * Wide::new(x).exp_m1() }
}

/// The gradient of [`sigmoid`]: `dy s (1 - s)`.
///
/// ```
/// assert_eq!(nanproof::reference::sigmoid_backward(0.0_f32, 4.0).to_f64(), 1.0);
/// ```
#[must_use]
pub fn sigmoid_backward<T: Float>(x: T, dy: T) -> Wide {
    let x = Wide::new(x);
    Wide::new(dy) * logistic(x) * logistic(-x)
}

/// The gradient of [`softplus`]: `dy / (1 + e^-x)`.
///
/// ```
/// assert_eq!(nanproof::reference::softplus_backward(0.0_f32, 4.0).to_f64(), 2.0);
/// ```
#[must_use]
pub fn softplus_backward<T: Float>(x: T, dy: T) -> Wide {
    Wide::new(dy) * logistic(Wide::new(x))
}

/// The gradient of [`silu`]: `dy (s + x s (1 - s))`, and the limits.
///
/// ```
/// assert_eq!(nanproof::reference::silu_backward(0.0_f32, 4.0).to_f64(), 2.0);
/// ```
#[must_use]
pub fn silu_backward<T: Float>(x: T, dy: T) -> Wide {
    gated_backward(x, dy, |x| (logistic(x), logistic(x) * logistic(-x)))
}

/// The gradient of [`gelu`]: `dy (P(x) + x p(x))`, and the limits.
///
/// ```
/// assert_eq!(nanproof::reference::gelu_backward(0.0_f32, 4.0).to_f64(), 2.0);
/// ```
#[must_use]
pub fn gelu_backward<T: Float>(x: T, dy: T) -> Wide {
    let density = |x: Wide| (-(x * x) / Wide::from(2_u32)).exp() / (Wide::PI + Wide::PI).sqrt();
    gated_backward(x, dy, |x| (normal(x), density(x)))
}

/// The gradient of [`gelu_tanh`]: `dy (s + x s (1 - s) 2u')`, and the limits.
///
/// ```
/// assert_eq!(nanproof::reference::gelu_tanh_backward(0.0_f32, 4.0).to_f64(), 2.0);
/// ```
#[must_use]
pub fn gelu_tanh_backward<T: Float>(x: T, dy: T) -> Wide {
    gated_backward(x, dy, |x| {
        let (exponent, slope) = gelu_exponent(x);
        (logistic(exponent), logistic(exponent) * logistic(-exponent) * slope)
    })
}

/// The gradient of [`mish`]: `dy (s + x (1 - s^2) / (1 + e^-x))`, and the limits.
///
/// ```
/// assert_eq!(nanproof::reference::mish_backward(f32::INFINITY, 4.0).to_f64(), 4.0);
/// ```
#[must_use]
pub fn mish_backward<T: Float>(x: T, dy: T) -> Wide {
    gated_backward(x, dy, |x| (mish_gate(x), (Wide::ONE - mish_gate(x) * mish_gate(x)) * logistic(x)))
}

/// `1 / (1 + e^-x)`, without overflow.
fn logistic(x: Wide) -> Wide {
    let e = (-x.abs()).exp();
    (if x < Wide::ZERO { e } else { Wide::ONE }) / (Wide::ONE + e)
}

/// The distribution function of the normal distribution.
fn normal(x: Wide) -> Wide {
    let two = Wide::from(2_u32);
    (-x / two.sqrt()).erfc() / two
}

/// `tanh(ln(1 + e^x))`.
fn mish_gate(x: Wide) -> Wide {
    let two = Wide::from(2_u32);
    let e = (-x.abs()).exp();
    if x < Wide::ZERO {
        e * (e + two) / (e * (e + two) + two)
    } else {
        (Wide::ONE + two * e) / (Wide::ONE + two * e + two * e * e)
    }
}

/// `2u` of [`gelu_tanh`], and its derivative.
fn gelu_exponent(x: Wide) -> (Wide, Wide) {
    let scale = Wide::from(2_u32) * (Wide::from(2_u32) / Wide::PI).sqrt();
    let cubic = Wide::from(44_715_u32) / Wide::from(1_000_000_u32);
    (scale * (x + cubic * x * x * x), scale * (Wide::ONE + Wide::from(3_u32) * cubic * x * x))
}

/// `x gate(x)`, which is 0 at `-Inf`.
fn gated<T: Float>(x: T, gate: impl Fn(Wide) -> Wide) -> Wide {
    if x == T::neg_infinity() { Wide::ZERO } else { Wide::new(x) * gate(Wide::new(x)) }
}

/// `dy (gate(x) + x gate'(x))`, which is 0 at `-Inf` and `dy` at `+Inf`.
fn gated_backward<T: Float>(x: T, dy: T, gate: impl Fn(Wide) -> (Wide, Wide)) -> Wide {
    if x.is_infinite() {
        return if x > T::zero() { Wide::new(dy) } else { Wide::ZERO };
    }
    let (value, slope) = gate(Wide::new(x));
    Wide::new(dy) * (value + Wide::new(x) * slope)
}
