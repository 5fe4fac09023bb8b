//! Normalisation of the rows of a matrix, the cosine of the angle between rows, and their gradients.

use alloc::borrow::Cow;
use alloc::vec;

use crate::column_sums::ColumnSums;
use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::launch;
use crate::reduce::MaxAbs;
use crate::row_gradient::{GradientOf, RowGradient};
use crate::row_map::{RowFunction, RowMap, map_rows};
use crate::rows::apply;
use crate::scaled::{ldexp, narrow, power, scaling_exponent};
use crate::unit::Unit;
use crate::view::{MatMut, MatRef};

/// Options of [`layer_norm`].
///
/// ```
/// assert_eq!(nanproof::LayerNorm::<f32>::default().eps, 1e-5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm<T> {
    /// What is added to the variance; 1e-5 by default. 0, or positive and normal.
    pub eps: T,
}

impl<T: Float> Default for LayerNorm<T> {
    fn default() -> Self {
        Self { eps: usual_eps() }
    }
}

/// Options of [`rms_norm`].
///
/// ```
/// assert_eq!(nanproof::RmsNorm::<f64>::default().eps, 1e-5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsNorm<T> {
    /// What is added to the mean square; 1e-5 by default. 0, or positive and normal.
    pub eps: T,
}

impl<T: Float> Default for RmsNorm<T> {
    fn default() -> Self {
        Self { eps: usual_eps() }
    }
}

fn usual_eps<T: Float>() -> T {
    T::from(1e-5).unwrap_or_else(T::epsilon)
}

/// Layer normalisation of each row: `y = weight (x - mean) / sqrt(variance + eps) + bias`, with the variance over `n`, the
/// number of columns.
///
/// `weight` and `bias` hold a number for each column; without them they are 1 and 0. Without them the result is within 2
/// ULP of the true value for rows up to 2^20 long, with them product and sum are rounded once more. (Where `x` is close to
/// the mean, also `(n + 1024) 2^-57 max |x|` over the divisor in `f32`, `n^2 2^-106 max |x|` in `f64`.) Neither the variance nor
/// the divisor needs to be representable: a row times a power of two gives the same bits if `eps` is 0, and huge rows lose
/// nothing. A row of equal elements gives the bias. Source: Ba, Kiros and Hinton, "Layer normalization", 2016.
///
/// Gradient: [`layer_norm_backward`].
///
/// # Errors
/// [`Error::Argument`] if `eps` is negative, not finite, or subnormal; [`Error::Shape`] if the shapes do not fit;
/// [`Error::NonFinite`] if an element of `x` is not finite or a result is not.
///
/// ```
/// use nanproof::{LayerNorm, MatMut, MatRef, layer_norm};
///
/// let (x, mut y) = ([1e20_f32, 3e20, 7.0, 7.0], [0.0; 4]);
/// let x = MatRef::new(&x, 2, 2)?;
/// layer_norm(LayerNorm::default(), x, Some(&[1.0, 10.0]), Some(&[0.5, 0.0]), MatMut::new(&mut y, 2, 2)?)?;
/// assert_eq!(y, [-0.5, 10.0, 0.5, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn layer_norm<T: Float>(
    options: LayerNorm<T>,
    x: MatRef<'_, T>,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    y: MatMut<'_, T>,
) -> Result<()> {
    check_eps("layer_norm", options.eps)?;
    forward("layer_norm", Unit::Deviation(options.eps), x, [weight, bias], y)
}

/// Where [`layer_norm_backward`] writes.
#[derive(Debug)]
pub struct LayerNormGradients<'a, T> {
    /// The gradient by the input, of its shape.
    pub dx: MatMut<'a, T>,
    /// The gradient by the weights, if it is wanted.
    pub dw: Option<&'a mut [T]>,
    /// The gradient by the bias, if it is wanted.
    pub db: Option<&'a mut [T]>,
}

