//! The entropy of the softmax of each row, from the logits, and its gradient.

use alloc::vec::Vec;

use crate::error::{Result, check_len, check_shape};
use crate::finite::{Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::logits::{LogitRowFormula, Logits, Singly, apply_to_logits, distance, row_exp, row_normalize};
use crate::rows::RowsSeen;
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::view::{MatMut, MatRef};

/// The entropy of the softmax of each row: `h[i] = -sum(p ln p)` with `p = softmax(x[i, ..])`, in nats.
///
/// `h` has an element for each row of `x`. Computed as `ln(sum(exp(x - max))) + sum(p (max - x))`, of which no term is
/// negative: within 4 ULP of the true value for rows up to 4096 long. A logit of `-inf` has probability 0 and adds
/// nothing; a row of them has the entropy 0. NaN gives NaN.
///
/// Gradient: [`softmax_entropy_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `h` has another length; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// logit is NaN or `+inf`.
///
/// ```
/// use nanproof::{MatRef, softmax_entropy};
///
/// let mut h = [0.0_f64; 2];
/// softmax_entropy(MatRef::new(&[7.0, 7.0, 0.0, f64::NEG_INFINITY], 2, 2)?, &mut h)?;
/// assert_eq!(h, [2.0_f64.ln(), 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_entropy<T: Float>(x: MatRef<'_, T>, h: &mut [T]) -> Result<()> {
    const NAME: &str = "softmax_entropy";
    check_len(NAME, "h", h.len(), x.rows(), "the number of rows of x")?;
    let logits = Logits::plain(Some(x));
    if apply_to_logits(Singly(EntropyRow), logits, h, None)?.finite {
        return Ok(());
    }
    diagnose(NAME, logits.operands("x"), [Operand::slice("h", h)], overflow_or_invalid)
}

/// The gradient of [`softmax_entropy`]: `dx[i, j] = -dh[i] p[j] (ln p[j] + h[i])`, with `p = softmax(x[i, ..])`.
///
/// Computed as `dh p ((max - x) - sum(p (max - x)))`; the error is at most `5 u dh p ((max - x) + sum(p (max - x)))` with
/// `u = 2^-24` or `2^-53`. Entries of probability 0 get exactly 0, and the `dh` of a row of `-inf` is not read.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// logit is NaN or `+inf`, or a result is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, softmax_entropy_backward};
///
/// let mut dx = [1.0_f32; 3];
/// let x = MatRef::new(&[2.0, 2.0, f32::NEG_INFINITY], 1, 3)?;
/// softmax_entropy_backward(x, &[1.0], MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [0.0; 3]); // even odds are as uncertain as can be
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_entropy_backward<T: Float>(x: MatRef<'_, T>, dh: &[T], mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "softmax_entropy_backward";
    check_len(NAME, "dh", dh.len(), x.rows(), "the number of rows of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    let logits = Logits::plain(Some(x));
    if apply_to_logits(Singly(EntropyBackwardRow { dh }), logits, &mut [], Some(dx.reborrow()))?.finite {
        return Ok(());
    }
    let inputs = logits.operands("x").chain([logits.upstream("dh", dh)]);
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// `-sum(p ln p)`.
#[derive(Clone, Copy, Debug)]
pub struct EntropyRow;

impl<T: Float> LogitRowFormula<T> for EntropyRow {
    const WORK: usize = 8;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        _: usize,
        x: &[T],
        _: &mut [T],
        h: &mut T,
        exponentials: &mut Vec<T>,
    ) -> RowsSeen {
        exponentials.resize(x.len(), T::zero());
        let row = row_exp(simd, x, exponentials);
        *h = if row.is_empty() {
            T::zero()
        } else {
            row.log(simd) + distance(simd, exponentials, x, row.max) / row.total().value()
        };
        RowsSeen::finite(row.is_empty() || row.is_plain() && h.is_finite())
    }
}

/// `-dh p (ln p + h)`.
#[derive(Clone, Copy, Debug)]
pub struct EntropyBackwardRow<'a, T> {
    dh: &'a [T],
}

impl<T: Float> LogitRowFormula<T> for EntropyBackwardRow<'_, T> {
    const WORK: usize = 8;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, i: usize, x: &[T], dx: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp(simd, x, dx);
        if row.is_empty() {
            dx.fill(T::zero());
            return RowsSeen::finite(true);
        }
        let distance = Lanes::splat(simd, distance(simd, dx, x, row.max) / row.total().value());
        row_normalize(simd, x, row, T::one(), dx);
        let (dh, max) = (Lanes::splat(simd, self.dh[i]), Lanes::splat(simd, row.max));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [x],
            [dx],
            #[inline(always)]
            |[x], [p]| {
                let zero = Lanes::zero(simd);
                let result = p.eq(zero).select(zero, dh * (p * ((max - x) - distance)));
                watch.see(result);
                [result]
            },
        );
        RowsSeen::finite(row.is_plain() && self.dh[i].is_finite() && watch.all_finite())
    }
}
