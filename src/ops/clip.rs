//! Gradient clipping: by value, by norm, by root mean square, by the norms of rows, and by the global norm of many
//! tensors, which a loss scale may have multiplied.

use super::mixed_tensors::Tensor;
use super::scale::scale;
use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Index, NonFinite, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::Join;
use crate::lanes::Lanes;
use crate::scaled::{Scaled, wide};
use crate::simd::Simd;
use crate::squares::Squares;
use crate::sweep::{Formula, Guard, apply, apply_if_finite};
use crate::view::{MatMut, MatRef};
use alloc::vec::Vec;

/// What clipping by a norm found and did.
///
/// ```
/// let mut g = [3.0_f32, 4.0];
/// let clip = nanproof::clip_by_norm(&mut g, 1.0)?;
/// assert_eq!((clip.norm, clip.scale, clip.clipped), (5.0, 0.2, true));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Clip<T> {
    /// The norm before clipping; infinite if it is too large for the type, 0 or of few digits if it is too small, which
    /// does not disturb the clipping.
    pub norm: T,
    /// What every element was multiplied by; 1 if nothing was.
    pub scale: T,
    /// Whether the norm was larger than allowed.
    pub clipped: bool,
    /// What was not finite, where [`Clipping::on_fault`] is not to refuse it.
    pub fault: Option<NonFinite>,
}

/// What to do with gradients that are not finite.
///
/// ```
/// use nanproof::{Clipping, OnFault, clip_by_global_norm_with};
///
/// let mut g = [3.0, f32::NAN, 4.0];
/// let options = Clipping { on_fault: OnFault::Zero, ..Clipping::default() };
/// let clip = clip_by_global_norm_with(options, &mut [&mut g], 2.5, None)?;
/// assert_eq!((clip.norm, g), (5.0, [1.5, 0.0, 2.0]));
/// assert_eq!(clip.fault.map(|fault| fault.counts.nan), Some(1));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFault {
    /// Write nothing and return the report as an error.
    #[default]
    Refuse,
    /// Write nothing and return the report in [`Clip::fault`].
    Skip,
    /// Set the elements that are not finite to 0 and clip what is left.
    Zero,
    /// Multiply by `max_norm / norm` all the same: a NaN spreads to every element, an infinity leaves zeros and NaN.
    Scale,
}

/// Options of [`clip_by_global_norm_with`].
///
/// ```
/// use nanproof::{Clipping, clip_by_global_norm_with};
///
/// let (mut dw, mut db) = ([3072.0_f32, 0.0], [4096.0_f32]); // 1024 times the gradients
/// let options = Clipping { loss_scale: 1024.0, ..Clipping::default() };
/// let clip = clip_by_global_norm_with(options, &mut [&mut dw, &mut db], 10.0, None)?;
/// assert_eq!((clip.norm, clip.clipped, dw, db), (5.0, false, [3.0, 0.0], [4.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipping<T> {
    /// The factor by which the loss was multiplied: every element is divided by it, and norm and limit are those of the
    /// quotients. Above 0 and finite; 1 by default.
    pub loss_scale: T,
    /// What to do with elements that are not finite, or would not be after the division.
    pub on_fault: OnFault,
}

impl<T: Float> Default for Clipping<T> {
    fn default() -> Self {
        Self { loss_scale: T::one(), on_fault: OnFault::default() }
    }
}

/// Scales `x` down to the L2 norm `max_norm` if it is longer: `x *= max_norm / |x|` if `|x| > max_norm`.
///
/// No epsilon is added. `max_norm = 0` gives zeros, `+Inf` never clips. Neither `|x|` nor the factor needs to be
/// representable. Within 4 ULP of the true value.
///
/// # Errors
/// [`Error::Argument`] if `max_norm` is negative or NaN; [`Error::NonFinite`] if an element is not finite, and then
/// nothing is written.
///
/// ```
/// let mut g = [3e38_f32, 3e38, 3e38, 3e38];
/// nanproof::clip_by_norm(&mut g, 2.0)?;
/// assert_eq!(g, [1.0; 4]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_norm<T: Float>(x: &mut [T], max_norm: T) -> Result<Clip<T>> {
    const NAME: &str = "clip_by_norm";
    check_limit(NAME, "max_norm", max_norm)?;
    let norm = finite_norm(NAME, x)?;
    rescale(&mut [x], norm, T::one(), max_norm)
}

