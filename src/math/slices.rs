//! The vector functions of slices.

use crate::error::{Result, check_len};
use crate::finite::{Class, Index, Operand, Origin, diagnose};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, map};

/// The exponential: `y = e^x`.
///
/// `e^-Inf` is 0, subnormal results are rounded once. Gradient: `dx = dy y`.
///
/// Largest error: see the table of [`math`](crate::math). Source: W. J. Cody, W. Waite, "Software Manual for the Elementary
/// Functions", 1980.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is NaN or infinite, from 88.72284 on in `f32`, above 709.782712893384 in `f64`.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::math::exp(&[1.0, -745.0, f64::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [std::f64::consts::E, 5e-324, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn exp<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Exp.of(x, y)
}

/// The power of two: `y = 2^x`, exact for whole numbers.
///
/// `2^-Inf` is 0, subnormal results are rounded once. Gradient: `dx = dy y ln 2`.
///
/// Largest error: see the table of [`math`](crate::math). Source: as [`exp`], with an exact reduction.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is NaN or infinite, from 128 on in `f32`, 1024 in `f64`.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::math::exp2(&[0.5, 10.0, -149.0], &mut y)?;
/// assert_eq!(y, [std::f32::consts::SQRT_2, 1024.0, 1e-45]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn exp2<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Exp2.of(x, y)
}

/// The exponential less 1, without cancellation: `y = e^x - 1`.
///
/// Tiny numbers and zeros give themselves, `-Inf` gives -1. Gradient: `dx = dy (y + 1)`.
///
/// Largest error: see the table of [`math`](crate::math). Source: as [`exp`], with the subtraction in two terms.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is NaN or infinite, from where [`exp`] is.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::math::exp_m1(&[1e-300, -0.0, f64::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [1e-300, -0.0, -1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn exp_m1<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::ExpM1.of(x, y)
}

/// The natural logarithm: `y = ln x`.
///
/// Subnormal numbers included. Gradient: `dx = dy / x`, see [`safe_ln_backward`](crate::safe_ln_backward).
///
/// Largest error: see the table of [`math`](crate::math). Source: W. J. Cody, W. Waite, "Software
/// Manual for the Elementary Functions", 1980.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is not finite: a zero is a pole and gives `-Inf`, a negative number gives NaN, `+Inf` itself.
/// [`safe_ln`](crate::safe_ln) guards its operand.
///
/// ```
/// use nanproof::{Error, Origin, math};
///
/// let mut y = [0.0_f64; 2];
/// math::ln(&[1.0, 2.0], &mut y)?;
/// assert_eq!(y, [0.0, std::f64::consts::LN_2]);
/// let Err(Error::NonFinite(report)) = math::ln(&[1.0, 0.0], &mut y) else { panic!("a pole") };
/// assert_eq!(report.origin, Origin::DivisionByZero);
/// # Ok::<(), Error>(())
/// ```
pub fn ln<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Ln.of(x, y)
}

/// The logarithm of `1 + x`, without the rounding of the sum: `y = ln(1 + x)`.
///
/// Tiny numbers and zeros give themselves. Gradient: `dx = dy / (1 + x)`.
///
/// Largest error: see the table of [`math`](crate::math). Source: W. Kahan's `log1p`, with a polynomial.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is not finite: -1 is a pole and gives `-Inf`, a lesser number gives NaN, `+Inf` itself.
///
/// ```
/// let mut y = [0.0_f32; 2];
/// nanproof::math::ln_1p(&[1.0, 1e-30], &mut y)?;
/// assert_eq!(y, [std::f32::consts::LN_2, 1e-30]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn ln_1p<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Ln1p.of(x, y)
}

/// The logarithm to base 2: `y = log2 x`, exact for powers of two.
///
/// Subnormal numbers included. Gradient: `dx = dy / (x ln 2)`.
///
/// Largest error: see the table of [`math`](crate::math). Source: that of [`ln`], with `1 / ln 2` in two terms.
///
/// # Errors
/// As [`ln`].
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::math::log2(&[8.0, 10.0, 1e-45], &mut y)?;
/// assert_eq!(y, [3.0, std::f32::consts::LOG2_10, -149.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log2<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Log2.of(x, y)
}

/// The error function: `y = erf(x)`, `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`.
///
/// The sign of a zero is kept; infinities give ±1. Gradient: `dx = dy 2 / sqrt(pi) e^(-x^2)`.
///
/// Largest error: see the table of [`math`](crate::math). Source: a minimax polynomial below 0.84; above it 1 less a
/// power of 2 whose exponent is one.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is NaN.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::math::erf(&[0.5, -1e-300, f64::INFINITY], &mut y)?;
/// assert_eq!(y, [0.5204998778130465, -1.1283791670955126e-300, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn erf<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Erf.of(x, y)
}

