//! Reciprocal, square root and logarithm that are safe outside of their domains, and their gradients.

use crate::error::{Error, Result, check_len};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::math;
use crate::scaled::power;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply};

/// Options of the operations that guard an operand: [`safe_div_with`](crate::safe_div_with), [`safe_recip`],
/// [`safe_sqrt`], [`safe_rsqrt`], [`safe_ln`], [`safe_pow`](crate::safe_pow).
///
/// ```
/// use nanproof::{Safe, safe_div_with};
///
/// let mut q = [0.0_f32; 3];
/// let options = Safe { default: 1.0, eps: 1e-6 };
/// assert_eq!(safe_div_with(options, &[3.0, 3.0, 5.0], &[0.0, -1e-7, 2.0], &mut q)?, 2);
/// assert_eq!(q, [1.0, 1.0, 2.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Safe<T> {
    /// The result where the operand is guarded: 0 by default.
    pub default: T,
    /// How far from 0 an operand is guarded, inclusive: 0 by default. Finite, and not negative.
    pub eps: T,
}

impl<T: Float> Safe<T> {
    /// Refuses an `eps` out of range.
    pub(crate) fn check(self, operation: &'static str) -> Result<()> {
        if self.eps >= T::zero() && self.eps.is_finite() {
            return Ok(());
        }
        Err(Error::Argument { operation, argument: "eps", problem: "must be finite and not negative" })
    }
}

/// The reciprocal: `y = 1 / x` where `|x| > eps`, else the default. Returns how many elements were guarded.
///
/// Rounded correctly. `1 / Inf` is 0 with the sign of the infinity; NaN stays NaN.
///
/// Gradient: [`safe_recip_backward`].
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if `eps` is negative or not finite;
/// [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// assert_eq!(nanproof::safe_recip(nanproof::Safe::default(), &[4.0, 0.0, -0.5], &mut y)?, 1);
/// assert_eq!(y, [0.25, 0.0, -2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_recip<T: Float>(options: Safe<T>, x: &[T], y: &mut [T]) -> Result<usize> {
    forward("safe_recip", Function::Recip, options, x, y)
}

/// The gradient of [`safe_recip`]: `dx = -(dy / x) / x`, and 0 where `x` is guarded or `dy` is exactly 0. Returns how
/// many elements were guarded.
///
/// Within 1.5 ULP; `x` is not squared. Where `x` is guarded `dy` is not read.
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::safe_recip_backward(nanproof::Safe::default(), &[1e-30, 0.0, 2.0], &[1e-30, 1.0, 1.0], &mut dx)?;
/// assert_eq!(dx, [-1e30, 0.0, -0.25]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_recip_backward<T: Float>(options: Safe<T>, x: &[T], dy: &[T], dx: &mut [T]) -> Result<usize> {
    backward("safe_recip_backward", Function::Recip, options, x, dy, dx)
}

/// The square root: `y = sqrt(x)` where `x > eps`, else the default. Returns how many elements were guarded.
///
/// Rounded correctly. Guarded are negative operands, and 0 too, whose root is the default 0 and whose gradient is 0 and
/// not infinite. NaN stays NaN.
///
/// Gradient: [`safe_sqrt_backward`].
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut y = [0.0_f64; 3];
/// assert_eq!(nanproof::safe_sqrt(nanproof::Safe::default(), &[2.25, 0.0, -4.0], &mut y)?, 2);
/// assert_eq!(y, [1.5, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_sqrt<T: Float>(options: Safe<T>, x: &[T], y: &mut [T]) -> Result<usize> {
    forward("safe_sqrt", Function::Sqrt, options, x, y)
}

