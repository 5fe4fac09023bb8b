//! [`Float`], the element types: `f32` and `f64`. Add a type here.

use core::fmt::{Debug, Display, LowerExp};

use crate::gemm::HasScratch;
use crate::kernel::Kernels;
use crate::math::Constants;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// An element type: `f32` or `f64`.
///
/// The trait is sealed: what a kernel promises of its bits it promises of these types alone.
///
/// ```
/// fn mean<T: nanproof::Float>(x: &[T]) -> nanproof::Result<T> {
///     Ok(nanproof::sum(x)? / T::from(x.len()).unwrap())
/// }
/// assert_eq!(mean(&[1.0_f32, 2.0, 6.0])?, 3.0);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub trait Float:
    num_traits::Float
    + Format
    + Constants
    + Kernels
    + HasScratch
    + Debug
    + Display
    + LowerExp
    + Default
    + Send
    + Sync
    + sealed::Sealed
    + 'static
{
}

impl Float for f32 {}
impl Float for f64 {}

/// How a type is laid out: its bits, and the 64-byte blocks that every instruction set works on.
pub trait Format: Copy + 'static {
    /// `[Self; LANES]`; an array whose length is a trait's constant is not to be had on stable Rust.
    type Block: Copy + Debug + AsRef<[Self]> + AsMut<[Self]> + Send + Sync;
    /// The digits of a sum of squares of any numbers, without rounding: an array of 64-bit limbs.
    type Limbs: Copy + Debug + Eq + AsRef<[u64]> + AsMut<[u64]> + Send + Sync;
    /// All digits zero.
    const NO_LIMBS: Self::Limbs;
    /// How many of the limbs stand for fractions.
    const LIMBS_BELOW: usize;
    /// Elements of a block.
    const LANES: usize;
    /// Bits of the fraction.
    const FRACTION_BITS: u32;
    /// The exponent field of 1.
    const BIAS: i32;
    /// The power of two by which a factor is scaled so that products and their sums fit `f64`.
    const WIDE_SCALE: i32;
    /// Whether a product of two is exact in `f64`.
    const PRODUCTS_FIT_F64: bool;
    /// Where the sums of matrix products are cut: `k` at multiples of this.
    const K_BLOCK: usize;
    /// Every bit but the sign.
    const ABS_MASK: Self;
    /// 0, 1, 2 ...: the number of each lane.
    const LANE_NUMBERS: Self::Block;

    /// The number with these bits; those that do not fit are dropped.
    fn from_bits(bits: u64) -> Self;
    /// The bits.
    fn to_bits(self) -> u64;
    /// A block with the same value in every lane.
    fn fill(value: Self) -> Self::Block;
    /// The whole blocks of a slice and what is left over.
    fn blocks(x: &[Self]) -> (&[Self::Block], &[Self]);
    /// The whole blocks of a slice and what is left over.
    fn blocks_mut(x: &mut [Self]) -> (&mut [Self::Block], &mut [Self]);
    /// The elements of a slice of blocks.
    fn flatten_mut(x: &mut [Self::Block]) -> &mut [Self];
}

impl Format for f32 {
    type Block = [Self; 16];
    // Squares are multiples of 2^-298 below 2^256; there are less than 2^64 of them, and digits to spare for rounding.
    type Limbs = [u64; 11];
    const NO_LIMBS: Self::Limbs = [0; 11];
    const LIMBS_BELOW: usize = 6;
    const LANES: usize = 16;
    const FRACTION_BITS: u32 = 23;
    const BIAS: i32 = 127;
    const PRODUCTS_FIT_F64: bool = true;
    const WIDE_SCALE: i32 = 0;
    const K_BLOCK: usize = 512;
    const ABS_MASK: Self = Self::from_bits(0x7fff_ffff);
    const LANE_NUMBERS: Self::Block = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

    #[expect(clippy::cast_possible_truncation, reason = "documented")]
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self.to_bits())
    }

    #[inline(always)]
    fn fill(value: Self) -> Self::Block {
        [value; 16]
    }

    #[inline(always)]
    fn blocks(x: &[Self]) -> (&[Self::Block], &[Self]) {
        x.as_chunks()
    }

    #[inline(always)]
    fn blocks_mut(x: &mut [Self]) -> (&mut [Self::Block], &mut [Self]) {
        x.as_chunks_mut()
    }

    #[inline(always)]
    fn flatten_mut(x: &mut [Self::Block]) -> &mut [Self] {
        x.as_flattened_mut()
    }
}

impl Format for f64 {
    type Block = [Self; 8];
    // Squares are multiples of 2^-2148 below 2^2048.
    type Limbs = [u64; 69];
    const NO_LIMBS: Self::Limbs = [0; 69];
    const LIMBS_BELOW: usize = 35;
    const LANES: usize = 8;
    const FRACTION_BITS: u32 = 52;
    const BIAS: i32 = 1023;
    const PRODUCTS_FIT_F64: bool = false;
    const WIDE_SCALE: i32 = -530;
    const K_BLOCK: usize = 256;
    const ABS_MASK: Self = Self::from_bits(0x7fff_ffff_ffff_ffff);
    const LANE_NUMBERS: Self::Block = [0., 1., 2., 3., 4., 5., 6., 7.];

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits)
    }
    #[inline(always)]
    fn to_bits(self) -> u64 {
        self.to_bits()
    }

    #[inline(always)]
    fn fill(value: Self) -> Self::Block {
        [value; 8]
    }

    #[inline(always)]
    fn blocks(x: &[Self]) -> (&[Self::Block], &[Self]) {
        x.as_chunks()
    }

    #[inline(always)]
    fn blocks_mut(x: &mut [Self]) -> (&mut [Self::Block], &mut [Self]) {
        x.as_chunks_mut()
    }

    #[inline(always)]
    fn flatten_mut(x: &mut [Self::Block]) -> &mut [Self] {
        x.as_flattened_mut()
    }
}