/// Scales `x` down to the root mean square `max_rms` if it is larger: `x *= max_rms / rms` if `rms > max_rms`, with
/// `rms = |x| / sqrt(n)`, which [`Clip::norm`] holds.
///
/// The clipping of updates, a tensor at a time. No epsilon is added. `max_rms = 0` gives zeros, `+Inf` never clips, the
/// root mean square of nothing is 0. Within 4 ULP of the true value. Source: Shazeer and Stern, "Adafactor: adaptive
/// learning rates with sublinear memory cost", 2018.
///
/// # Errors
/// [`Error::Argument`] if `max_rms` is negative or NaN; [`Error::NonFinite`] if an element is not finite, and then
/// nothing is written.
///
/// ```
/// let mut update = [6.0_f32, 8.0, 0.0, 0.0];
/// let clip = nanproof::clip_by_rms(&mut update, 2.5)?;
/// assert_eq!((clip.norm, update), (5.0, [3.0, 4.0, 0.0, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_rms<T: Float>(x: &mut [T], max_rms: T) -> Result<Clip<T>> {
    const NAME: &str = "clip_by_rms";
    check_limit(NAME, "max_rms", max_rms)?;
    let len = num_traits::cast::<_, f64>(x.len().max(1)).unwrap_or(f64::MAX);
    let rms = finite_norm(NAME, x)?.div(Scaled::new(num_traits::Float::sqrt(len), 0));
    rescale(&mut [x], rms, T::one(), max_rms)
}

/// Scales each row of `x`, the gradient of one example say, down to the L2 norm `max_norm` if it is longer, as
/// [`clip_by_norm`] would, bit for bit. Returns how many rows were clipped, and in `norms` the norm of each row before.
///
/// A norm that is too large for the type is infinite, which does not disturb the clipping. Within 4 ULP of the true
/// value. Source: Abadi et al., "Deep learning with differential privacy", 2016.
///
/// # Errors
/// [`Error::Shape`] if `norms` has not as many elements as `x` has rows; [`Error::Argument`] if `max_norm` is negative
/// or NaN; [`Error::NonFinite`] if an element is not finite, and then `x` is as it was.
///
/// ```
/// use nanproof::{MatMut, clip_rows_by_norm};
///
/// let (mut g, mut norms) = ([3.0_f32, 4.0, 0.3, 0.4], [0.0; 2]);
/// assert_eq!(clip_rows_by_norm(MatMut::new(&mut g, 2, 2)?, 1.0, &mut norms)?, 1);
/// assert_eq!((g, norms), ([0.6, 0.8, 0.3, 0.4], [5.0, 0.5]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_rows_by_norm<T: Float>(x: MatMut<'_, T>, max_norm: T, norms: &mut [T]) -> Result<usize> {
    const NAME: &str = "clip_rows_by_norm";
    check_limit(NAME, "max_norm", max_norm)?;
    check_len(NAME, "norms", norms.len(), x.rows(), "the number of rows of x")?;
    for (i, norm) in norms.iter_mut().enumerate() {
        *norm = with_row(x.as_ref(), i, Squares::of)?.norm().narrow();
    }
    if !norms.iter().all(|norm| norm.is_finite()) {
        diagnose(NAME, [Operand::matrix("x", x.as_ref())], [], overflow_or_invalid)?;
    }
    // A subnormal norm has lost places that may count.
    let is_short = |i: usize| norms[i] <= max_norm && (norms[i].is_normal() || norms[i].is_zero());
    clip_rows(x, |i, x| Ok(if is_short(i) { None } else { Some((own_norm(i, x)?, max_norm)) }))
}

