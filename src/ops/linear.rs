//! The linear layer: a product with a bias and an activation, and its gradients.

use super::activation::formulas::{rectify, rectify_backward};
use super::matmul::{Name, Product};
use crate::error::{Result, Shape, check_len, check_shape};
use crate::finite::{Index, Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::gemm::Old;
use crate::lanes::Lanes;
use crate::math;
use crate::rows::{RowFormula, RowsSeen, apply};
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::view::{MatMut, MatRef};

/// What [`linear`] applies to each element at the end.
///
/// ```
/// use nanproof::Activation;
///
/// assert_eq!(Activation::default(), Activation::Identity);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `z`.
    #[default]
    Identity,
    /// `max(z, 0)`, as [`relu`](crate::relu).
    Relu,
    /// `tanh(z)`, as [`tanh`](crate::tanh).
    Tanh,
}

/// A linear layer: `y = f(x W^T + bias)`, that is `y[i, j] = f(x[i, 0] w[j, 0] + x[i, 1] w[j, 1] + ... + bias[j])`.
///
/// `x` is a batch of rows, `m x k`; `w` holds a row for each output, `n x k`; `bias`, if there is one, `n` numbers; `y` is
/// `m x n`. The bits are those of [`matmul_with`](crate::matmul_with) and `beta = 1` onto rows that hold the bias, followed
/// by the activation: so are the errors. Nothing else is read or written: bias and activation are applied while the
/// results are in the cache.
///
/// Gradient: [`linear_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// element of `y` is not finite. A sum that overflows where the activation is finite, as `relu` is at `-Inf`, is no fault.
///
/// ```
/// use nanproof::{Activation, MatMut, MatRef, linear};
///
/// let (x, w) = ([1.0_f32, 2.0], [3.0, 4.0, -5.0, -6.0]);
/// let mut y = [0.0; 2];
/// let (x, w) = (MatRef::new(&x, 1, 2)?, MatRef::new(&w, 2, 2)?);
/// linear(Activation::Relu, x, w, Some(&[0.5, 0.5]), MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [11.5, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn linear<T: Float>(
    activation: Activation,
    x: MatRef<'_, T>,
    w: MatRef<'_, T>,
    bias: Option<&[T]>,
    y: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "linear";
    check_shape(NAME, "w", w.shape(), Shape::Matrix(w.rows(), x.cols()), "a column for each of x")?;
    let old = match bias {
        Some(bias) => {
            check_len(NAME, "bias", bias.len(), w.rows(), "the rows of w")?;
            Old::Row(bias)
        }
        None => Old::Scaled(T::zero()),
    };
    let names = [Name::plain("x"), Name::transposed("w"), Name::plain("y")];
    Product { old, activation, ..Product::new(x, w.t()) }.run(NAME, names, y)
}

/// Where [`linear_backward`] writes.
#[derive(Debug)]
pub struct LinearGradients<'a, T> {
    /// The gradient by the sums before the activation, `m x n`; the others are made from it.
    pub dz: MatMut<'a, T>,
    /// The gradient by the input, `m x k`. The first layer of a network needs none.
    pub dx: Option<MatMut<'a, T>>,
    /// The gradient by the weights, `n x k`.
    pub dw: MatMut<'a, T>,
    /// The gradient by the bias, `n` long, if there is one.
    pub db: Option<&'a mut [T]>,
}

/// The gradients of [`linear`]: `dz = dy f'(z)`, `dx = dz W`, `dW = dz^T x`, `db[j] = dz[0, j] + dz[1, j] + ...`.
///
/// `z` are the sums before the activation: what [`linear`] gives with [`Activation::Identity`]. For
/// [`Activation::Relu`] its result `y` does as well, since it is positive where `z` is; for [`Activation::Identity`] `z`
/// is not read. The products have the error of [`matmul`](crate::matmul), `db` that of a product with ones, `dz` that of
/// [`relu_backward`](crate::relu_backward) and [`tanh_backward`](crate::tanh_backward).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit, before anything is written;
/// [`Error::NonFinite`](crate::Error::NonFinite) if an element of a gradient is not finite, and then what could be
/// computed is written.
///
/// ```
/// use nanproof::{Activation, LinearGradients, MatMut, MatRef, linear_backward};
///
/// let (x, w, y, dy) = ([1.0_f32, 2.0], [3.0, 4.0, -5.0, -6.0], [11.5, 0.0], [10.0, 20.0]);
/// let (mut dz, mut dx, mut dw, mut db) = ([0.0; 2], [0.0; 2], [0.0; 4], [0.0; 2]);
/// linear_backward(
///     Activation::Relu,
///     MatRef::new(&x, 1, 2)?,
///     MatRef::new(&w, 2, 2)?,
///     MatRef::new(&y, 1, 2)?,
///     MatRef::new(&dy, 1, 2)?,
///     LinearGradients {
///         dz: MatMut::new(&mut dz, 1, 2)?,
///         dx: Some(MatMut::new(&mut dx, 1, 2)?),
///         dw: MatMut::new(&mut dw, 2, 2)?,
///         db: Some(&mut db),
///     },
/// )?;
/// assert_eq!((dz, dx, dw, db), ([10.0, 0.0], [30.0, 40.0], [10.0, 20.0, 0.0, 0.0], [10.0, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn linear_backward<T: Float>(
    activation: Activation,
    x: MatRef<'_, T>,
    w: MatRef<'_, T>,
    z: MatRef<'_, T>,
    dy: MatRef<'_, T>,
    gradients: LinearGradients<'_, T>,
) -> Result<()> {
    const NAME: &str = "linear_backward";
    let LinearGradients { mut dz, dx, dw, db } = gradients;
    let shape = Shape::Matrix(x.rows(), w.rows());
    check_shape(NAME, "w", w.shape(), Shape::Matrix(w.rows(), x.cols()), "a column for each of x")?;
    check_shape(NAME, "z", z.shape(), shape, "the shape of the result")?;
    check_shape(NAME, "dy", dy.shape(), shape, "the shape of the result")?;
    check_shape(NAME, "dz", dz.shape(), shape, "the shape of the result")?;
    check_shape(NAME, "dw", dw.shape(), w.shape(), "the shape of w")?;
    if let Some(dx) = &dx {
        check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    }
    if let Some(db) = &db {
        check_len(NAME, "db", db.len(), w.rows(), "the rows of w")?;
    }

    let mut result = through_activation(activation, z, dy, dz.reborrow());
    let dz = dz.as_ref();
    if let Some(dx) = dx {
        let names = [Name::plain("dz"), Name::plain("w"), Name::plain("dx")];
        result = result.and(Product::new(dz, w).run(NAME, names, dx));
    }
    let names = [Name::transposed("dz"), Name::plain("x"), Name::plain("dw")];
    result = result.and(Product::new(dz.t(), x).run(NAME, names, dw));
    if let Some(db) = db {
        let (len, one) = (db.len(), [T::one()]);
        let ones = MatRef::with_strides(&one, 1, dz.rows(), 0, 0)?;
        let names = [Name::plain("ones"), Name::plain("dz"), Name::plain("db")];
        result = result.and(Product::new(ones, dz).run(NAME, names, MatMut::new(db, 1, len)?));
    }
    result
}