/// The gradients of [`layer_norm`]: with `z = (x - mean) rate`, `rate = 1 / sqrt(variance + eps)` and `g = weight dy`,
/// `dx = rate (g - mean(g) - z mean(g z))` in each row, `dw = sum(dy z)` and `db = sum(dy)` over the rows.
///
/// Nothing but `x` is needed of the forward pass: mean and rate are computed again from the row, which is at hand, with
/// more digits than could have been stored. The error is at most `8 u rate (|g| + |mean(g)| + |z mean(g z)|)`,
/// `3 u sum(|dy z|)` and `u |db|` with `u = 2^-24` or `2^-53`. To that of `dx` comes what the means lose, in rows `n` long
/// at most `(n + 64) 2^-53` in `f32` and `n^2 2^-106` in `f64`, times `rate (mean(|g|) + |z| mean(|g z|))`; to that of `dw`
/// what `z` is off by close to the mean, as in [`layer_norm`], times `|dy|`; and to that of `db` over `m` rows
/// `m^2 u^2 sum(|dy|)`. The sums of rows are added in an order that depends on their number alone. A row of equal elements
/// with `eps = 0` has gradient 0, for which its `dy` is not read.
///
/// # Errors
/// As [`layer_norm`]; [`Error::Shape`] also if a gradient does not fit.
///
/// ```
/// use nanproof::{LayerNorm, LayerNormGradients, MatMut, MatRef, layer_norm_backward};
///
/// let (x, dy) = ([1.0_f32, 3.0, 5.0, 7.0], [1.0; 4]);
/// let (mut dx, mut dw, mut db) = ([0.5; 4], [0.0; 2], [0.0; 2]);
/// let gradients = LayerNormGradients { dx: MatMut::new(&mut dx, 2, 2)?, dw: Some(&mut dw), db: Some(&mut db) };
/// let (x, dy) = (MatRef::new(&x, 2, 2)?, MatRef::new(&dy, 2, 2)?);
/// layer_norm_backward(LayerNorm { eps: 0.0 }, x, None, dy, gradients)?;
/// assert_eq!((dx, dw, db), ([0.0; 4], [-2.0, 2.0], [2.0, 2.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn layer_norm_backward<T: Float>(
    options: LayerNorm<T>,
    x: MatRef<'_, T>,
    weight: Option<&[T]>,
    dy: MatRef<'_, T>,
    gradients: LayerNormGradients<'_, T>,
) -> Result<()> {
    check_eps("layer_norm_backward", options.eps)?;
    backward("layer_norm_backward", Unit::Deviation(options.eps), x, weight, dy, gradients)
}

/// Normalisation of each row by its root mean square: `y = weight x / sqrt(mean(x^2) + eps)`.
///
/// `weight` holds a number for each column; without it they are 1. Without it the result is within 1.5 ULP of the true
/// value for rows up to 2^20 long, with it the product is rounded once more. Neither the mean square nor the divisor needs
/// to be representable: a row times a power of two gives the same bits if `eps` is 0, and huge rows lose nothing. A row of
/// zeros gives zeros. Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
///
/// Gradient: [`rms_norm_backward`].
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use nanproof::{MatMut, MatRef, RmsNorm, rms_norm};
///
/// let (x, mut y) = ([1e25_f32, -1e25, 0.0, 0.0], [0.0; 4]);
/// rms_norm(RmsNorm::default(), MatRef::new(&x, 2, 2)?, Some(&[1.0, 2.0]), MatMut::new(&mut y, 2, 2)?)?;
/// assert_eq!(y, [1.0, -2.0, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn rms_norm<T: Float>(options: RmsNorm<T>, x: MatRef<'_, T>, weight: Option<&[T]>, y: MatMut<'_, T>) -> Result<()> {
    check_eps("rms_norm", options.eps)?;
    forward("rms_norm", Unit::RootMeanSquare(options.eps), x, [weight, None], y)
}

/// The gradients of [`rms_norm`]: with `z = x rate`, `rate = 1 / sqrt(mean(x^2) + eps)` and `g = weight dy`,
/// `dx = rate (g - z mean(g z))` in each row, and `dw = sum(dy z)` over the rows, if it is wanted.
///
/// What is needed again and the errors are as those of [`layer_norm_backward`]. A row of zeros with `eps = 0` has gradient
/// 0, for which its `dy` is not read.
///
/// # Errors
/// As [`layer_norm_backward`].
///
/// ```
/// use nanproof::{MatMut, MatRef, RmsNorm, rms_norm_backward};
///
/// let (x, dy, mut dx, mut dw) = ([2.0_f32, 2.0], [1.0, 0.0], [0.0; 2], [0.0; 2]);
/// let (x, dy) = (MatRef::new(&x, 1, 2)?, MatRef::new(&dy, 1, 2)?);
/// rms_norm_backward(RmsNorm { eps: 0.0 }, x, None, dy, MatMut::new(&mut dx, 1, 2)?, Some(&mut dw))?;
/// assert_eq!((dx, dw), ([0.25, -0.25], [1.0, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn rms_norm_backward<T: Float>(
    options: RmsNorm<T>,
    x: MatRef<'_, T>,
    weight: Option<&[T]>,
    dy: MatRef<'_, T>,
    dx: MatMut<'_, T>,
    dw: Option<&mut [T]>,
) -> Result<()> {
    const NAME: &str = "rms_norm_backward";
    check_eps(NAME, options.eps)?;
    backward(NAME, Unit::RootMeanSquare(options.eps), x, weight, dy, LayerNormGradients { dx, dw, db: None })
}