/// Scales each row of `x` by what its example's gradient as a whole is scaled by: `x[i] *= max_norm / norms[i]` if
/// `norms[i] > max_norm`. Returns how many rows were scaled.
///
/// For gradients of examples that are spread over several tensors: `norms` holds the norms of whole examples, from
/// [`l2_norm`](crate::l2_norm) of the norms of their parts, and every tensor is scaled in a call of its own. `max_norm = 0`
/// gives zeros where the norm is not 0. Within 2 ULP of the true value.
///
/// # Errors
/// [`Error::Shape`] if `norms` has not as many elements as `x` has rows; [`Error::Argument`] if `max_norm` is negative
/// or NaN, or a norm is negative; [`Error::NonFinite`] if a norm or an element is not finite. Then `x` is as it was.
///
/// ```
/// use nanproof::{MatMut, clip_rows_with_norms};
///
/// let mut part = [3.0_f32, 0.0, 0.3, 0.4]; // of two examples, whose other parts hold a 4 and a 0
/// assert_eq!(clip_rows_with_norms(MatMut::new(&mut part, 2, 2)?, &[5.0, 0.5], 1.0)?, 1);
/// assert_eq!(part, [0.6, 0.0, 0.3, 0.4]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_rows_with_norms<T: Float>(x: MatMut<'_, T>, norms: &[T], max_norm: T) -> Result<usize> {
    const NAME: &str = "clip_rows_with_norms";
    check_limit(NAME, "max_norm", max_norm)?;
    check_len(NAME, "norms", norms.len(), x.rows(), "the number of rows of x")?;
    if norms.iter().any(|&norm| norm < T::zero()) {
        return Err(Error::Argument { operation: NAME, argument: "norms", problem: "must not be negative" });
    }
    diagnose(NAME, [Operand::slice("norms", norms)], [], overflow_or_invalid)?;
    check_rows(NAME, "x", x.as_ref())?;
    clip_rows(x, |i, _| Ok((norms[i] > max_norm).then(|| (Scaled::of(norms[i]), max_norm))))
}

/// Scales each row of a gradient `g` (the weights of one unit) down where it is long beside the same row of the weights
/// `w`: `g[i] *= limit / |g[i]|` if `|g[i]| > limit`, with `limit = clipping * max(|w[i]|, eps)`. Returns how many rows
/// were clipped.
///
/// A limit that overflows clips nothing. `clipping = 0` gives zeros, `+Inf` never clips. Within 6 ULP of the true value.
/// Source: Brock, De, Smith and Simonyan, "High-performance large-scale image recognition without normalization", 2021
/// (adaptive gradient clipping; there `clipping = 0.01`, `eps = 0.001`).
///
/// # Errors
/// [`Error::Shape`] if the shapes differ; [`Error::Argument`] if `clipping` or `eps` is negative or NaN;
/// [`Error::NonFinite`] if an element of `w` or `g` is not finite, and then nothing is written.
///
/// ```
/// use nanproof::{MatMut, MatRef, clip_unitwise};
///
/// let (w, mut g) = ([3.0_f32, 4.0, 0.0, 0.0], [0.6, 0.8, 0.6, 0.8]);
/// let clipped = clip_unitwise(MatRef::new(&w, 2, 2)?, MatMut::new(&mut g, 2, 2)?, 0.5, 0.25)?;
/// assert_eq!((clipped, g), (1, [0.6, 0.8, 0.075, 0.1]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_unitwise<T: Float>(w: MatRef<'_, T>, g: MatMut<'_, T>, clipping: T, eps: T) -> Result<usize> {
    const NAME: &str = "clip_unitwise";
    check_limit(NAME, "clipping", clipping)?;
    check_limit(NAME, "eps", eps)?;
    check_shape(NAME, "g", g.shape(), w.shape(), "the shape of w")?;
    if w.cols() == 0 {
        return Ok(0); // rows without elements need no memory: there may be any number of them
    }
    check_rows(NAME, "w", w)?;
    check_rows(NAME, "g", g.as_ref())?;
    clip_rows(g, |i, g| {
        let norm = own_norm(i, w)?;
        let floor = Scaled::of(eps);
        let largest = if eps.is_infinite() || norm.compare_magnitude(floor).is_lt() { floor } else { norm };
        // Neither is to be multiplied with 0 or infinity, which might give no number.
        let has_product = clipping > T::zero() && clipping.is_finite();
        let limit = if has_product { Scaled::of(clipping).mul(largest).narrow() } else { clipping };
        Ok(Some((own_norm(i, g)?, limit)))
    })
}

