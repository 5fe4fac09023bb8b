//! Sums and dot products, and their gradients.

use super::scale::scale_by;
use crate::error::{Result, check_len};
use crate::finite::{Factor, Operand, Term, diagnose, name_largest_term, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Kernel, launch};
use crate::lanes::Lanes;
use crate::reduce::{TwoTerm, cut, sum_terms};
use crate::scaled::WideSum;
use crate::simd::Simd;

/// The sum of a slice: `x[0] + x[1] + ...`.
///
/// Every rounding error is kept and added at the end, so the result is within
/// `u |s| + n^2 u^2 (|x[0]| + |x[1]| + ...)` of the true sum `s`, with `u = 2^-24` (`f32`) or `2^-53` (`f64`): rounded
/// correctly but for the worst cancellation. Partial sums may overflow, the result is right if it is representable.
/// The sum of nothing is 0. Source: Ogita, Rump and Oishi 2005.
///
/// Gradient: [`sum_backward`].
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) if an element is, or if the sum overflows.
///
/// ```
/// assert_eq!(nanproof::sum(&[1e30_f32, 1.0, -1e30])?, 1.0);
/// assert_eq!(nanproof::sum(&[3e38_f32, 3e38, -3e38])?, 3e38);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn sum<T: Float>(x: &[T]) -> Result<T> {
    let sum = sum_over(x, T::one())?;
    if sum.is_finite() {
        return Ok(sum);
    }
    let found = diagnose("sum", [Operand::slice("x", x)], [Operand::scalar("sum", sum)], overflow_or_invalid);
    name_largest_term(found, |_| Factor::slice("x", x).map(Term::from))?;
    Ok(sum)
}

/// The sum of a slice over a divisor. It may be finite where a partial sum, or the sum, is not.
pub(super) fn sum_over<T: Float>(x: &[T], divisor: T) -> Result<T> {
    let sum = launch(Sum { x })?.value();
    if sum.is_finite() {
        return Ok(sum / divisor);
    }
    Ok(x.iter().fold(WideSum::new(), |sum, &x| sum.add_product(x, T::one())).divided_by(divisor))
}

/// The gradient of [`sum`]: `dx[i] = g` for every `i`, exactly.
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) if `g` is; it is written all the same.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::sum_backward(2.0, &mut dx)?;
/// assert_eq!(dx, [2.0; 3]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn sum_backward<T: Float>(g: T, dx: &mut [T]) -> Result<()> {
    dx.fill(g);
    diagnose("sum_backward", [Operand::scalar("g", g)], [], overflow_or_invalid)
}

/// The dot product of two slices of one length: `a[0] b[0] + a[1] b[1] + ...`.
///
/// The rounding errors of products and sums are kept and added at the end, so the result is within
/// `u |s| + n^2 u^2 (|a[0] b[0]| + ...)` of the true value `s` (and `n` smallest subnormals where products underflow).
/// Products and partial sums may overflow, the result is right if it is representable. Source: Ogita, Rump and Oishi
/// 2005.
///
/// Gradient: [`dot_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// element is, or if the result overflows.
///
/// ```
/// let error = nanproof::dot(&[1e30_f32, 2.0], &[1e30, 0.5]).unwrap_err();
/// assert_eq!(error.to_string(), "dot: dot is +Inf, born here: overflow, largest term a[0] * b[0] = 1.0e30 * 1.0e30");
/// assert_eq!(nanproof::dot(&[1e30_f32, 2.0, 1e30], &[1e30, 0.5, -1e30])?, 1.0);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn dot<T: Float>(a: &[T], b: &[T]) -> Result<T> {
    check_len("dot", "b", b.len(), a.len(), "the length of a")?;
    let dot = launch(Dot { a, b })?.value();
    if dot.is_finite() {
        return Ok(dot);
    }
    let dot = a.iter().zip(b).fold(WideSum::new(), |sum, (&a, &b)| sum.add_product(a, b)).value();
    let inputs = [Operand::slice("a", a), Operand::slice("b", b)];
    let found = diagnose("dot", inputs, [Operand::scalar("dot", dot)], overflow_or_invalid);
    name_largest_term(found, |_| {
        Factor::slice("a", a).zip(Factor::slice("b", b)).map(|(left, right)| Term { left, right: Some(right) })
    })?;
    Ok(dot)
}

/// The gradients of [`dot`]: `da = g b` and `db = g a`, rounded once.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if `g` or
/// an element written is.
///
/// ```
/// let (mut da, mut db) = ([0.0_f64; 2], [0.0; 2]);
/// nanproof::dot_backward(&[1.0, 2.0], &[3.0, 4.0], 10.0, &mut da, &mut db)?;
/// assert_eq!((da, db), ([30.0, 40.0], [10.0, 20.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn dot_backward<T: Float>(a: &[T], b: &[T], g: T, da: &mut [T], db: &mut [T]) -> Result<()> {
    for (operand, len) in [("b", b.len()), ("da", da.len()), ("db", db.len())] {
        check_len("dot_backward", operand, len, a.len(), "the length of a")?;
    }
    da.copy_from_slice(b);
    db.copy_from_slice(a);
    let finite = scale_by(da, g)? & scale_by(db, g)?;
    if finite && g.is_finite() {
        return Ok(());
    }
    let inputs = [Operand::scalar("g", g), Operand::slice("a", a), Operand::slice("b", b)];
    let outputs = [Operand::slice("da", da), Operand::slice("db", db)];
    diagnose("dot_backward", inputs, outputs, overflow_or_invalid)
}

/// The kernel of [`sum`].
#[derive(Debug)]
pub struct Sum<'a, T> {
    pub(crate) x: &'a [T],
}

impl<T: Float> Kernel for Sum<'_, T> {
    type Elem = T;
    type Output = TwoTerm<T>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> TwoTerm<T> {
        sum_terms(
            simd,
            [self.x],
            #[inline(always)]
            |[x]| (x, Lanes::zero(simd)),
        )
    }

    fn work(&self) -> usize {
        self.x.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Some(at) = cut(self.x.len()) else { return Err(self) };
        let (a, b) = self.x.split_at(at);
        Ok((Self { x: a }, Self { x: b }))
    }
}

/// The kernel of [`dot`].
#[derive(Debug)]
pub struct Dot<'a, T> {
    a: &'a [T],
    b: &'a [T],
}

impl<T: Float> Kernel for Dot<'_, T> {
    type Elem = T;
    type Output = TwoTerm<T>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> TwoTerm<T> {
        sum_terms(
            simd,
            [self.a, self.b],
            #[inline(always)]
            |[a, b]| a.two_mul(b),
        )
    }

    fn work(&self) -> usize {
        self.a.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Some(at) = cut(self.a.len()) else { return Err(self) };
        let ((a, a_rest), (b, b_rest)) = (self.a.split_at(at), self.b.split_at(at));
        Ok((Self { a, b }, Self { a: a_rest, b: b_rest }))
    }
}
