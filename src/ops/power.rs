//! Powers, and logarithms times a factor that may be 0; and their gradients.

use crate::error::Result;
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::math;
use crate::ops::broadcast::{Gradients, Pair};
use crate::ops::guarded::Safe;
use crate::scaled::power;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard};

/// A factor times a logarithm: `z = x ln(y)`, and 0 where `x` is 0. Returns how many `x` were 0.
///
/// `y` is as long as `x`, or counts for each of the rows that `x` consists of: one row, or one number. `z` is as long as
/// `x`. Within 0.51 ULP, and 1 ULP next to subnormal results. Where `x` is 0 `y` is not read. `y = 0` is a pole, and `y < 0` gives NaN.
///
/// Gradient: [`xlogy_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// let mut z = [0.0_f64; 3];
/// assert_eq!(nanproof::xlogy(&[0.0, 0.0, 2.0], &[0.0, f64::NAN, 1.0], &mut z)?, 2);
/// assert_eq!(z, [0.0; 3]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn xlogy<T: Float>(x: &[T], y: &[T], z: &mut [T]) -> Result<usize> {
    times_log("xlogy", XLog { one_plus: false }, x, y, z)
}

/// The gradients of [`xlogy`]: `dx = g ln(y)` and `dy = g x / y`. Returns how many `x` were 0.
///
/// Where `g` is exactly 0, both are (unless `x` or `y` is NaN). Where `x` is 0, `dy` is 0 without a look at the rest, and
/// `dx` is 0 if `y <= 0`. `g` and `dx` are as long as `x`, `dy` as long as `y`: of a `y` that counts for several rows it is
/// the sum over them, in ascending order, with its rounding errors kept; terms that are too large for the type may
/// cancel.
///
/// `dx` within 1 ULP, `dy` within 1.5 ULP (where it is a sum, of each term); nothing over- or underflows on the way.
///
/// # Errors
/// As [`xlogy`].
///
/// ```
/// let (mut dx, mut dy) = ([0.0_f32; 2], [0.0; 2]);
/// nanproof::xlogy_backward(&[0.0, 3.0], &[0.0, 1.0], &[1.0, 2.0], &mut dx, &mut dy)?;
/// assert_eq!((dx, dy), ([0.0; 2], [0.0, 6.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn xlogy_backward<T: Float>(x: &[T], y: &[T], g: &[T], dx: &mut [T], dy: &mut [T]) -> Result<usize> {
    times_log_backward("xlogy_backward", XLogBackward { one_plus: false }, x, y, g, dx, dy)
}

/// A factor times the logarithm of `1 + y`: `z = x ln(1 + y)`, and 0 where `x` is 0. Returns how many `x` were 0.
///
/// As [`xlogy`], but the pole is at `y = -1`. Within 0.51 ULP, and 1 ULP next to subnormal results; for small `y` too.
///
/// Gradient: [`xlog1py_backward`].
///
/// # Errors
/// As [`xlogy`].
///
/// ```
/// let mut z = [0.0_f64; 2];
/// nanproof::xlog1py(&[0.0, 2.0], &[-1.0, 1e-300], &mut z)?;
/// assert_eq!(z, [0.0, 2e-300]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn xlog1py<T: Float>(x: &[T], y: &[T], z: &mut [T]) -> Result<usize> {
    times_log("xlog1py", XLog { one_plus: true }, x, y, z)
}

/// The gradients of [`xlog1py`]: `dx = g ln(1 + y)` and `dy = g x / (1 + y)`, as [`xlogy_backward`]; `dx` within 1 ULP,
/// `dy` within 2.5 ULP.
///
/// # Errors
/// As [`xlogy`].
///
/// ```
/// let (mut dx, mut dy) = ([0.0_f32; 2], [0.0; 2]);
/// nanproof::xlog1py_backward(&[0.0, 3.0], &[-1.0, 0.0], &[1.0, 2.0], &mut dx, &mut dy)?;
/// assert_eq!((dx, dy), ([0.0; 2], [0.0, 6.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn xlog1py_backward<T: Float>(x: &[T], y: &[T], g: &[T], dx: &mut [T], dy: &mut [T]) -> Result<usize> {
    times_log_backward("xlog1py_backward", XLogBackward { one_plus: true }, x, y, g, dx, dy)
}