/// Refuses a matrix with elements that are not finite.
fn check_rows<T: Float>(operation: &'static str, name: &'static str, x: MatRef<'_, T>) -> Result<()> {
    let mut is_finite = true;
    for i in 0..x.rows() {
        is_finite &= with_row(x, i, Squares::of)?.counts.total() == 0;
    }
    if is_finite { Ok(()) } else { diagnose(operation, [Operand::matrix(name, x)], [], overflow_or_invalid) }
}

/// The norm of a row.
fn own_norm<T: Float>(i: usize, x: MatRef<'_, T>) -> Result<Scaled<f64>> {
    Ok(with_row(x, i, Squares::of)?.norm())
}

/// Clips each row that `limits` has a norm and a limit for.
fn clip_rows<T: Float>(
    mut x: MatMut<'_, T>,
    limits: impl Fn(usize, MatRef<'_, T>) -> Result<Option<(Scaled<f64>, T)>>,
) -> Result<usize> {
    let mut clipped = 0;
    let mut copy = Vec::new();
    for i in 0..x.rows() {
        let Some((norm, max_norm)) = limits(i, x.as_ref())? else { continue };
        if let Some(row) = x.row_mut(i) {
            clipped += usize::from(rescale(&mut [row], norm, T::one(), max_norm)?.clipped);
            continue;
        }
        x.as_ref().copy_row(i, &mut copy);
        clipped += usize::from(rescale(&mut [&mut copy[..]], norm, T::one(), max_norm)?.clipped);
        x.write_row(i, &copy);
    }
    Ok(clipped)
}

/// Calls `f` with a row as a slice.
fn with_row<T: Float, R>(x: MatRef<'_, T>, i: usize, f: impl Fn(&[T]) -> R) -> R {
    match x.row(i) {
        Some(row) => f(row),
        None => f(&x.row_iter(i).copied().collect::<Vec<_>>()),
    }
}

/// Scales all tensors by one factor, down to the common L2 norm `max_norm` if it is larger:
/// `x *= max_norm / norm` if `norm > max_norm`, with `norm = sqrt(sum of the squares of all elements)`.
///
/// No epsilon is added. `max_norm = 0` gives zeros, `+Inf` never clips. Neither the norm nor the factor needs to be
/// representable. No tensors, and empty ones, have norm 0. The order of the tensors changes no bit. Within 4 ULP of the
/// true value. Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013.
///
/// # Errors
/// [`Error::Argument`] if `max_norm` is negative or NaN; [`Error::NonFinite`] if an element is not finite: the report
/// says which tensor, which element, and how many of each class, and nothing is written.
///
/// ```
/// let (mut dw, mut db) = ([3.0_f32, 0.0], [4.0_f32]);
/// let clip = nanproof::clip_by_global_norm(&mut [&mut dw, &mut db], 1.0)?;
/// assert_eq!((clip.norm, dw, db), (5.0, [0.6, 0.0], [0.8]));
///
/// let mut bad = [0.0, f32::INFINITY];
/// let error = nanproof::clip_by_global_norm(&mut [&mut dw, &mut bad], 1.0).unwrap_err();
/// assert_eq!(error.to_string(), "clip_by_global_norm: tensors[1][1] is +Inf, passed in; 1 of 4 elements is not finite");
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_global_norm<T: Float>(tensors: &mut [&mut [T]], max_norm: T) -> Result<Clip<T>> {
    clip("clip_by_global_norm", Clipping::default(), tensors, max_norm, None)
}

/// [`clip_by_global_norm`] of gradients that a loss scale has multiplied, with a choice of what to do with those that are
/// not finite, and with the norm of each tensor if `norms` is given.
///
/// One pass reads: norms and the check. One pass writes, if there is something to write: the factors `1 / loss_scale` and
/// `max_norm / norm` as one. What is checked is the quotient, too: with a scale below 1 finite elements may overflow,
/// and they are reported unless the clipping takes them back. Within 4 ULP of the true value.
///
/// # Errors
/// [`Error::Argument`] if `max_norm` is negative or NaN, or the loss scale not above 0 and finite; [`Error::Shape`] if
/// there are not as many `norms` as tensors; [`Error::NonFinite`] if an element is not finite and [`Clipping::on_fault`]
/// says to refuse it: the tensors are then as they were.
///
/// ```
/// use nanproof::{Clipping, clip_by_global_norm_with};
///
/// let (mut dw, mut db, mut norms) = ([3.0_f32, 4.0], [12.0_f32], [0.0; 2]);
/// let clip = clip_by_global_norm_with(Clipping::default(), &mut [&mut dw, &mut db], 26.0, Some(&mut norms))?;
/// assert_eq!((clip.norm, clip.clipped, norms), (13.0, false, [5.0, 12.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_global_norm_with<T: Float>(
    options: Clipping<T>,
    tensors: &mut [&mut [T]],
    max_norm: T,
    norms: Option<&mut [T]>,
) -> Result<Clip<T>> {
    clip("clip_by_global_norm", options, tensors, max_norm, norms)
}