/// The gradient of [`safe_sqrt`]: `dx = dy / (2 sqrt(x))`, and 0 where `x` is guarded or `dy` is exactly 0. Returns how
/// many elements were guarded.
///
/// Within 1.5 ULP. Where `x` is guarded `dy` is not read.
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::safe_sqrt_backward(nanproof::Safe::default(), &[4.0, 0.0, -1.0], &[1.0; 3], &mut dx)?;
/// assert_eq!(dx, [0.25, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_sqrt_backward<T: Float>(options: Safe<T>, x: &[T], dy: &[T], dx: &mut [T]) -> Result<usize> {
    backward("safe_sqrt_backward", Function::Sqrt, options, x, dy, dx)
}

/// The reciprocal square root: `y = 1 / sqrt(x)` where `x > eps`, else the default. Returns how many elements were
/// guarded.
///
/// Within 1.5 ULP: no estimate of the processor is used. NaN stays NaN.
///
/// Gradient: [`safe_rsqrt_backward`].
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut y = [0.0_f64; 3];
/// assert_eq!(nanproof::safe_rsqrt(nanproof::Safe::default(), &[4.0, 0.0, -4.0], &mut y)?, 2);
/// assert_eq!(y, [0.5, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_rsqrt<T: Float>(options: Safe<T>, x: &[T], y: &mut [T]) -> Result<usize> {
    forward("safe_rsqrt", Function::Rsqrt, options, x, y)
}

/// The gradient of [`safe_rsqrt`]: `dx = -(dy / (2 sqrt(x))) / x`, and 0 where `x` is guarded or `dy` is exactly 0.
/// Returns how many elements were guarded.
///
/// Within 2.5 ULP. Where `x` is guarded `dy` is not read.
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::safe_rsqrt_backward(nanproof::Safe::default(), &[4.0, 0.0, -1.0], &[1.0; 3], &mut dx)?;
/// assert_eq!(dx, [-0.0625, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_rsqrt_backward<T: Float>(options: Safe<T>, x: &[T], dy: &[T], dx: &mut [T]) -> Result<usize> {
    backward("safe_rsqrt_backward", Function::Rsqrt, options, x, dy, dx)
}

/// The natural logarithm: `y = ln(x)` where `x > eps`, else the default. Returns how many elements were guarded.
///
/// Within 0.59 ULP. NaN stays NaN. Source: that of [`ln`](crate::math::ln).
///
/// Gradient: [`safe_ln_backward`].
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut y = [0.0_f64; 3];
/// let options = nanproof::Safe { default: -1.0, eps: 1e-300 };
/// assert_eq!(nanproof::safe_ln(options, &[2.0, 0.0, -4.0], &mut y)?, 2);
/// assert_eq!(y, [std::f64::consts::LN_2, -1.0, -1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_ln<T: Float>(options: Safe<T>, x: &[T], y: &mut [T]) -> Result<usize> {
    forward("safe_ln", Function::Ln, options, x, y)
}

/// The gradient of [`safe_ln`]: `dx = dy / x`, and 0 where `x` is guarded or `dy` is exactly 0. Returns how many elements
/// were guarded.
///
/// Rounded correctly. Where `x` is guarded `dy` is not read.
///
/// # Errors
/// As [`safe_recip`].
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::safe_ln_backward(nanproof::Safe::default(), &[4.0, 0.0, -1.0], &[1.0; 3], &mut dx)?;
/// assert_eq!(dx, [0.25, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_ln_backward<T: Float>(options: Safe<T>, x: &[T], dy: &[T], dx: &mut [T]) -> Result<usize> {
    backward("safe_ln_backward", Function::Ln, options, x, dy, dx)
}

/// The functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Recip,
    Sqrt,
    Rsqrt,
    Ln,
}

impl Function {
    /// What is compared with `eps`.
    fn is_guarded<T: Float>(self, eps: T, x: T) -> bool {
        if self == Self::Recip { x.abs() <= eps } else { x <= eps }
    }
}

