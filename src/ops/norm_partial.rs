//! [`NormPartial`], a norm in the making, for tensors in many hands.

use super::clip::{Clip, check_limit, rescale};
use super::mixed_tensors::{Tensor, TensorMut, squares};
use crate::error::{Error, Result, check_len};
use crate::exact::Exact;
use crate::finite::{Class, Counts, Index, NonFinite, Operand, Origin, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::Join;
use crate::squares::Squares;
use crate::storage::Storage;
use alloc::vec::Vec;

/// The sum of the squares of some tensors, to be merged with that of others, on other threads or machines, into their
/// common norm.
///
/// The sum is kept in fixed point, wide enough for any number of elements of any size, so partials may be merged in any
/// order and grouping: the bits are the same, and all who merge the same tensors agree. They are the bits of
/// [`l2_norm`](crate::l2_norm) for one tensor and of [`clip_by_global_norm`](crate::clip_by_global_norm) for many. A
/// tensor may be cut into shards: for cuts at multiples of [`SHARD`](Self::SHARD) elements the bits are those of the whole.
///
/// Elements that are not finite are counted, not added: every rank learns of them.
///
/// ```
/// use nanproof::NormPartial;
///
/// let shards = [vec![3.0_f32; 1 << 14], vec![4.0; 100], vec![1e30; 7]];
/// let partials = std::thread::scope(|scope| {
///     let ranks = shards.each_ref().map(|x| scope.spawn(move || NormPartial::of(x)));
///     ranks.map(|rank| rank.join().unwrap())
/// });
/// let [a, b, c] = partials;
/// let (a, b, c) = (a?, b?, c?);
/// assert_eq!(a.merge(b).merge(c), c.merge(a).merge(b));
/// assert_eq!(a.merge(b).merge(c).norm()?, nanproof::l2_norm(&shards.concat())?);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormPartial<T: Float> {
    squares: Squares<T>,
}

impl<T: Float> Default for NormPartial<T> {
    fn default() -> Self {
        Self { squares: Squares::new() }
    }
}

impl<T: Float> NormPartial<T> {
    /// Where a tensor may be cut without a change of bits: at multiples of so many elements.
    pub const SHARD: usize = crate::squares::LEAF;