/// The power `z = x^y`, and the default where that is no real number or a pole: where `x < 0` and `y` is not whole, and
/// where `|x| <= eps` and `y < 0`. Returns how many elements were guarded.
///
/// `y` is as long as `x`, or counts for each of the rows that `x` consists of: one row, or one number. `z` is as long as
/// `x`. Within 0.7 ULP. The special values are those of IEEE 754 `pow`: `x^0 = 1` and `x` is not read, `1^y = 1` and `y` is
/// not read, the sign of a zero or an infinity counts if `y` is odd. Source: `exp(y ln x)` with the logarithm and the
/// product in two terms.
///
/// Gradient: [`safe_pow_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::Argument`](crate::Error::Argument) if `eps`
/// is negative or not finite; [`Error::NonFinite`](crate::Error::NonFinite) if a result is not finite.
///
/// ```
/// use nanproof::{Safe, safe_pow};
///
/// let mut z = [0.0_f32; 5];
/// let guarded = safe_pow(Safe::default(), &[2.0, -2.0, -2.0, 0.0, 0.0], &[0.5, 3.0, 0.5, -1.0, 0.0], &mut z)?;
/// assert_eq!((z, guarded), ([std::f32::consts::SQRT_2, -8.0, 0.0, 0.0, 1.0], 2));
/// // Every element by the same exponent.
/// safe_pow(Safe::default(), &[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0], &mut z)?;
/// assert_eq!(z, [1.0, 4.0, 9.0, 16.0, 25.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_pow<T: Float>(options: Safe<T>, x: &[T], y: &[T], z: &mut [T]) -> Result<usize> {
    let pair = Pair { operation: "safe_pow", a: ("x", x), b: ("y", y) };
    options.check(pair.operation)?;
    pair.check()?;
    pair.check_len("z", z)?;
    let is_guarded = |x, y| has_no_power(options.eps, x, y);
    let seen = pair.map(Power { options }, z)?;
    if !seen.finite {
        pair.diagnose(seen, options.default, ("z", z), is_guarded, |_, _| false)?;
    }
    Ok(seen.guarded)
}

/// The gradients of [`safe_pow`]: `dx = g y x^(y-1)` and `dy = g x^y ln(x)`; both 0 where an element is guarded, and where
/// `g` is exactly 0 (unless `x` or `y` is NaN). Returns how many elements were guarded.
///
/// At `x = 0`: `dx` is 0 for `y > 1` (NaN if `g` is not finite), `g` for `y = 1`, 0 for `y = 0`, and infinite with the
/// sign of `g` between, where there is a pole; `dy` is 0. For `x < 0`, where powers are real for whole exponents alone,
/// `dy` is 0. For neither `dy`, nor for `dx` at `y = 0`, `g` is read.
///
/// `g` and `dx` are as long as `x`, `dy` as long as `y`: of a `y` that counts for several rows it is the sum over them, in
/// ascending order, with its rounding errors kept; terms that are too large for the type may cancel. Both within 3 ULP
/// (where `dy` is a sum, of each term); nothing over- or underflows on the way.
///
/// # Errors
/// As [`safe_pow`].
///
/// ```
/// use nanproof::{Safe, safe_pow_backward};
///
/// let (mut dx, mut dy) = ([0.0_f64; 3], [0.0; 3]);
/// safe_pow_backward(Safe::default(), &[3.0, 0.0, 0.0], &[2.0, 1.0, 0.0], &[1.0; 3], &mut dx, &mut dy)?;
/// assert_eq!((dx, dy), ([6.0, 1.0, 0.0], [9.0 * 3.0_f64.ln(), 0.0, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_pow_backward<T: Float>(
    options: Safe<T>,
    x: &[T],
    y: &[T],
    g: &[T],
    dx: &mut [T],
    dy: &mut [T],
) -> Result<usize> {
    let pair = Pair { operation: "safe_pow_backward", a: ("x", x), b: ("y", y) };
    options.check(pair.operation)?;
    let is_guarded = |x, y| has_no_power(options.eps, x, y);
    pair.check_gradients(g, ("dx", dx), ("dy", dy))?;
    let seen = pair.gradients(PowerBackward { eps: options.eps }, g, dx, dy)?;
    if !seen.finite {
        let is_pole: [fn(T, T) -> bool; 2] = [|x, _| x.is_zero(), |_, _| false];
        pair.diagnose_gradients(g, ("dx", dx), ("dy", dy), is_guarded, is_pole)?;
    }
    Ok(seen.guarded)
}