/// Each row over its L2 norm: `y = x / max(|x|, eps)`. A row of zeros gives zeros.
///
/// Within 1.5 ULP of the true value for rows up to 2^20 long. Nothing over- or underflows on the way.
///
/// Gradient: [`normalize_backward`].
///
/// # Errors
/// [`Error::Argument`] if `eps` is negative, not finite, or subnormal: it must survive in the type; [`Error::Shape`] if
/// the shapes differ; [`Error::NonFinite`] if an element of `x` is not finite or a result is not.
///
/// ```
/// use nanproof::{MatMut, MatRef, normalize};
///
/// let mut y = [0.0_f32; 4];
/// normalize(0.0, MatRef::new(&[0.0, -4e30, 0.0, 0.0], 2, 2)?, MatMut::new(&mut y, 2, 2)?)?;
/// assert_eq!(y, [0.0, -1.0, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn normalize<T: Float>(eps: T, x: MatRef<'_, T>, y: MatMut<'_, T>) -> Result<()> {
    check_eps("normalize", eps)?;
    forward("normalize", Unit::Norm(eps), x, [None; 2], y)
}

/// The gradient of [`normalize`]: `dx = (dy - y sum(y dy)) / |x|` in rows whose norm is above `eps`, `dy / eps` in others,
/// and 0 in rows of zeros without `eps`, where `dy` is not read.
///
/// The error is at most `8 u (|dy| + |y sum(y dy)|) / |x|` with `u = 2^-24` or `2^-53`, and what the sum loses, in rows `n`
/// long at most `(n + 64) 2^-53` in `f32` and `n^2 2^-106` in `f64`, times `|y| sum(|y dy|) / |x|`. Nothing over- or
/// underflows on the way.
///
/// # Errors
/// As [`normalize`].
///
/// ```
/// use nanproof::{MatMut, MatRef, normalize_backward};
///
/// let mut dx = [0.0_f32; 4];
/// let (x, dy) = ([0.0, 2.0, 0.0, 0.0], [1.0; 4]);
/// normalize_backward(0.0, MatRef::new(&x, 2, 2)?, MatRef::new(&dy, 2, 2)?, MatMut::new(&mut dx, 2, 2)?)?;
/// assert_eq!(dx, [0.5, 0.0, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn normalize_backward<T: Float>(eps: T, x: MatRef<'_, T>, dy: MatRef<'_, T>, dx: MatMut<'_, T>) -> Result<()> {
    check_eps("normalize_backward", eps)?;
    backward("normalize_backward", Unit::Norm(eps), x, None, dy, LayerNormGradients { dx, dw: None, db: None })
}

/// The cosine of the angle between each row of `a` and the same row of `b`: `y = sum(a b) / (|a| |b|)`, and 0 if a row is
/// all zeros.
///
/// Within 0.51 ULP of the true value, and what the sum is wrong by: at most `n 2^-53` in `f32` and `n^2 2^-106` in `f64`, with
/// rows `n` long. The result is never beyond ±1. Nothing over- or underflows on the way.
///
/// Gradient: [`cosine_similarity_backward`].
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or `y` does not fit; [`Error::NonFinite`] if an element is not finite.
///
/// ```
/// use nanproof::{MatRef, cosine_similarity};
///
/// let mut y = [0.0_f32];
/// cosine_similarity(MatRef::new(&[3e38, 0.0], 1, 2)?, MatRef::new(&[3e38, 3e38], 1, 2)?, &mut y)?;
/// assert_eq!(y, [0.70710677]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cosine_similarity<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    const NAME: &str = "cosine_similarity";
    check_shape(NAME, "b", b.shape(), a.shape(), "the shape of a")?;
    check_len(NAME, "y", y.len(), a.rows(), "the number of rows of a")?;
    if apply(RowMap { map: RowFunction::Cosine, weight: &[], bias: &[] }, [a, b], MatMut::new(y, a.rows(), 1)?)?.finite
    {
        return Ok(());
    }
    let inputs = [Operand::matrix("a", a), Operand::matrix("b", b)];
    diagnose(NAME, inputs, [Operand::slice("y", y)], overflow_or_invalid)
}

