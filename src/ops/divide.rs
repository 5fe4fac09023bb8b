//! Division that is safe at a zero denominator, and its gradients.

use crate::error::{Result, check_len};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply};

/// Options of [`safe_div`].
///
/// ```
/// let mut q = [0.0_f32; 2];
/// let options = nanproof::SafeDiv { default: 1.0 };
/// nanproof::safe_div_with(options, &[3.0, 5.0], &[0.0, 2.0], &mut q)?;
/// assert_eq!(q, [1.0, 2.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SafeDiv<T> {
    /// The quotient where the denominator is zero: 0 by default.
    pub default: T,
}

/// Division with the quotient 0 where the denominator is zero: `q = a / b` where `b != 0`, else 0. Returns how many
/// denominators were zero.
///
/// Rounded correctly. Where `b` is zero (of either sign) `a` is not read. NaN in a `b`, or in an `a` that is read, stays
/// NaN.
///
/// Gradient: [`safe_div_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// quotient is not finite.
///
/// ```
/// let mut q = [0.0_f32; 3];
/// let zeros = nanproof::safe_div(&[1.0, f32::NAN, 3.0], &[0.0, 0.0, 2.0], &mut q)?;
/// assert_eq!((q, zeros), ([0.0, 0.0, 1.5], 2));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div<T: Float>(a: &[T], b: &[T], q: &mut [T]) -> Result<usize> {
    safe_div_with(SafeDiv::default(), a, b, q)
}

/// [`safe_div`] with [options](SafeDiv).
///
/// # Errors
/// As [`safe_div`].
///
/// ```
/// let mut q = [0.0_f32];
/// nanproof::safe_div_with(nanproof::SafeDiv { default: -1.0 }, &[1.0], &[0.0], &mut q)?;
/// assert_eq!(q, [-1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div_with<T: Float>(options: SafeDiv<T>, a: &[T], b: &[T], q: &mut [T]) -> Result<usize> {
    check_len("safe_div", "b", b.len(), a.len(), "the length of a")?;
    check_len("safe_div", "q", q.len(), a.len(), "the length of a")?;
    let seen = apply(Quotient { default: options.default }, [a, b], [&mut *q])?;
    if !seen.finite {
        let inputs = [
            Operand::slice("a", a).overlook(zero_denominator(b)),
            Operand::slice("b", b).overlook(|_, b| b.is_infinite()),
            Operand::scalar("default", if seen.guarded { options.default } else { T::zero() }),
        ];
        diagnose("safe_div", inputs, [Operand::slice("q", q)], overflow_or_invalid)?;
    }
    Ok(if seen.guarded { count_zeros(b) } else { 0 })
}

/// The gradients of [`safe_div`]: `da = g / b` and `db = -(g / b) (a / b)`; both 0 where `b` is zero, and where `g` is
/// exactly 0 (unless `a` or `b` is NaN). Returns how many denominators were zero.
///
/// `da` is rounded correctly, `db` within 2 ULP: the divisor is not squared, and a product whose factors over- or
/// underflow is computed again with exponents of its own. Where `b` is zero neither `a` nor `g` is read.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// let (mut da, mut db) = ([0.0_f32; 3], [0.0; 3]);
/// nanproof::safe_div_backward(&[1e20, 1.0, 1e-30], &[1e20, 0.0, 1e-30], &[1.0; 3], &mut da, &mut db)?;
/// assert_eq!(da, [1e-20, 0.0, 1e30]);
/// assert_eq!(db, [-1e-20, 0.0, -1e30]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div_backward<T: Float>(a: &[T], b: &[T], g: &[T], da: &mut [T], db: &mut [T]) -> Result<usize> {
    const NAME: &str = "safe_div_backward";
    for (operand, len) in [("b", b.len()), ("g", g.len()), ("da", da.len()), ("db", db.len())] {
        check_len(NAME, operand, len, a.len(), "the length of a")?;
    }
    let seen = apply(QuotientBackward, [a, b, g], [&mut *da, &mut *db])?;
    if !seen.finite {
        let inputs = [
            Operand::slice("a", a).overlook(move |index, a| {
                let no_part = |i: usize| b[i].is_zero() || (g[i].is_zero() && !a.is_nan());
                matches!(index, Index::At(i) if no_part(i))
            }),
            Operand::slice("b", b).overlook(|_, b| b.is_infinite()),
            Operand::slice("g", g).overlook(zero_denominator(b)),
        ];
        let outputs = [Operand::slice("da", da), Operand::slice("db", db)];
        diagnose(NAME, inputs, outputs, overflow_or_invalid)?;
    }
    Ok(if seen.guarded { count_zeros(b) } else { 0 })
}

fn zero_denominator<T: Float>(b: &[T]) -> impl Fn(Index, T) -> bool {
    |index, _| matches!(index, Index::At(i) if b[i].is_zero())
}

fn count_zeros<T: Float>(b: &[T]) -> usize {
    b.iter().filter(|b| b.is_zero()).count()
}

/// `a / b`, or a default where `b` is zero.
#[derive(Clone, Copy, Debug)]
pub struct Quotient<T> {
    default: T,
}

impl<T: Float> Formula<T, 2, 1> for Quotient<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [a, b]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let is_zero = b.eq(b.all(T::zero()));
        guard.note(is_zero);
        [is_zero.select(b.all(self.default), a / b)]
    }
}

/// `g / b` and `-(g / b) (a / b)`, or zeros where `b` is zero.
#[derive(Clone, Copy, Debug)]
pub struct QuotientBackward;

impl<T: Float> Formula<T, 3, 2> for QuotientBackward {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [a, b, g]: [Lanes<T, S>; 3],
        _: [Lanes<T, S>; 2],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let zero = b.all(T::zero());
        let is_zero = b.eq(zero);
        guard.note(is_zero);
        let (da, ratio) = (g / b, a / b);
        // Both factors well inside the normal range: so is whatever rounding their product suffers.
        let (low, high) = (b.all(T::min_positive_value()), b.all(T::max_value()));
        let safe_da = g.eq(zero) | (low.le(da.abs()) & da.abs().le(high));
        let safe_ratio = a.eq(zero) | (low.le(ratio.abs()) & ratio.abs().le(high));
        let unsafe_product = !((safe_da & safe_ratio) | is_zero);
        let mut db = -(da * ratio);
        if unsafe_product.any() {
            let product = product_of_quotients(g, a, b);
            // An upstream gradient of exactly 0 gives 0, through an infinite ratio too, but not past a NaN.
            let nothing = g.eq(zero) & a.eq(a) & b.eq(b);
            db = unsafe_product.select(nothing.select(zero, -product), db);
        }
        [is_zero.select(zero, da), is_zero.select(zero, db)]
    }
}

/// `(g / b) (a / b)` with the exponents added apart, so that only the result can over- or underflow.
#[inline(always)]
fn product_of_quotients<T: Float, S: Simd<T>>(g: Lanes<T, S>, a: Lanes<T, S>, b: Lanes<T, S>) -> Lanes<T, S> {
    let ((g, g_exp), (a, a_exp), (b, b_exp)) =
        (math::split_exponent(g), math::split_exponent(a), math::split_exponent(b));
    math::scale((g / b) * (a / b), (g_exp - b_exp) + (a_exp - b_exp))
}
