//! Activations, forward and backward.
//!
//! Gradients are taken from the operand `x`, not from the result, which is rounded to its limit long before the gradient
//! is 0.

use crate::error::{Error, Result, check_len};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::math::Function;
use crate::sweep::{apply, map};

pub(crate) mod formulas;

use formulas::{Backward, Forward};

/// The rectified linear unit: `y = max(x, 0)`, exactly. NaN stays NaN; -0 gives +0.
///
/// Gradient: [`relu_backward`].
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::relu(&[-1.0, f32::NEG_INFINITY, 2.0], &mut y)?;
/// assert_eq!(y, [0.0, 0.0, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn relu<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("relu", Forward::Relu, x, y)
}

/// The gradient of [`relu`]: `dx = dy` where `x > 0`; 0 where `x <= 0`, and `dy` is not read there. A NaN in `x` gives
/// NaN.
///
/// At the kink the subgradient of least norm is taken, 0.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::relu_backward(&[-1.0, 0.0, 2.0], &[f32::NAN, 5.0, 5.0], &mut dx)?;
/// assert_eq!(dx, [0.0, 0.0, 5.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn relu_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("relu_backward", Backward::Relu, x, dy, dx)
}

/// The leaky rectified linear unit: `y = x` where `x > 0`, else `slope x`.
///
/// Rounded once. With a slope of 0 it is [`relu`], at `-Inf` too. NaN stays NaN.
///
/// Gradient: [`leaky_relu_backward`]. Source: A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier Nonlinearities Improve
/// Neural Network Acoustic Models", 2013.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if the slope is not finite; [`Error::NonFinite`] if a
/// result is not finite.
///
/// ```
/// let mut y = [0.0_f32; 2];
/// nanproof::leaky_relu(0.25, &[-1.0, 2.0], &mut y)?;
/// assert_eq!(y, [-0.25, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn leaky_relu<T: Float>(slope: T, x: &[T], y: &mut [T]) -> Result<()> {
    const NAME: &str = "leaky_relu";
    check_parameter(NAME, "slope", slope)?;
    forward(NAME, if slope == T::zero() { Forward::Relu } else { Forward::LeakyRelu(slope) }, x, y)
}

/// The gradient of [`leaky_relu`]: `dx = dy` where `x > 0`, `slope dy` where `x < 0`. A NaN in `x` gives NaN.
///
/// Rounded once. At the kink the subgradient of least norm is taken: the number nearest 0 between the slope and 1, times
/// `dy`. With a slope of 0 it is [`relu_backward`], which does not read `dy` where `x <= 0`.
///
/// # Errors
/// As [`leaky_relu`].
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::leaky_relu_backward(0.25, &[-1.0, 0.0, 2.0], &[4.0; 3], &mut dx)?;
/// assert_eq!(dx, [1.0, 1.0, 4.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn leaky_relu_backward<T: Float>(slope: T, x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    const NAME: &str = "leaky_relu_backward";
    check_parameter(NAME, "slope", slope)?;
    backward(NAME, if slope == T::zero() { Backward::Relu } else { Backward::LeakyRelu(slope) }, x, dy, dx)
}

/// The exponential linear unit: `y = x` where `x > 0`, else `alpha (e^x - 1)`.
///
/// Within 1.2 ULP. `-Inf` gives `-alpha`; NaN stays NaN. With an `alpha` of 0 it is [`relu`].
///
/// Gradient: [`elu_backward`]. Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network
/// Learning by Exponential Linear Units", 2016.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if `alpha` is not finite; [`Error::NonFinite`] if a result
/// is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::elu(1.0, &[f64::NEG_INFINITY, -1e-300, 2.0], &mut y)?;
/// assert_eq!(y, [-1.0, -1e-300, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn elu<T: Float>(alpha: T, x: &[T], y: &mut [T]) -> Result<()> {
    const NAME: &str = "elu";
    check_parameter(NAME, "alpha", alpha)?;
    forward(NAME, if alpha == T::zero() { Forward::Relu } else { Forward::Elu(alpha) }, x, y)
}

/// The gradient of [`elu`]: `dx = dy` where `x > 0`, `dy alpha e^x` where `x < 0`. A NaN in `x` gives NaN.
///
/// Within 2.5 ULP, also where the exponential alone underflows; `-Inf` gives 0. At 0, where the slope leaps from `alpha`
/// to 1, the subgradient of least norm is taken. With an `alpha` of 0 it is [`relu_backward`].
///
/// # Errors
/// As [`elu`], and if a result is `-Inf`.
///
/// ```
/// let mut dx = [0.0_f64; 3];
/// nanproof::elu_backward(1.0, &[f64::NEG_INFINITY, 0.0, 2.0], &[5.0; 3], &mut dx)?;
/// assert_eq!(dx, [0.0, 5.0, 5.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn elu_backward<T: Float>(alpha: T, x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    const NAME: &str = "elu_backward";
    check_parameter(NAME, "alpha", alpha)?;
    backward(NAME, if alpha == T::zero() { Backward::Relu } else { Backward::Elu(alpha) }, x, dy, dx)
}