/// `dz = dy f'(z)`.
fn through_activation<T: Float>(
    activation: Activation,
    z: MatRef<'_, T>,
    dy: MatRef<'_, T>,
    mut dz: MatMut<'_, T>,
) -> Result<()> {
    if apply(ActivationBackwardRow { activation }, [z, dy], dz.reborrow())?.finite {
        return Ok(());
    }
    let is_read = move |index| match index {
        Index::Cell(i, j) => activation != Activation::Relu || z.get(i, j).is_none_or(|z| z > T::zero()),
        _ => true,
    };
    let inputs = [
        Operand::matrix("z", z).overlook(move |_, z| activation == Activation::Identity || !z.is_nan()),
        Operand::matrix("dy", dy).overlook(move |index, _| !is_read(index)),
    ];
    diagnose("linear_backward", inputs, [Operand::matrix("dz", dz.as_ref())], overflow_or_invalid)
}

impl Activation {
    #[inline(always)]
    fn apply<T: Float, S: Simd<T>>(self, z: Lanes<T, S>) -> Lanes<T, S> {
        match self {
            Self::Identity => z,
            Self::Relu => rectify(z),
            Self::Tanh => math::tanh::tanh(z),
        }
    }

    #[inline(always)]
    fn backward<T: Float, S: Simd<T>>(self, z: Lanes<T, S>, dy: Lanes<T, S>) -> Lanes<T, S> {
        match self {
            Self::Identity => dy,
            Self::Relu => rectify_backward(z, dy),
            Self::Tanh => math::tanh_derivative_times(z, dy),
        }
    }

    /// Applies it to a row, in place; whether the result is finite.
    #[inline(always)]
    pub(crate) fn apply_row<T: Float, S: Simd<T>>(self, simd: S, row: &mut [T]) -> bool {
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [],
            [row],
            #[inline(always)]
            |[], [z]| {
                let y = self.apply(z);
                watch.see(y);
                [y]
            },
        );
        watch.all_finite()
    }

    /// Applies it to a matrix, in place; whether the result is finite.
    pub(crate) fn apply_matrix<T: Float>(self, y: MatMut<'_, T>) -> Result<bool> {
        if self == Self::Identity {
            let y = y.as_ref();
            return Ok((0..y.rows()).all(|i| y.row_iter(i).all(|y| y.is_finite())));
        }
        let z = y.as_ref().to_vec();
        let z = MatRef::new(&z, y.rows(), y.cols())?;
        Ok(apply(ActivationRow { activation: self }, [z], y)?.finite)
    }
}

/// An activation of a row.
#[derive(Clone, Copy, Debug)]
pub struct ActivationRow {
    activation: Activation,
}

impl<T: Float> RowFormula<T, 1> for ActivationRow {
    const WORK: usize = 2;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [z]: [&[T]; 1], y: &mut [T]) -> RowsSeen {
        y.copy_from_slice(z);
        RowsSeen::finite(self.activation.apply_row(simd, y))
    }
}

/// The gradient of an activation of a row.
#[derive(Clone, Copy, Debug)]
pub struct ActivationBackwardRow {
    activation: Activation,
}

impl<T: Float> RowFormula<T, 2> for ActivationBackwardRow {
    const WORK: usize = 2;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [z, dy]: [&[T]; 2], dz: &mut [T]) -> RowsSeen {
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [z, dy],
            [dz],
            #[inline(always)]
            |[z, dy], [_]| {
                let dz = self.activation.backward(z, dy);
                watch.see(dz);
                [dz]
            },
        );
        RowsSeen::finite(watch.all_finite())
    }
}
