//! The matrix products of two stacks of matrices.

use super::matmul::{Matmul, Name, Product, check_factors};
use crate::error::{Error, Result, Shape, check_shape};
use crate::finite::{Index, NonFinite};
use crate::float::Float;
use crate::gemm::Old;
#[cfg(feature = "rayon")]
use crate::isa::Isa;
use crate::kernel::Join;
use crate::view::{BatchMut, BatchRef};

const NAME: &str = "matmul_batched";

/// The matrix products of two stacks, `C[i] = A[i] B[i]`.
///
/// A is `b` matrices of `m x k`, B `b` of `k x n`, C `b` of `m x n`. Transposes are views ([`BatchRef::t`]); a matrix is
/// multiplied with many if it is [repeated](BatchRef::repeat). Each product has the bits and the error of
/// [`matmul`](crate::matmul). With feature `rayon` the stack is split over the threads of the caller's pool.
///
/// Gradient: `dA[i] = dC[i] B[i]^T` and `dB[i] = A[i]^T dC[i]`, which are batched products as well; for a repeated matrix
/// the sum of its own, by [`matmul_batched_with`] and `beta = 1`, or one product of the matrices one below the other.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit; [`Error::NonFinite`] if an element of C is not finite: the report gives
/// matrix, row and column.
///
/// ```
/// use nanproof::{BatchMut, BatchRef, matmul_batched};
///
/// let (a, b) = ([1.0_f32, 2.0, 3.0, 4.0], [10.0, 100.0]);
/// let mut c = [0.0; 4];
/// matmul_batched(BatchRef::new(&a, 2, 2, 1)?, BatchRef::new(&b, 2, 1, 1)?, BatchMut::new(&mut c, 2, 2, 1)?)?;
/// assert_eq!(c, [10.0, 20.0, 300.0, 400.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn matmul_batched<T: Float>(a: BatchRef<'_, T>, b: BatchRef<'_, T>, c: BatchMut<'_, T>) -> Result<()> {
    matmul_batched_with(Matmul::default(), a, b, c)
}

/// [`matmul_batched`] with [options](Matmul): `C[i] = alpha A[i] B[i] + beta C[i]`.
///
/// # Errors
/// As [`matmul_batched`]; [`Error::Argument`] if `alpha` or `beta` is not finite.
///
/// ```
/// use nanproof::{BatchMut, BatchRef, Matmul, matmul_batched_with};
///
/// let mut c = [1.0_f64, 2.0];
/// let options = Matmul { beta: 1.0, ..Matmul::default() };
/// let (a, b) = (BatchRef::new(&[3.0, 4.0], 2, 1, 1)?, BatchRef::new(&[5.0, 6.0], 2, 1, 1)?);
/// matmul_batched_with(options, a, b, BatchMut::new(&mut c, 2, 1, 1)?)?;
/// assert_eq!(c, [16.0, 26.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn matmul_batched_with<T: Float>(
    options: Matmul<T>,
    a: BatchRef<'_, T>,
    b: BatchRef<'_, T>,
    c: BatchMut<'_, T>,
) -> Result<()> {
    check_factors(NAME, options)?;
    let ((m, k), (_, n)) = (a.sides(), b.sides());
    check_shape(
        NAME,
        "b",
        b.shape(),
        Shape::Batch(a.len(), k, n),
        "a matrix for each of a, with a row for each column",
    )?;
    check_shape(NAME, "c", c.shape(), Shape::Batch(a.len(), m, n), "the shape of the products")?;
    if m == 0 || n == 0 {
        return Ok(()); // matrices without elements need no memory: there may be any number of them
    }
    #[cfg(feature = "rayon")]
    let pieces = if m.saturating_mul(n).saturating_mul(k).saturating_mul(a.len()) < GRAIN {
        1
    } else {
        rayon::current_num_threads()
    };
    #[cfg(not(feature = "rayon"))]
    let pieces = 1;
    let faults = products(options, a, b, c, pieces)?;
    faults.0.map_or(Ok(()), |mut report| {
        report.counts.len = report.counts.len.saturating_mul(a.len());
        Err(report.into())
    })
}

/// Multiplications below which a second thread does not pay.
#[cfg(feature = "rayon")]
const GRAIN: usize = 1 << 20;

/// The first report of a part of a batch, with the counts of those after it about the same operand.
struct Faults(Option<NonFinite>);

impl Join for Faults {
    fn join(self, second: Self) -> Self {
        match (self.0, second.0) {
            (Some(mut first), Some(second)) => {
                if first.operand == second.operand {
                    first.counts.nan += second.counts.nan;
                    first.counts.pos_inf += second.counts.pos_inf;
                    first.counts.neg_inf += second.counts.neg_inf;
                }
                Self(Some(first))
            }
            (first, second) => Self(first.or(second)),
        }
    }
}

/// Computes the products in so many pieces at once.
fn products<T: Float>(
    options: Matmul<T>,
    a: BatchRef<'_, T>,
    b: BatchRef<'_, T>,
    mut c: BatchMut<'_, T>,
    pieces: usize,
) -> Result<Faults> {
    #[cfg(feature = "rayon")]
    if pieces > 1 && c.len() > 1 {
        let (half, at) = (pieces / 2, c.len() / 2);
        let ((a1, a2), (b1, b2), (c1, c2)) = (a.split_at(at), b.split_at(at), c.split_at(at));
        let isa = Isa::active()?;
        let (first, second) = rayon::join(
            || isa.run(|| products(options, a1, b1, c1, half)),
            || {
                isa.run(|| {
                    let mut faults = products(options, a2, b2, c2, pieces - half)?;
                    if let Some(NonFinite { index: Index::Batch(matrix, ..), .. }) = &mut faults.0 {
                        *matrix += at;
                    }
                    Ok(faults)
                })
            },
        );
        return Ok(first?.join(second?));
    }
    let _ = pieces;
    let mut faults = Faults(None);
    for i in 0..c.len() {
        let (Some(a), Some(b), Some(c)) = (a.get(i), b.get(i), c.get_mut(i)) else { continue };
        let product = Product { alpha: options.alpha, old: Old::Scaled(options.beta), ..Product::new(a, b) };
        match product.run(NAME, [Name::plain("a"), Name::plain("b"), Name::plain("c")], c) {
            Ok(()) => {}
            Err(Error::NonFinite(mut report)) => {
                if let Index::Cell(row, col) = report.index {
                    report.index = Index::Batch(i, row, col);
                }
                faults = faults.join(Faults(Some(*report)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(faults)
}