/// The Gaussian error linear unit: `y = x P(x)`, `P` being the distribution function of the normal distribution.
///
/// The negative tail does not cancel, and is right where `P` alone underflows. `-Inf` gives 0; NaN stays NaN. Largest
/// error: see the table of [`math`](crate::math).
///
/// Gradient: [`gelu_backward`]. Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016; minimax
/// polynomials, that of the tail as a factor of the density.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f64; 2];
/// nanproof::gelu(&[-10.0, f64::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [-7.619853024160526e-23, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn gelu<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("gelu", Forward::Gelu, x, y)
}

/// The gradient of [`gelu`]: `dx = dy (P(x) + x p(x))`, `p` being the density of the normal distribution.
///
/// `-Inf` gives 0 and `+Inf` gives `dy`; a NaN in `x` gives NaN. Within 8 ULP; near its zero, where its terms cancel,
/// within 8 epsilon `|dy|`.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f64; 2];
/// nanproof::gelu_backward(&[f64::NEG_INFINITY, 0.0], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [0.0, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn gelu_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("gelu_backward", Backward::Gelu, x, dy, dx)
}

/// The Gaussian error linear unit in its approximation by a hyperbolic tangent: `y = x (1 + tanh(u)) / 2` with `u =
/// sqrt(2 / pi) (x + 0.044715 x^3)`.
///
/// Computed as `x / (1 + e^-2u)`: the negative tail does not cancel. `-Inf` gives 0; NaN stays NaN. Largest error: see
/// the table of [`math`](crate::math).
///
/// Gradient: [`gelu_tanh_backward`]. Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f64; 2];
/// nanproof::gelu_tanh(&[-6.0, f64::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [-8.439646700762297e-11, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn gelu_tanh<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("gelu_tanh", Forward::GeluTanh, x, y)
}

/// The gradient of [`gelu_tanh`]: `dx = dy (s + x s (1 - s) 2u')` with `s = 1 / (1 + e^-2u)`.
///
/// `-Inf` gives 0 and `+Inf` gives `dy`; a NaN in `x` gives NaN. Within 8 ULP; near its zero, where its terms cancel,
/// within 8 epsilon `|dy|`.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f64; 2];
/// nanproof::gelu_tanh_backward(&[f64::NEG_INFINITY, 0.0], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [0.0, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn gelu_tanh_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("gelu_tanh_backward", Backward::GeluTanh, x, dy, dx)
}

/// The sigmoid linear unit, or swish: `y = x / (1 + e^-x)`.
///
/// Right also where the sigmoid alone underflows. `-Inf` gives 0; NaN stays NaN. Largest error: see the table of
/// [`math`](crate::math).
///
/// Gradient: [`silu_backward`]. Source: S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-Weighted Linear Units", 2017.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f64; 2];
/// nanproof::silu(&[-709.0, f64::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [-8.62697552192007e-306, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn silu<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("silu", Forward::Silu, x, y)
}

/// The gradient of [`silu`]: `dx = dy (s + x s (1 - s))` with `s = 1 / (1 + e^-x)`.
///
/// `-Inf` gives 0 and `+Inf` gives `dy`; a NaN in `x` gives NaN. Within 8 ULP; near its zero, where its terms cancel,
/// within 8 epsilon `|dy|`.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f64; 2];
/// nanproof::silu_backward(&[f64::NEG_INFINITY, 0.0], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [0.0, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn silu_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("silu_backward", Backward::Silu, x, dy, dx)
}

/// `y = x tanh(ln(1 + e^x))`.
///
/// `-Inf` gives 0; NaN stays NaN. Largest error: see the table of [`math`](crate::math).
///
/// Gradient: [`mish_backward`]. Source: D. Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019;
/// rational in `e^-|x|`.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f32; 2];
/// nanproof::mish(&[30.0, f32::NEG_INFINITY], &mut y)?;
/// assert_eq!(y, [30.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn mish<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("mish", Forward::Mish, x, y)
}