/// The gradients of [`cosine_similarity`]: `da = dy (b / |b| - y a / |a|) / |a|`, and `db` likewise; both 0 if a row is all
/// zeros, where `dy` is not read.
///
/// The error is at most `8 u |dy| (|b| / |b|_2 + |y a| / |a|_2) / |a|_2` in each element, with `u = 2^-24` or `2^-53`, and
/// what the sum of the cosine loses, in rows `n` long at most `(n + 64) 2^-53` in `f32` and `n^2 2^-106` in `f64`, times
/// `|dy a| / |a|_2^2`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or `dy` does not fit; [`Error::NonFinite`] if an element is not finite or a
/// result overflows.
///
/// ```
/// use nanproof::{MatMut, MatRef, cosine_similarity_backward};
///
/// let (mut da, mut db) = ([0.0_f32; 2], [0.0; 2]);
/// let (a, b) = (MatRef::new(&[2.0, 0.0], 1, 2)?, MatRef::new(&[0.0, 4.0], 1, 2)?);
/// let (da_view, db_view) = (MatMut::new(&mut da, 1, 2)?, MatMut::new(&mut db, 1, 2)?);
/// cosine_similarity_backward(a, b, &[1.0], da_view, db_view)?;
/// assert_eq!((da, db), ([0.0, 0.5], [0.25, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cosine_similarity_backward<T: Float>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    dy: &[T],
    mut da: MatMut<'_, T>,
    mut db: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "cosine_similarity_backward";
    check_shape(NAME, "b", b.shape(), a.shape(), "the shape of a")?;
    check_len(NAME, "dy", dy.len(), a.rows(), "the number of rows of a")?;
    check_shape(NAME, "da", da.shape(), a.shape(), "the shape of a")?;
    check_shape(NAME, "db", db.shape(), a.shape(), "the shape of a")?;
    if a.area() == 0 {
        return Ok(()); // there may be any number of columns that no row has
    }
    let (ones, factor) = (vec![T::one(); a.cols()], MatRef::new(dy, a.rows(), 1)?);
    let gradient = |a, b, dx| {
        let kernel = RowGradient {
            of: GradientOf::Cosine,
            inputs: [a, b, factor],
            weight: &ones,
            weight_exponent: 0,
            columns: None,
            dx,
        };
        launch(kernel).map(|seen| seen.finite)
    };
    if gradient(a, b, da.reborrow())? & gradient(b, a, db.reborrow())? {
        return Ok(());
    }
    let (da, db) = (da.as_ref(), db.as_ref());
    let inputs = [Operand::matrix("a", a), Operand::matrix("b", b), Operand::slice("dy", dy).overlook_unread_rows(da)];
    diagnose(NAME, inputs, [Operand::matrix("da", da), Operand::matrix("db", db)], overflow_or_invalid)
}

fn check_eps<T: Float>(operation: &'static str, eps: T) -> Result<()> {
    if eps.is_zero() || (eps.is_normal() && eps > T::zero()) {
        return Ok(());
    }
    Err(Error::Argument { operation, argument: "eps", problem: "must be 0, or positive and finite and not subnormal" })
}

fn forward<T: Float>(
    operation: &'static str,
    unit: Unit<T>,
    x: MatRef<'_, T>,
    [weight, bias]: [Option<&[T]>; 2],
    mut y: MatMut<'_, T>,
) -> Result<()> {
    check_shape(operation, "y", y.shape(), x.shape(), "the shape of x")?;
    for (name, operand) in [("weight", weight), ("bias", bias)] {
        if let Some(operand) = operand {
            check_len(operation, name, operand.len(), x.cols(), "the number of columns of x")?;
        }
    }
    if x.area() == 0 {
        return Ok(());
    }
    let map = RowFunction::Unit(unit);
    let is_finite = if weight.is_none() && bias.is_none() {
        map_rows(map, x, &[T::one()], y.reborrow())?
    } else {
        let (weight, bias) = (filled(weight, T::one(), x.cols()), filled(bias, -T::zero(), x.cols()));
        let one = [T::one()];
        let g = MatRef::with_strides(&one, x.rows(), 1, 0, 1)?;
        apply(RowMap { map, weight: &weight, bias: &bias }, [x, g], y.reborrow())?.finite
    };
    if is_finite {
        return Ok(());
    }
    let vectors = [("weight", weight), ("bias", bias)].map(|(name, x)| Operand::slice(name, x.unwrap_or_default()));
    let inputs = [Operand::matrix("x", x)].into_iter().chain(vectors);
    diagnose(operation, inputs, [Operand::matrix("y", y.as_ref())], overflow_or_invalid)
}

