//! Lists of tensors in any storage types: their norms and their clipping, in pieces that are widened.

use super::clip::{Clip, Clipping, clip};
use crate::error::Result;
use crate::float::Float;
use crate::gemm::lend_lists;
use crate::kernel::Join;
use crate::squares::{LEAF, Squares};
use crate::storage::Storage;
use crate::view::MatRef;
use alloc::boxed::Box;
use core::fmt;

/// A tensor in any [storage type](Storage) that is computed with in `T`, to be changed in place: what a list of tensors
/// of several types consists of.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::{bf16, f16};
/// use nanproof::{Clipping, TensorMut, clip_by_global_norm_mixed};
///
/// let mut weights = [3.0, 0.0].map(bf16::from_f32);
/// let (mut biases, mut scales) = ([4.0].map(f16::from_f32), [0.0_f32; 3]);
/// let mut tensors = [TensorMut::new(&mut weights), TensorMut::new(&mut biases), TensorMut::new(&mut scales)];
/// let clip = clip_by_global_norm_mixed(Clipping::default(), &mut tensors, 2.5, None)?;
/// drop(tensors);
/// assert_eq!((clip.norm, weights[0], biases[0]), (5.0, bf16::from_f32(1.5), f16::from_f32(2.0)));
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub struct TensorMut<'a, T>(Box<dyn Tensor<T> + Send + 'a>);

impl<'a, T: Float> TensorMut<'a, T> {
    /// The tensor of these elements.
    ///
    /// ```
    /// let mut dw = [1.0_f64; 5];
    /// let tensor = nanproof::TensorMut::new(&mut dw);
    /// ```
    pub fn new<X: Storage<Compute = T>>(elements: &'a mut [X]) -> Self {
        Self(Box::new(Stored(elements)))
    }
}

impl<T> fmt::Debug for TensorMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorMut").finish_non_exhaustive()
    }
}

/// [`clip_by_global_norm_with`](crate::clip_by_global_norm_with) of tensors in any [storage types](Storage): each element
/// is widened, exactly, scaled in the wider type, and rounded once to its own.
///
/// The bits are those of the same clipping of the widened tensors, rounded afterwards. No memory is needed that grows with
/// the tensors.
///
/// # Errors
/// As [`clip_by_global_norm_with`](crate::clip_by_global_norm_with); what is not finite may also be a quotient, by a loss
/// scale below 1, that is too large for the type of its tensor.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::f16;
/// use nanproof::{Clipping, TensorMut, clip_by_global_norm_mixed};
///
/// let (mut dw, mut db) = ([3072.0, f32::INFINITY].map(f16::from_f32), [4096.0_f32]); // 1024 times the gradients
/// let mut tensors = [TensorMut::new(&mut db), TensorMut::new(&mut dw)];
/// let options = Clipping { loss_scale: 1024.0, ..Clipping::default() };
/// let error = clip_by_global_norm_mixed(options, &mut tensors, 1.0, None).unwrap_err();
/// let report = "clip_by_global_norm_mixed: tensors[1][1] is +Inf, passed in; 1 of 3 elements is not finite";
/// assert_eq!(error.to_string(), report);
/// # }
/// ```
pub fn clip_by_global_norm_mixed<T: Float>(
    options: Clipping<T>,
    tensors: &mut [TensorMut<'_, T>],
    max_norm: T,
    norms: Option<&mut [T]>,
) -> Result<Clip<T>> {
    clip("clip_by_global_norm_mixed", options, tensors, max_norm, norms)
}

/// What replaces elements, given also how the tensor's storage rounds a number.
pub(super) type Change<'a, T> = &'a dyn Fn(&mut [T], fn(T) -> T) -> Result<()>;

/// A tensor to be clipped.
pub(super) trait Tensor<T> {
    /// The sum of the squares of its elements.
    fn squares(&self) -> Result<Squares<T>>
    where
        T: Float;
    /// The elements in the type that is computed in.
    fn elements(&self) -> Box<dyn Iterator<Item = T> + '_>;
    /// A number as it would be stored.
    fn stored(&self, x: T) -> T;
    /// Replaces the elements, a piece at a time.
    fn change(&mut self, change: Change<'_, T>) -> Result<()>;

    /// The sum of the squares of several.
    fn squares_of_all(tensors: &[Self]) -> Result<Squares<T>>
    where
        Self: Sized,
        T: Float,
    {
        tensors.iter().try_fold(Squares::new(), |sum, x| Ok(sum.join(x.squares()?)))
    }
}

impl<T: Float> Tensor<T> for &mut [T] {
    fn squares(&self) -> Result<Squares<T>> {
        Squares::of(self)
    }

    fn elements(&self) -> Box<dyn Iterator<Item = T> + '_> {
        Box::new(self.iter().copied())
    }

    fn stored(&self, x: T) -> T {
        x
    }

    fn change(&mut self, change: Change<'_, T>) -> Result<()> {
        change(self, |x| x)
    }

    fn squares_of_all(tensors: &[Self]) -> Result<Squares<T>> {
        Squares::of_all(tensors)
    }
}

impl<T: Float> Tensor<T> for TensorMut<'_, T> {
    fn squares(&self) -> Result<Squares<T>> {
        self.0.squares()
    }

    fn elements(&self) -> Box<dyn Iterator<Item = T> + '_> {
        self.0.elements()
    }

    fn stored(&self, x: T) -> T {
        self.0.stored(x)
    }

    fn change(&mut self, change: Change<'_, T>) -> Result<()> {
        self.0.change(change)
    }
}

/// Elements that are widened at a time: sums of squares may be cut there.
const PIECE: usize = 2 * LEAF;

struct Stored<'a, X>(&'a mut [X]);

impl<T: Float, X: Storage<Compute = T>> Tensor<T> for Stored<'_, X> {
    fn squares(&self) -> Result<Squares<T>> {
        squares(self.0)
    }

    fn elements(&self) -> Box<dyn Iterator<Item = T> + '_> {
        Box::new(self.0.iter().map(|x| x.widen()))
    }

    fn stored(&self, x: T) -> T {
        X::round(x).widen()
    }

    fn change(&mut self, change: Change<'_, T>) -> Result<()> {
        lend_lists(|[wide, ..]| {
            for piece in self.0.chunks_mut(PIECE) {
                MatRef::new(piece, 1, piece.len())?.map_into(wide, X::widen);
                change(wide, |x| X::round(x).widen())?;
                piece.iter_mut().zip(&*wide).for_each(|(x, &wide)| *x = X::round(wide));
            }
            Ok(())
        })
    }
}

/// The sum of the squares of elements in any storage type.
pub(super) fn squares<T: Float, X: Storage<Compute = T>>(x: &[X]) -> Result<Squares<T>> {
    lend_lists(|[wide, ..]| {
        x.chunks(PIECE).try_fold(Squares::new(), |sum, piece| {
            MatRef::new(piece, 1, piece.len())?.map_into(wide, X::widen);
            Ok(sum.join(Squares::of(wide)?))
        })
    })
}