/// The complement of the error function, without cancellation: `y = 1 - erf(x)`.
///
/// `-Inf` gives 2, `+Inf` gives 0; subnormal results are kept. Gradient: `dx = -dy 2 / sqrt(pi) e^(-x^2)`.
///
/// Largest error: see the table of [`math`](crate::math). Source: M. M. Shepherd, J. G. Laframboise, Mathematics of
/// Computation 36, 1981, with another weight and in arithmetic of two terms.
///
/// # Errors
/// As [`erf`].
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::math::erfc(&[0.0, 10.0, f64::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [1.0, 2.088487583762545e-45, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn erfc<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Erfc.of(x, y)
}

/// The square root: `y = sqrt(x)`, rounded correctly.
///
/// The sign of a zero is kept. Gradient: `dx = dy / (2 y)`, see [`safe_sqrt_backward`](crate::safe_sqrt_backward).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a result
/// is not finite: a negative number gives NaN, `+Inf` itself. [`safe_sqrt`](crate::safe_sqrt) guards its operand.
///
/// ```
/// let mut y = [0.0_f32; 2];
/// nanproof::math::sqrt(&[6.25, -0.0], &mut y)?;
/// assert_eq!(y, [2.5, -0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn sqrt<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Sqrt.of(x, y)
}

/// A function in place: `x = f(x)`, with the bits of the function of that name.
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) where the function of that name reports it, and then `x` is left as it
/// was.
///
/// ```
/// use nanproof::math::{self, Function};
///
/// let mut x = [0.0_f32, 1.0, 100.0];
/// assert!(math::in_place(Function::Exp, &mut x).is_err());
/// math::in_place(Function::Exp, &mut x[..2])?;
/// assert_eq!(x, [1.0, std::f32::consts::E, 100.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn in_place<T: Float>(function: Function, x: &mut [T]) -> Result<()> {
    let [least, greatest] = function.finite_on::<T>();
    // No early end: the compiler makes it a loop over vectors.
    if x.iter().fold(true, |all, x| all & (least <= *x) & (*x <= greatest)) {
        map(function, None, x).map(drop)
    } else {
        function.of(x, &mut x.to_vec())
    }
}

/// The name of a function, for [`in_place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// [`exp`].
    Exp,
    /// [`exp2`].
    Exp2,
    /// [`exp_m1`].
    ExpM1,
    /// [`ln`].
    Ln,
    /// [`ln_1p`].
    Ln1p,
    /// [`log2`].
    Log2,
    /// [`tanh`](crate::tanh).
    Tanh,
    /// [`sigmoid`](crate::sigmoid).
    Sigmoid,
    /// [`log_sigmoid`](crate::log_sigmoid).
    LogSigmoid,
    /// [`softplus`](crate::softplus).
    Softplus,
    /// [`erf`].
    Erf,
    /// [`erfc`].
    Erfc,
    /// [`sqrt`].
    Sqrt,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Exp => "exp",
            Self::Exp2 => "exp2",
            Self::ExpM1 => "exp_m1",
            Self::Ln => "ln",
            Self::Ln1p => "ln_1p",
            Self::Log2 => "log2",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::LogSigmoid => "log_sigmoid",
            Self::Softplus => "softplus",
            Self::Erf => "erf",
            Self::Erfc => "erfc",
            Self::Sqrt => "sqrt",
        }
    }

    /// The operands, from the first to the second, whose results are finite.
    fn finite_on<T: Float>(self) -> [T; 2] {
        let (zero, max, infinity) = (T::zero(), T::max_value(), T::infinity());
        match self {
            Self::Exp | Self::ExpM1 => [-infinity, T::EXP_FINITE_TO],
            Self::Exp2 => [-infinity, T::EXP2_FINITE_TO],
            Self::Ln | Self::Log2 => [T::from_bits(1), max],
            Self::Ln1p => [T::epsilon() / (T::one() + T::one()) - T::one(), max],
            Self::Tanh | Self::Sigmoid | Self::Erf | Self::Erfc => [-infinity, infinity],
            Self::LogSigmoid => [-max, infinity],
            Self::Softplus => [-infinity, max],
            Self::Sqrt => [zero, max],
        }
    }

    /// Applies it.
    pub(crate) fn of<T: Float>(self, x: &[T], y: &mut [T]) -> Result<()> {
        check_len(self.name(), "y", y.len(), x.len(), "the length of x")?;
        if map(self, Some(x), y)? {
            return Ok(());
        }
        let harmless = |index, _| matches!(index, Index::At(i) if y[i].is_finite());
        diagnose(self.name(), [Operand::slice("x", x).overlook(harmless)], [Operand::slice("y", y)], |_, class| {
            match class {
                Class::Nan => Origin::Invalid,
                Class::PosInf => Origin::Overflow,
                Class::NegInf => Origin::DivisionByZero, // of the logarithms, and of nothing else
            }
        })
    }
}

impl<T: Float> Formula<T, 0, 1> for Function {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, _: [Lanes<T, S>; 0], [x]: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        [match self {
            Self::Exp => super::exp::exp(x),
            Self::Exp2 => super::exp2::exp2(x),
            Self::ExpM1 => super::exp_m1::exp_m1(x),
            Self::Ln => super::ln::ln(x),
            Self::Ln1p => super::ln_1p::ln_1p(x),
            Self::Log2 => super::log2::log2(x),
            Self::Tanh => super::tanh::tanh(x),
            Self::Sigmoid => super::sigmoid::sigmoid(x),
            Self::LogSigmoid => super::softplus::log_sigmoid(x),
            Self::Softplus => super::softplus::softplus(x),
            Self::Erf => super::erf::erf(x),
            Self::Erfc => super::erf::erfc(x),
            Self::Sqrt => x.sqrt(),
        }]
    }
}