/// The gradient of [`mish`]: `dx = dy (s + x (1 - s^2) / (1 + e^-x))` with `s = tanh(ln(1 + e^x))`.
///
/// `-Inf` gives 0 and `+Inf` gives `dy`; a NaN in `x` gives NaN. Within 8 ULP; near its zero, where its terms cancel,
/// within 8 epsilon `|dy|`.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 2];
/// nanproof::mish_backward(&[f32::NEG_INFINITY, 30.0], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [0.0, 3.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn mish_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("mish_backward", Backward::Mish, x, dy, dx)
}

/// The softplus: `y = ln(1 + e^x)`.
///
/// `max(x, 0) + ln(1 + e^-|x|)` in two terms: no overflow, and no cancellation. `-Inf` gives 0; NaN stays NaN. Largest
/// error: see the table of [`math`](crate::math).
///
/// Gradient: [`softplus_backward`]. Source: the exponential and the logarithm, both in two terms.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::softplus(&[0.0, 1000.0, -700.0], &mut y)?;
/// assert_eq!(y, [std::f64::consts::LN_2, 1000.0, 9.85967654375977e-305]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softplus<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Softplus.of(x, y)
}

/// The gradient of [`softplus`]: `dx = dy / (1 + e^-x)`.
///
/// `-Inf` gives 0 and `+Inf` gives `dy`; a NaN in `x` gives NaN. Within 4 ULP.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 2];
/// nanproof::softplus_backward(&[0.0, 100.0], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [1.5, 3.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softplus_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("softplus_backward", Backward::Softplus, x, dy, dx)
}

/// The logarithm of the sigmoid: `y = -ln(1 + e^-x)`.
///
/// The negative of [`softplus`] of `-x`. `+Inf` gives 0; NaN stays NaN. Largest error: see the table of
/// [`math`](crate::math).
///
/// Gradient: [`log_sigmoid_backward`]. Source: the exponential and the logarithm, both in two terms.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or -Inf.
///
/// ```
/// let mut y = [0.0_f64; 2];
/// nanproof::log_sigmoid(&[0.0, -1000.0], &mut y)?;
/// assert_eq!(y, [-std::f64::consts::LN_2, -1000.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_sigmoid<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::LogSigmoid.of(x, y)
}

/// The gradient of [`log_sigmoid`]: `dx = dy / (1 + e^x)`.
///
/// `-Inf` gives `dy` and `+Inf` gives 0; a NaN in `x` gives NaN. Within 4 ULP.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 2];
/// nanproof::log_sigmoid_backward(&[0.0, -100.0], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [1.5, 3.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_sigmoid_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("log_sigmoid_backward", Backward::LogSigmoid, x, dy, dx)
}

/// The hyperbolic tangent: `y = tanh(x)`.
///
/// The sign of a zero is kept; infinities give ±1; NaN stays NaN. Largest error: see the table of [`math`](crate::math).
///
/// Gradient: [`tanh_backward`]. Source: P. T. P. Tang, "Table-lookup algorithms for elementary functions and their
/// error analysis", ARITH 10, 1991, for `f32`; for `f64` `expm1` in two terms, the quotient corrected once.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::tanh(&[0.5, 1e-300, f64::INFINITY], &mut y)?;
/// assert_eq!(y, [0.46211715726000973, 1e-300, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn tanh<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Tanh.of(x, y)
}

/// The gradient of [`tanh`]: `dx = dy / cosh(x)^2`.
///
/// Infinities give 0, but NaN if `dy` is infinite too; a NaN in `x` gives NaN. Within 4 ULP.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f64; 2];
/// nanproof::tanh_backward(&[0.0, f64::INFINITY], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [3.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn tanh_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("tanh_backward", Backward::Tanh, x, dy, dx)
}

/// The logistic sigmoid: `y = 1 / (1 + e^-x)`.
///
/// `-Inf` gives 0 and `+Inf` gives 1; subnormal results are kept; NaN stays NaN. Largest error: see the table of
/// [`math`](crate::math).
///
/// Gradient: [`sigmoid_backward`]. Source: `1 + e^-x` in two terms, the quotient corrected once.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::sigmoid(&[0.0, -1000.0, 1000.0], &mut y)?;
/// assert_eq!(y, [0.5, 0.0, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn sigmoid<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    Function::Sigmoid.of(x, y)
}

/// The gradient of [`sigmoid`]: `dx = dy e^-|x| / (1 + e^-|x|)^2`.
///
/// Infinities give 0, but NaN if `dy` is infinite too; a NaN in `x` gives NaN. Within 4 ULP.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f64; 2];
/// nanproof::sigmoid_backward(&[0.0, f64::INFINITY], &[3.0; 2], &mut dx)?;
/// assert_eq!(dx, [0.75, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn sigmoid_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("sigmoid_backward", Backward::Sigmoid, x, dy, dx)
}