    /// The partial norm of a tensor or shard.
    ///
    /// # Errors
    /// Those of [`Isa::active`](crate::Isa::active). Elements that are not finite are no error here.
    ///
    /// ```
    /// let partial = nanproof::NormPartial::of(&[3.0_f32, f32::NAN])?;
    /// assert_eq!(partial.counts().nan, 1);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn of(x: &[T]) -> Result<Self> {
        Ok(Self { squares: Squares::of(x)? })
    }

    /// The partial norm of a tensor or shard in any [storage type](Storage): that of its elements widened, bit for bit.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    ///
    /// ```
    /// # #[cfg(feature = "half")] {
    /// use nanproof::NormPartial;
    ///
    /// let x = [half::f16::from_f32(5000.0); 4]; // whose squares f16 does not hold
    /// assert_eq!(NormPartial::of_mixed(&x)?.norm()?, 10_000.0);
    /// # }
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn of_mixed<X: Storage<Compute = T>>(x: &[X]) -> Result<Self> {
        Ok(Self { squares: squares(x)? })
    }

    /// The partial norm of the tensors of both.
    ///
    /// ```
    /// use nanproof::NormPartial;
    ///
    /// let (a, b) = (NormPartial::of(&[3.0_f64])?, NormPartial::of(&[4.0])?);
    /// assert_eq!(NormPartial::default().merge(a).merge(b).norm()?, 5.0);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { squares: self.squares.join(other.squares) }
    }

    /// How many elements there are, and how many of them are not finite.
    ///
    /// ```
    /// assert_eq!(nanproof::NormPartial::of(&[1.0_f32; 7])?.counts().len, 7);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.squares.counts
    }

    /// The norm, within 2 ULP in `f32`, 1 in `f64`; of nothing 0.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if an element is not finite, or the norm overflows.
    ///
    /// ```
    /// use nanproof::NormPartial;
    ///
    /// assert_eq!(NormPartial::<f32>::default().norm()?, 0.0);
    /// let error = NormPartial::of(&[3.0, f32::NAN]).and_then(|partial| partial.norm()).unwrap_err();
    /// assert_eq!(error.to_string(), "NormPartial::norm: an element is NaN, passed in; 1 of 2 elements is not finite");
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn norm(&self) -> Result<T> {
        const NAME: &str = "NormPartial::norm";
        self.check(NAME)?;
        let norm = self.squares.norm().narrow();
        diagnose(NAME, [], [Operand::scalar("norm", norm)], overflow_or_invalid)?;
        Ok(norm)
    }

    /// Scales the tensors at hand down by `max_norm / norm` if the norm is larger: with the merged partial of all ranks,
    /// [`clip_by_global_norm`](crate::clip_by_global_norm) on each of them.
    ///
    /// # Errors
    /// [`Error::Argument`] if `max_norm` is negative or NaN; [`Error::NonFinite`] if an element on any rank is not
    /// finite: nothing is written then.
    ///
    /// ```
    /// use nanproof::NormPartial;
    ///
    /// let (mut mine, theirs) = ([3.0_f32], [4.0]);
    /// let clip = NormPartial::of(&mine)?.merge(NormPartial::of(&theirs)?).clip(&mut [&mut mine], 1.0)?;
    /// assert_eq!((clip.norm, mine), (5.0, [0.6]));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn clip(&self, tensors: &mut [&mut [T]], max_norm: T) -> Result<Clip<T>> {
        self.rescale("NormPartial::clip", tensors, max_norm)
    }

    /// [`clip`](Self::clip) of tensors in any [storage types](Storage): with the merged partial of all ranks,
    /// [`clip_by_global_norm_mixed`](crate::clip_by_global_norm_mixed) on each of them.
    ///
    /// # Errors
    /// As [`clip`](Self::clip).
    ///
    /// ```
    /// # #[cfg(feature = "half")] {
    /// use half::bf16;
    /// use nanproof::{NormPartial, TensorMut};
    ///
    /// let (mut mine, theirs) = ([bf16::from_f32(3.0)], [4.0_f32]);
    /// let partial = NormPartial::of_mixed(&mine)?.merge(NormPartial::of(&theirs)?);
    /// partial.clip_mixed(&mut [TensorMut::new(&mut mine)], 2.5)?;
    /// assert_eq!(mine, [bf16::from_f32(1.5)]);
    /// # }
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn clip_mixed(&self, tensors: &mut [TensorMut<'_, T>], max_norm: T) -> Result<Clip<T>> {
        self.rescale("NormPartial::clip_mixed", tensors, max_norm)
    }

    fn rescale<X: Tensor<T>>(&self, operation: &'static str, tensors: &mut [X], max_norm: T) -> Result<Clip<T>> {
        check_limit(operation, "max_norm", max_norm)?;
        self.check(operation)?;
        rescale(tensors, self.squares.norm(), T::one(), max_norm)
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        let counts = self.counts();
        let class = match counts {
            Counts { nan: 1.., .. } => Class::Nan,
            Counts { pos_inf: 1.., .. } => Class::PosInf,
            Counts { neg_inf: 1.., .. } => Class::NegInf,
            _ => return Ok(()),
        };
        let (operand, index, origin) = ("an element", Index::Scalar, Origin::PassedIn);
        Err(NonFinite { operation, operand, index, class, counts, origin, largest_term: None }.into())
    }

    /// The partial as bytes, the same on every machine, to be sent.
    ///
    /// ```
    /// use nanproof::NormPartial;
    ///
    /// let partial = NormPartial::of(&[3.0_f32, 4.0])?;
    /// assert_eq!(NormPartial::from_bytes(&partial.to_bytes())?, partial);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Counts { nan, pos_inf, neg_inf, len } = self.squares.counts;
        let counts = [nan, pos_inf, neg_inf, len].map(|count| count as u64);
        self.squares.total.limbs().iter().chain(&counts).flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The partial that [`to_bytes`](Self::to_bytes) gave the bytes of. Any bytes of the right number are some partial.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number is another; [`Error::Argument`] if a count is too large for this machine.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        const NAME: &str = "NormPartial::from_bytes";
        let mut total = Exact::zero();
        let count = total.limbs().len();
        check_len(NAME, "bytes", bytes.len(), 8 * (count + 4), "what to_bytes of the same type gives")?;
        let (words, _) = bytes.as_chunks();
        let (limbs, counts) = words.split_at(count);
        for (limb, word) in total.limbs_mut().iter_mut().zip(limbs) {
            *limb = u64::from_le_bytes(*word);
        }
        let mut fields = [0; 4];
        for (field, word) in fields.iter_mut().zip(counts) {
            let problem = "is too large for this machine";
            let error = |_| Error::Argument { operation: NAME, argument: "a count", problem };
            *field = usize::try_from(u64::from_le_bytes(*word)).map_err(error)?;
        }
        let [nan, pos_inf, neg_inf, len] = fields;
        Ok(Self { squares: Squares { total, counts: Counts { nan, pos_inf, neg_inf, len } } })
    }
}