fn forward<T: Float>(
    operation: &'static str,
    function: Function,
    options: Safe<T>,
    x: &[T],
    y: &mut [T],
) -> Result<usize> {
    options.check(operation)?;
    check_len(operation, "y", y.len(), x.len(), "the length of x")?;
    let seen = apply(Guarded { function, options }, [x], [&mut *y])?;
    let is_guarded = |x: T| function.is_guarded(options.eps, x);
    if !seen.finite {
        let not_read = |index, x| !matches!(index, Index::At(i) if !y[i].is_finite() && !is_guarded(x));
        let inputs = [
            Operand::slice("x", x).overlook(not_read),
            Operand::scalar("default", if seen.guarded > 0 { options.default } else { T::zero() }),
        ];
        diagnose(operation, inputs, [Operand::slice("y", y)], overflow_or_invalid)?;
    }
    Ok(seen.guarded)
}

fn backward<T: Float>(
    operation: &'static str,
    function: Function,
    options: Safe<T>,
    x: &[T],
    dy: &[T],
    dx: &mut [T],
) -> Result<usize> {
    options.check(operation)?;
    check_len(operation, "dy", dy.len(), x.len(), "the length of x")?;
    check_len(operation, "dx", dx.len(), x.len(), "the length of x")?;
    let seen = apply(GuardedBackward { function, eps: options.eps }, [x, dy], [&mut *dx])?;
    if !seen.finite {
        let not_read = |index, _| matches!(index, Index::At(i) if dx[i].is_finite());
        let inputs = [Operand::slice("x", x).overlook(not_read), Operand::slice("dy", dy).overlook(not_read)];
        diagnose(operation, inputs, [Operand::slice("dx", dx)], overflow_or_invalid)?;
    }
    Ok(seen.guarded)
}

/// Where an operand is guarded.
#[inline(always)]
fn guarded<T: Float, S: Simd<T>>(function: Function, eps: T, x: Lanes<T, S>) -> Mask<T, S> {
    let tested = if function == Function::Recip { x.abs() } else { x };
    tested.le(x.all(eps))
}

/// A function of one operand, or a default.
#[derive(Clone, Copy, Debug)]
pub struct Guarded<T> {
    function: Function,
    options: Safe<T>,
}

impl<T: Float> Formula<T, 1, 1> for Guarded<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x]: [Lanes<T, S>; 1],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let guarded = guarded(self.function, self.options.eps, x);
        guard.note(guarded);
        let one = x.all(T::one());
        let x = guarded.select(one, x);
        let y = match self.function {
            Function::Recip => one / x,
            Function::Sqrt => x.sqrt(),
            Function::Rsqrt => one / x.sqrt(),
            Function::Ln => math::ln::ln(x),
        };
        [guarded.select(x.all(self.options.default), y)]
    }
}

/// The gradient of a function of one operand.
#[derive(Clone, Copy, Debug)]
pub struct GuardedBackward<T> {
    function: Function,
    eps: T,
}

impl<T: Float> Formula<T, 2, 1> for GuardedBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, g]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let guarded = guarded(self.function, self.eps, x);
        guard.note(guarded);
        let (zero, one) = (x.all(T::zero()), x.all(T::one()));
        let nothing = guarded | (g.eq(zero) & x.eq(x));
        let x = guarded.select(one, x);
        // Two quotients shrink or grow together. Where they grow, a small g is taken up first, so that the first of them
        // is not subnormal, and the second divisor with it.
        let both_small = x.abs().lt(one) & g.abs().lt(one);
        let up = both_small.select(x.all(power(T::FRACTION_BITS.cast_signed() + 1)), one);
        let dx = match self.function {
            Function::Recip => -((g * up / x) / (x * up)),
            Function::Sqrt => {
                let root = x.sqrt();
                g / (root + root)
            }
            Function::Rsqrt => {
                let root = x.sqrt();
                -((g * up / (root + root)) / (x * up))
            }
            Function::Ln => g / x,
        };
        [nothing.select(zero, dx)]
    }
}