fn has_no_power<T: Float>(eps: T, x: T, y: T) -> bool {
    (x.abs() <= eps && y < T::zero()) || (x < T::zero() && y.fract() != T::zero() && y.is_finite())
}

fn is_zero<T: Float>(x: T, _: T) -> bool {
    x.is_zero()
}

fn times_log<T: Float>(operation: &'static str, formula: XLog, x: &[T], y: &[T], z: &mut [T]) -> Result<usize> {
    let pair = Pair { operation, a: ("x", x), b: ("y", y) };
    pair.check()?;
    pair.check_len("z", z)?;
    let seen = pair.map(formula, z)?;
    if !seen.finite {
        pair.diagnose(seen, T::zero(), ("z", z), is_zero, |_, y| formula.is_pole(y))?;
    }
    Ok(seen.guarded)
}

fn times_log_backward<T: Float>(
    operation: &'static str,
    formula: XLogBackward,
    x: &[T],
    y: &[T],
    g: &[T],
    dx: &mut [T],
    dy: &mut [T],
) -> Result<usize> {
    let pair = Pair { operation, a: ("x", x), b: ("y", y) };
    pair.check_gradients(g, ("dx", dx), ("dy", dy))?;
    let seen = pair.gradients(formula, g, dx, dy)?;
    if !seen.finite {
        let is_pole = |_, y| XLog { one_plus: formula.one_plus }.is_pole(y);
        pair.diagnose_gradients(g, ("dx", dx), ("dy", dy), |_, _| false, [is_pole; 2])?;
    }
    Ok(seen.guarded)
}

/// `y`, or `1 + y` and what it is rounded by.
#[inline(always)]
fn argument<T: Float, S: Simd<T>>(one_plus: bool, y: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    if one_plus { y.all(T::one()).two_sum(y) } else { (y, y.all(T::zero())) }
}

/// `x (hi + lo)`, rounded once.
#[inline(always)]
fn times<T: Float, S: Simd<T>>(x: Lanes<T, S>, (hi, lo): (Lanes<T, S>, Lanes<T, S>)) -> Lanes<T, S> {
    let is_finite = x.abs().lt(x.all(T::infinity()));
    x.mul_add(hi, is_finite.select(x * lo, x.all(T::zero())))
}

/// `x ln(y)` or `x ln(1 + y)`, or 0 where `x` is.
#[derive(Clone, Copy, Debug)]
pub struct XLog {
    one_plus: bool,
}

impl XLog {
    fn is_pole<T: Float>(self, y: T) -> bool {
        if self.one_plus { y == -T::one() } else { y.is_zero() }
    }
}

impl<T: Float> Formula<T, 2, 1> for XLog {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, y]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let (zero, one) = (x.all(T::zero()), x.all(T::one()));
        let none = x.eq(zero);
        guard.note(none);
        let (w, error) = argument(self.one_plus, none.select(one, y));
        [none.select(zero, times(x, math::ln_parts(w, error)))]
    }
}

/// The gradients of [`XLog`].
#[derive(Clone, Copy, Debug)]
pub struct XLogBackward {
    one_plus: bool,
}