/// The piecewise linear sigmoid: `y = (x + 3) / 6` from 0 to 1.
///
/// Within 1 ULP. `-Inf` gives 0 and `+Inf` gives 1; NaN stays NaN.
///
/// Gradient: [`hard_sigmoid_backward`]. Source: M. Courbariaux, Y. Bengio, J.-P. David, "`BinaryConnect`", 2015, with the
/// slope of A. Howard et al., "Searching for `MobileNetV3`", 2019.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::hard_sigmoid(&[-4.0, 0.0, 3.0], &mut y)?;
/// assert_eq!(y, [0.0, 0.5, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn hard_sigmoid<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("hard_sigmoid", Forward::HardSigmoid, x, y)
}

/// The gradient of [`hard_sigmoid`]: `dx = dy / 6` where `-3 < x < 3`, else 0, and `dy` is not read there.
///
/// Rounded once; a NaN in `x` gives NaN.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::hard_sigmoid_backward(&[-4.0, 0.0, 3.0], &[12.0; 3], &mut dx)?;
/// assert_eq!(dx, [0.0, 2.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn hard_sigmoid_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("hard_sigmoid_backward", Backward::HardSigmoid, x, dy, dx)
}

/// The piecewise quadratic swish: `y = x hard_sigmoid(x)`.
///
/// Within 2 ULP. `-Inf` gives 0; NaN stays NaN.
///
/// Gradient: [`hard_swish_backward`]. Source: A. Howard et al., "Searching for `MobileNetV3`", 2019.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::hard_swish(&[f32::NEG_INFINITY, 1.5, 4.0], &mut y)?;
/// assert_eq!(y, [0.0, 1.125, 4.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn hard_swish<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("hard_swish", Forward::HardSwish, x, y)
}

/// The gradient of [`hard_swish`]: `dx = dy (2x + 3) / 6` where `-3 < x < 3`, `dy` where `x >= 3`; 0 where `x <= -3`,
/// and `dy` is not read there.
///
/// Three roundings; a NaN in `x` gives NaN.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::hard_swish_backward(&[-4.0, 0.0, 3.0], &[12.0; 3], &mut dx)?;
/// assert_eq!(dx, [0.0, 6.0, 12.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn hard_swish_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("hard_swish_backward", Backward::HardSwish, x, dy, dx)
}

/// The piecewise linear hyperbolic tangent: `y = x` from -1 to 1.
///
/// Exact. NaN stays NaN.
///
/// Gradient: [`hard_tanh_backward`]. Source: R. Collobert, "Large Scale Machine Learning", 2004.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is NaN.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::hard_tanh(&[f32::NEG_INFINITY, 0.25, 4.0], &mut y)?;
/// assert_eq!(y, [-1.0, 0.25, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn hard_tanh<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    forward("hard_tanh", Forward::HardTanh, x, y)
}

/// The gradient of [`hard_tanh`]: `dx = dy` where `-1 < x < 1`, else 0, and `dy` is not read there.
///
/// Exact; a NaN in `x` gives NaN.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::hard_tanh_backward(&[-4.0, 0.0, 1.0], &[12.0; 3], &mut dx)?;
/// assert_eq!(dx, [0.0, 12.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn hard_tanh_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    backward("hard_tanh_backward", Backward::HardTanh, x, dy, dx)
}

/// Refuses a parameter that is not finite.
fn check_parameter<T: Float>(operation: &'static str, argument: &'static str, value: T) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::Argument { operation, argument, problem: "must be finite" }) }
}

fn forward<T: Float>(operation: &'static str, formula: Forward<T>, x: &[T], y: &mut [T]) -> Result<()> {
    check_len(operation, "y", y.len(), x.len(), "the length of x")?;
    if map(formula, Some(x), y)? {
        return Ok(());
    }
    let harmless = |index, _| matches!(index, Index::At(i) if y[i].is_finite());
    diagnose(operation, [Operand::slice("x", x).overlook(harmless)], [Operand::slice("y", y)], overflow_or_invalid)
}

fn backward<T: Float>(operation: &'static str, formula: Backward<T>, x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    check_len(operation, "dy", dy.len(), x.len(), "the length of x")?;
    check_len(operation, "dx", dx.len(), x.len(), "the length of x")?;
    if apply(formula, [x, dy], [&mut *dx])?.finite {
        return Ok(());
    }
    let harmless = |index, _| matches!(index, Index::At(i) if dx[i].is_finite());
    let inputs = [Operand::slice("x", x).overlook(|_, x| !x.is_nan()), Operand::slice("dy", dy).overlook(harmless)];
    diagnose(operation, inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}
