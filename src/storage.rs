//! [`Storage`], the types that tensors are stored in: those that are computed in, and with feature `half` the 16-bit
//! ones, which are widened to `f32` to compute.

use crate::finite::Class;
use crate::float::Float;
use crate::view::MatMut;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    #[cfg(feature = "half")]
    impl Sealed for half::bf16 {}
    #[cfg(feature = "half")]
    impl Sealed for half::f16 {}
}

/// A type that tensors are stored in: `f32` and `f64`; with feature `half` also `half::bf16` and `half::f16`.
///
/// The trait is sealed.
///
/// ```
/// use nanproof::Storage;
///
/// assert_eq!(Storage::widen(1.5_f32), 1.5);
/// assert_eq!(<f64 as Storage>::round(0.1), 0.1);
/// ```
pub trait Storage: Copy + Send + Sync + sealed::Sealed + 'static {
    /// The type that it is computed in.
    type Compute: Float;
    /// The same number, exactly.
    fn widen(self) -> Self::Compute;
    /// The nearest number, ties to even.
    fn round(x: Self::Compute) -> Self;

    /// The class of a number; `None` if it is finite.
    fn class(self) -> Option<Class> {
        Class::of(self.widen())
    }
}

impl<T: Float + sealed::Sealed> Storage for T {
    type Compute = T;

    #[inline(always)]
    fn widen(self) -> T {
        self
    }
    #[inline(always)]
    fn round(x: T) -> T {
        x
    }
}

#[cfg(feature = "half")]
impl Storage for half::bf16 {
    type Compute = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn round(x: f32) -> Self {
        Self::from_f32(x)
    }
}

#[cfg(feature = "half")]
impl Storage for half::f16 {
    type Compute = f32;

    /// The exponent field as it is, and the difference of the two biases by a product, which is exact, of subnormal
    /// numbers too: a loop over it becomes a loop over vectors.
    #[inline(always)]
    fn widen(self) -> f32 {
        const BIASES: f32 = f32::from_bits((127 + 127 - 15) << 23); // 2^112
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let finite = (f32::from_bits(magnitude) * BIASES).to_bits();
        let is_finite = bits & 0x7c00 != 0x7c00;
        f32::from_bits((bits & 0x8000) << 16 | if is_finite { finite } else { magnitude | 0x7f80_0000 })
    }
    #[inline(always)]
    fn round(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// Rounds the rows of a result to a matrix; whether all that is finite still is.
pub(crate) fn round<Y: Storage>(result: &[Y::Compute], mut y: MatMut<'_, Y>) -> bool {
    let mut is_finite = true;
    let mut store = |y: &mut Y, x: Y::Compute| {
        *y = Y::round(x);
        is_finite &= Class::of(x).is_some() || y.class().is_none();
    };
    for (i, row) in result.chunks_exact(y.cols().max(1)).enumerate() {
        if let Some(y) = y.row_mut(i) {
            y.iter_mut().zip(row).for_each(|(y, &x)| store(y, x));
        } else {
            row.iter().enumerate().for_each(|(j, &x)| y.get_mut(i, j).into_iter().for_each(|y| store(y, x)));
        }
    }
    is_finite
}

#[cfg(all(test, feature = "half"))]
mod tests {
    use super::Storage;
    use half::{bf16, f16};

    #[test]
    fn widening_is_exact_for_every_number() {
        for bits in 0..=u16::MAX {
            let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
            for (got, want) in [(Storage::widen(b), b.to_f32()), (Storage::widen(h), h.to_f32())] {
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got}, {want}");
            }
        }
    }
}