/// Divides gradients by the factor that the loss was multiplied by, if all quotients are finite:
/// [`clip_by_global_norm_with`] without a limit. Returns their global norm.
///
/// Exact for a power of two, but for quotients that are subnormal; within 1.5 ULP for others. A clipping that follows can
/// be had in the same pass with [`Clipping::loss_scale`].
///
/// # Errors
/// [`Error::Argument`] if the loss scale is not above 0 and finite; [`Error::NonFinite`] if a gradient is not finite or
/// its quotient overflows, and then nothing is written.
///
/// ```
/// let (mut g, mut large) = ([3072.0_f32, 4096.0], [3e38_f32]);
/// assert_eq!(nanproof::unscale(&mut [&mut g], 1024.0)?.norm, 5.0);
/// assert_eq!(g, [3.0, 4.0]);
///
/// let error = nanproof::unscale(&mut [&mut g, &mut large], 0.5).unwrap_err();
/// assert_eq!(error.to_string(), "unscale: tensors[1][0] is +Inf, born here: overflow; 1 of 3 elements is not finite");
/// assert_eq!(g, [3.0, 4.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn unscale<T: Float>(tensors: &mut [&mut [T]], loss_scale: T) -> Result<Clip<T>> {
    clip("unscale", Clipping { loss_scale, ..Clipping::default() }, tensors, T::infinity(), None)
}

pub(super) fn clip<T: Float, X: Tensor<T>>(
    operation: &'static str,
    options: Clipping<T>,
    tensors: &mut [X],
    max_norm: T,
    mut norms: Option<&mut [T]>,
) -> Result<Clip<T>> {
    let Clipping { loss_scale, on_fault } = options;
    check_limit(operation, "max_norm", max_norm)?;
    if !(loss_scale > T::zero() && loss_scale.is_finite()) {
        let problem = "is not above 0 and finite";
        return Err(Error::Argument { operation, argument: "loss_scale", problem });
    }
    if let Some(norms) = &norms {
        check_len(operation, "norms", norms.len(), tensors.len(), "the number of tensors")?;
    }
    let mut norm = measure(tensors, loss_scale, norms.as_deref_mut())?;
    let fault = find_fault(operation, tensors, norm, loss_scale, max_norm);
    match (fault, on_fault) {
        (None, _) | (_, OnFault::Scale) => {}
        (Some(report), OnFault::Refuse) => return Err(report.into()),
        (_, OnFault::Skip) => {
            return Ok(Clip { norm: norm.narrow(), scale: T::one(), clipped: false, fault });
        }
        (_, OnFault::Zero) => {
            let unscaling = Rescaling::new(Scaled::of(T::zero()), loss_scale, T::infinity());
            for x in &mut *tensors {
                x.change(&|x, stored| {
                    let is_fault = |x: T| !stored(unscaling.of(x)).is_finite();
                    x.iter_mut().filter(|x| is_fault(**x)).for_each(|x| *x = T::zero());
                    Ok(())
                })?;
            }
            norm = measure(tensors, loss_scale, norms)?;
        }
    }
    Ok(Clip { fault, ..rescale(tensors, norm, loss_scale, max_norm)? })
}

/// The norm of all tensors over the loss scale, and that of each, if asked.
fn measure<T: Float, X: Tensor<T>>(tensors: &[X], loss_scale: T, norms: Option<&mut [T]>) -> Result<Scaled<f64>> {
    let quotient = |norm: Scaled<f64>| if loss_scale.is_one() { norm } else { norm.div(Scaled::of(loss_scale)) };
    let Some(norms) = norms else {
        return Ok(quotient(X::squares_of_all(tensors)?.norm()));
    };
    let mut all = Squares::new();
    for (x, norm) in tensors.iter().zip(norms) {
        let squares = x.squares()?;
        *norm = quotient(squares.norm()).narrow();
        all = all.join(squares);
    }
    Ok(quotient(all.norm()))
}