/// The operand, or a number in place of each element.
fn filled<T: Float>(operand: Option<&[T]>, value: T, len: usize) -> Cow<'_, [T]> {
    operand.map_or_else(|| Cow::Owned(vec![value; len]), Cow::Borrowed)
}

fn backward<T: Float>(
    operation: &'static str,
    unit: Unit<T>,
    x: MatRef<'_, T>,
    weight: Option<&[T]>,
    dy: MatRef<'_, T>,
    gradients: LayerNormGradients<'_, T>,
) -> Result<()> {
    let LayerNormGradients { mut dx, mut dw, mut db } = gradients;
    check_shape(operation, "dy", dy.shape(), x.shape(), "the shape of x")?;
    check_shape(operation, "dx", dx.shape(), x.shape(), "the shape of x")?;
    for (name, operand) in [("weight", weight), ("dw", dw.as_deref()), ("db", db.as_deref())] {
        if let Some(operand) = operand {
            check_len(operation, name, operand.len(), x.cols(), "the number of columns of x")?;
        }
    }
    if x.area() == 0 {
        [dw, db].into_iter().flatten().for_each(|sums| sums.fill(T::zero()));
        return Ok(());
    }
    let weights = filled(weight, T::one(), x.cols());
    let one = [T::one()];
    let factor = MatRef::with_strides(&one, x.rows(), 1, 0, 1)?;
    let weight_exponent = scaling_exponent(launch(MaxAbs { x: &weights })?.0);
    let mut sums = |shift: i32| -> Result<bool> {
        let columns = (dw.is_some() || db.is_some()).then(|| power(-shift));
        let (of, dx) = (GradientOf::Unit(unit), dx.reborrow());
        let inputs = [x, dy, factor];
        let seen = launch(RowGradient { of, inputs, weight: &weights, weight_exponent, columns, dx })?;
        let is_finite = write_columns(&seen.columns, shift, [dw.as_deref_mut(), db.as_deref_mut()]);
        Ok(seen.finite && is_finite)
    };
    // Partial sums may overflow though the sums do not: then once more, scaled.
    let headroom = (usize::BITS - x.rows().leading_zeros()) + (usize::BITS - x.cols().leading_zeros()) / 2 + 2;
    if sums(0)? || sums(headroom.cast_signed())? {
        return Ok(());
    }
    let (dx, dy) = (dx.as_ref(), Operand::matrix("dy", dy));
    let dy = if dw.is_none() && db.is_none() { dy.overlook_unread_rows(dx) } else { dy };
    let inputs = [Operand::matrix("x", x), Operand::slice("weight", weight.unwrap_or_default()), dy];
    let (dw, db) = (dw.as_deref().unwrap_or_default(), db.as_deref().unwrap_or_default());
    let outputs = [Operand::matrix("dx", dx), Operand::slice("dw", dw), Operand::slice("db", db)];
    diagnose(operation, inputs, outputs, overflow_or_invalid)
}

/// Adds the sums of pieces in order and writes them times `2^shift`, scaled ones in place of what is not finite alone;
/// whether all that was wanted is finite.
fn write_columns<T: Float>(pieces: &[ColumnSums<T>], shift: i32, [dw, db]: [Option<&mut [T]>; 2]) -> bool {
    let mut wanted = [dw.unwrap_or_default().chunks_mut(T::LANES), db.unwrap_or_default().chunks_mut(T::LANES)];
    let blocks = wanted.iter().map(ExactSizeIterator::len).fold(0, usize::max);
    let mut is_finite = true;
    for j in 0..blocks {
        for (sums, totals) in wanted.iter_mut().zip(ColumnSums::totals(pieces, j)) {
            for (sum, total) in sums.next().into_iter().flatten().zip(totals) {
                if shift == 0 || !sum.is_finite() {
                    *sum = narrow(ldexp(total.value_or_infinity(), shift));
                }
                is_finite &= sum.is_finite();
            }
        }
    }
    is_finite
}