impl<T: Float> Formula<T, 3, 2> for XLogBackward {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, y, g]: [Lanes<T, S>; 3],
        _: [Lanes<T, S>; 2],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let zero = x.all(T::zero());
        let none = x.eq(zero);
        guard.note(none);
        let (w, error) = argument(self.one_plus, y);
        let nothing = g.eq(zero) & x.eq(x) & y.eq(y);
        let dx = times(g, math::ln_parts(w, error));
        let [dy_part, exponent] = self.second([x, y, g]);
        [(nothing | (none & w.le(zero))).select(zero, dx), math::scale(dy_part, exponent)]
    }
}

impl<T: Float> Gradients<T> for XLogBackward {
    #[inline(always)]
    fn second<S: Simd<T>>(self, [x, y, g]: [Lanes<T, S>; 3]) -> [Lanes<T, S>; 2] {
        let zero = x.all(T::zero());
        let nothing = x.eq(zero) | (g.eq(zero) & x.eq(x) & y.eq(y));
        let (w, _) = argument(self.one_plus, y);
        let ((g, g_exp), (x, x_exp), (w_part, w_exp)) =
            (math::split_exponent(g), math::split_exponent(x), math::split_exponent(w));
        let dy = w.lt(zero).select(x.all(T::nan()), g * x / w_part);
        [nothing.select(zero, dy), g_exp + x_exp - w_exp]
    }
}

/// Where a number is whole, and where it is odd; infinities are even, NaN counts as whole.
#[inline(always)]
fn parity<T: Float, S: Simd<T>>(y: Lanes<T, S>) -> (Mask<T, S>, Mask<T, S>) {
    let magnitude = y.abs();
    let units = y.all(power(T::FRACTION_BITS.cast_signed()));
    let is_whole = |x: Lanes<T, S>| ((x + units) - units).eq(x);
    let half = magnitude * y.all(power(-1));
    let whole = !magnitude.lt(units) | is_whole(magnitude);
    (whole, whole & half.lt(units) & !is_whole(half))
}

/// `(d + e) (hi + lo)` in two terms, 0 if a factor is.
#[inline(always)]
fn log_of_power<T: Float, S: Simd<T>>(
    (d, e): (Lanes<T, S>, Lanes<T, S>),
    (hi, lo): (Lanes<T, S>, Lanes<T, S>),
) -> (Lanes<T, S>, Lanes<T, S>) {
    let zero = d.all(T::zero());
    let is_zero = (d.eq(zero) & hi.eq(hi)) | (hi.eq(zero) & d.eq(d));
    let (product, error) = d.two_mul(hi);
    let (sum, rest) = product.fast_two_sum(d.mul_add(lo, e.mul_add(hi, error)));
    let is_finite = product.abs().lt(d.all(T::infinity()));
    let (high, low) = (is_finite.select(sum, product), is_finite.select(rest, zero));
    (is_zero.select(zero, high), is_zero.select(zero, low))
}

/// Where there is no finite real power.
#[inline(always)]
fn guarded<T: Float, S: Simd<T>>(eps: T, x: Lanes<T, S>, y: Lanes<T, S>, is_whole: Mask<T, S>) -> Mask<T, S> {
    let zero = x.all(T::zero());
    (x.abs().le(x.all(eps)) & y.lt(zero)) | (x.lt(zero) & !is_whole)
}

/// `x^y`, or a default.
#[derive(Clone, Copy, Debug)]
pub struct Power<T> {
    options: Safe<T>,
}

impl<T: Float> Formula<T, 2, 1> for Power<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, y]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let (zero, one, sign_bit) = (x.all(T::zero()), x.all(T::one()), x.all(-T::zero()));
        let (is_whole, is_odd) = parity(y);
        let guarded = guarded(self.options.eps, x, y, is_whole);
        guard.note(guarded);
        let base = (guarded | y.eq(zero)).select(one, x.abs());
        let exponent = x.eq(one).select(zero, y);
        // An infinite power of -1 is 1.
        let exponent = (base.eq(one) & y.eq(y)).select(zero, exponent);
        let (hi, lo) = log_of_power((exponent, zero), math::ln_parts(base, zero));
        let magnitude = math::exp_of_sum(hi, lo);
        let z = magnitude ^ (x & is_odd.select(sign_bit, zero));
        [guarded.select(x.all(self.options.default), z)]
    }
}