/// The report of what is not finite, or would not be once unscaled and clipped.
fn find_fault<T: Float, X: Tensor<T>>(
    operation: &'static str,
    tensors: &[X],
    norm: Scaled<f64>,
    loss_scale: T,
    max_norm: T,
) -> Option<NonFinite> {
    // Twice what no result is larger than, but for rounding.
    let bound = norm.narrow::<T>().min(max_norm) * (T::one() + T::one());
    let found = if !norm.mantissa.is_finite() {
        diagnose(operation, [operand(tensors, |x| x)], [], overflow_or_invalid)
    } else if loss_scale < T::one() && tensors.iter().any(|x| !x.stored(bound).is_finite()) {
        let rescaling = Rescaling::new(norm, loss_scale, max_norm);
        diagnose(operation, [], [operand(tensors, |x| rescaling.of(x))], overflow_or_invalid)
    } else {
        Ok(())
    };
    match found {
        Err(Error::NonFinite(report)) => Some(*report),
        _ => None,
    }
}

/// The elements of tensors as an operation changes them and they are then stored.
fn operand<'a, T: Float, X: Tensor<T>>(tensors: &'a [X], f: impl Fn(T) -> T + Copy + 'a) -> Operand<'a, T> {
    let tensor = move |(t, tensor): (usize, &'a X)| {
        tensor.elements().enumerate().map(move |(i, x)| (Index::Tensor(t, i), tensor.stored(f(x))))
    };
    Operand::new("tensors", tensors.iter().enumerate().flat_map(tensor))
}

/// Multiplies tensors whose norm over the loss scale is `norm` by `1 / loss_scale`, and by `max_norm / norm` if that is
/// less.
pub(super) fn rescale<T: Float, X: Tensor<T>>(
    tensors: &mut [X],
    norm: Scaled<f64>,
    loss_scale: T,
    max_norm: T,
) -> Result<Clip<T>> {
    let rescaling = Rescaling::new(norm, loss_scale, max_norm);
    if rescaling.within && loss_scale.is_one() {
        return Ok(rescaling.clip(T::one()));
    }
    for x in tensors {
        x.change(&|x, _| rescaling.apply(x))?;
    }
    Ok(rescaling.clip(rescaling.factor.value()))
}

/// A multiplication by `1 / loss_scale`, and by `max_norm / norm` if that is less.
#[derive(Clone, Copy)]
struct Rescaling<T> {
    norm: Scaled<f64>,
    max_norm: T,
    within: bool,
    factor: Scaled<T>,
}

impl<T: Float> Rescaling<T> {
    fn new(norm: Scaled<f64>, loss_scale: T, max_norm: T) -> Self {
        let within = is_within(norm, max_norm);
        let ratio = if within { Scaled::of(T::one()) } else { Scaled::of(max_norm).div(norm) };
        Self { norm, max_norm, within, factor: ratio.div(Scaled::of(loss_scale)).round() }
    }

    fn apply(&self, x: &mut [T]) -> Result<()> {
        let is_finite = self.norm.mantissa.is_finite();
        if self.max_norm.is_zero() && is_finite {
            x.fill(T::zero());
        } else if !scale(x, self.factor)? && is_finite && !self.within {
            // No element is larger than the norm: rounding alone led past the largest number.
            x.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = self.max_norm.copysign(*x));
        }
        Ok(())
    }

    /// One element.
    fn of(&self, x: T) -> T {
        let mut result = [x];
        // An error here is one of the whole call.
        self.apply(&mut result).map_or(T::nan(), |()| result[0])
    }

    fn clip(&self, scale: T) -> Clip<T> {
        Clip { norm: self.norm.narrow(), scale, clipped: !self.within, fault: None }
    }
}

/// Whether a norm, rounded to the digits of the type but not to its range, is not above a limit.
fn is_within<T: Float>(norm: Scaled<f64>, limit: T) -> bool {
    if norm.mantissa.is_finite() && limit.is_finite() {
        norm.round::<T>().compare_magnitude(Scaled::new(limit, 0)).is_le()
    } else {
        norm.mantissa <= wide(limit)
    }
}