/// The gradients of [`Power`].
#[derive(Clone, Copy, Debug)]
pub struct PowerBackward<T> {
    eps: T,
}

impl<T: Float> Formula<T, 3, 2> for PowerBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, y, g]: [Lanes<T, S>; 3],
        _: [Lanes<T, S>; 2],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let (zero, one, sign_bit) = (x.all(T::zero()), x.all(T::one()), x.all(-T::zero()));
        let (is_whole, is_odd) = parity(y);
        let guarded = guarded(self.eps, x, y, is_whole);
        guard.note(guarded);
        let at_zero = x.eq(zero);
        let nothing = guarded | (g.eq(zero) & x.eq(x) & y.eq(y));
        let log = math::ln_parts((guarded | at_zero).select(one, x.abs()), zero);
        // A power of 0 outweighs infinite operands, but no upstream gradient that is not finite.
        let is_finite = g.abs().lt(x.all(T::infinity()));
        let flat = is_finite.select(zero, g * zero);
        let ((g_part, g_exp), (y_part, y_exp)) = (math::split_exponent(g), math::split_exponent(y));

        let (less_one, error) = y.two_sum(-one);
        let error = y.abs().lt(x.all(T::infinity())).select(error, zero);
        let (hi, lo) = log_of_power((less_one, error), log);
        let (m, n) = math::exp_parts(hi, lo);
        let dx = math::scale(g_part * y_part * m, g_exp + y_exp + n);
        let dx = (m.eq(zero) & is_finite).select(zero, dx) ^ (x & (is_whole & !is_odd).select(sign_bit, zero));
        let pole = (zero.lt(y) & y.lt(one)).select(g * x.all(T::infinity()), y.eq(y).select(flat, y));
        let dx = at_zero.select(y.eq(one).select(g, pole), dx);

        let [dy_part, exponent] = slope_of_exponent([x, y, g], log, log_of_power((y, zero), log), nothing);
        [(nothing | y.eq(zero)).select(zero, dx), math::scale(dy_part, exponent)]
    }
}

impl<T: Float> Gradients<T> for PowerBackward<T> {
    #[inline(always)]
    fn second<S: Simd<T>>(self, [x, y, g]: [Lanes<T, S>; 3]) -> [Lanes<T, S>; 2] {
        let (zero, one) = (x.all(T::zero()), x.all(T::one()));
        let guarded = guarded(self.eps, x, y, parity(y).0);
        let nothing = guarded | (g.eq(zero) & x.eq(x) & y.eq(y));
        let log = math::ln_parts((guarded | x.eq(zero)).select(one, x.abs()), zero);
        let (hi, lo) = log_of_power((y, zero), log);
        // What is so large that its size is not told apart any more is infinite.
        let hi = x.all(T::EXP_PARTS_LIMIT).lt(hi).select(x.all(T::infinity()), hi);
        slope_of_exponent([x, y, g], log, (hi, lo), nothing)
    }
}

/// `g x^y ln(x)` as a number and the exponent of its power of two.
#[inline(always)]
fn slope_of_exponent<T: Float, S: Simd<T>>(
    [x, y, g]: [Lanes<T, S>; 3],
    log: (Lanes<T, S>, Lanes<T, S>),
    (hi, lo): (Lanes<T, S>, Lanes<T, S>),
    nothing: Mask<T, S>,
) -> [Lanes<T, S>; 2] {
    let zero = x.all(T::zero());
    let ((g_part, g_exp), (m, n)) = (math::split_exponent(g), math::exp_parts(hi, lo));
    let is_finite = g.abs().lt(x.all(T::infinity()));
    let dy = (m.eq(zero) & is_finite).select(zero, g_part * m * log.0);
    let no_log = y.eq(y) & x.le(zero);
    [(nothing | no_log).select(zero, dy), g_exp + n]
}