/// The norm of a slice, if all of it is finite.
fn finite_norm<T: Float>(operation: &'static str, x: &[T]) -> Result<Scaled<f64>> {
    let norm = Squares::of(x)?.norm();
    if !norm.mantissa.is_finite() {
        diagnose(operation, [Operand::slice("x", x)], [], overflow_or_invalid)?;
    }
    Ok(norm)
}

/// Moves each element into `-limit ..= limit`: `x = min(max(x, -limit), limit)`. Returns how many were outside.
///
/// Exact. Infinities become the limit; `limit = +Inf` never clips.
///
/// Gradient: [`clip_by_value_backward`].
///
/// # Errors
/// [`Error::Argument`] if `limit` is negative or NaN; [`Error::NonFinite`] if the result would not be finite (an element
/// is NaN, or infinite with an infinite limit), and then nothing is written.
///
/// ```
/// let mut g = [0.5_f32, -3.0, f32::INFINITY];
/// assert_eq!(nanproof::clip_by_value(&mut g, 1.0)?, 2);
/// assert_eq!(g, [0.5, -1.0, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_value<T: Float>(x: &mut [T], limit: T) -> Result<usize> {
    check_limit("clip_by_value", "limit", limit)?;
    let seen = apply_if_finite(Clamp { limit }, [], [&mut *x])?;
    if !seen.finite {
        let clipped = |_, x: T| x.abs() > limit;
        diagnose("clip_by_value", [Operand::slice("x", x).overlook(clipped)], [], overflow_or_invalid)?;
    }
    Ok(seen.guarded)
}

/// The gradient of [`clip_by_value`]: `dx = dy` where `-limit <= x <= limit`, 0 where it was clipped, where `dy` is not
/// read. Exact; a NaN in `x` gives NaN.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if `limit` is negative or NaN; [`Error::NonFinite`] if an
/// element written is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::clip_by_value_backward(&[0.5, -3.0, 1.0], 1.0, &[1.0, f32::NAN, 2.0], &mut dx)?;
/// assert_eq!(dx, [1.0, 0.0, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_value_backward<T: Float>(x: &[T], limit: T, dy: &[T], dx: &mut [T]) -> Result<()> {
    const NAME: &str = "clip_by_value_backward";
    check_limit(NAME, "limit", limit)?;
    check_len(NAME, "dy", dy.len(), x.len(), "the length of x")?;
    check_len(NAME, "dx", dx.len(), x.len(), "the length of x")?;
    if apply(ClampBackward { limit }, [x, dy], [&mut *dx])?.finite {
        return Ok(());
    }
    let is_clipped = |index| matches!(index, Index::At(i) if x[i].abs() > limit);
    let inputs = [
        Operand::slice("x", x).overlook(|_, x| !x.is_nan()),
        Operand::slice("dy", dy).overlook(move |index, _| is_clipped(index)),
    ];
    diagnose(NAME, inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}

pub(super) fn check_limit<T: Float>(operation: &'static str, argument: &'static str, limit: T) -> Result<()> {
    if limit >= T::zero() {
        Ok(())
    } else {
        Err(Error::Argument { operation, argument, problem: "is negative or NaN and must be 0 or more" })
    }
}

/// `clamp(x, -limit, limit)`, counting what was outside.
#[derive(Clone, Copy, Debug)]
pub struct Clamp<T> {
    limit: T,
}

impl<T: Float> Formula<T, 0, 1> for Clamp<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        []: [Lanes<T, S>; 0],
        [x]: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let limit = x.all(self.limit);
        let outside = limit.lt(x.abs());
        guard.note(outside);
        [outside.select(limit.copy_sign(x), x)]
    }
}

/// The gradient of [`Clamp`].
#[derive(Clone, Copy, Debug)]
pub struct ClampBackward<T> {
    limit: T,
}

impl<T: Float> Formula<T, 2, 1> for ClampBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, dy]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let kept = x.eq(x).select(dy, x);
        [x.all(self.limit).lt(x.abs()).select(x.all(T::zero()), kept)]
    }
}
