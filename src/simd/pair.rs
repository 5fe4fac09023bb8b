//! Two blocks side by side: each operation does both, so that while one waits for its operands the other goes on.

use super::{Simd, Tiled};
use crate::float::Float;
use crate::kernel::Kernel;

/// The arithmetic of `S` on two blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<S>(pub(crate) S);

/// Operations that do to each block what `S` does.
macro_rules! both {
    ($($operation:ident($($operand:ident: $kind:ident),+) -> $result:ident;)+) => {
        $(#[inline(always)]
        fn $operation(self, $($operand: Self::$kind),+) -> Self::$result {
            [self.0.$operation($($operand[0]),+), self.0.$operation($($operand[1]),+)]
        })+
    };
}

impl<T: Float, S: Simd<T>> Simd<T> for Pair<S> {
    type Vector = [S::Vector; 2];
    type Mask = [S::Mask; 2];
    type Wide = Pair<S::Wide>;

    /// One block at a time: a kernel loads what it pairs.
    #[inline(always)]
    fn vectorize<K: Kernel<Elem = T>>(self, kernel: K) -> K::Output {
        self.0.vectorize(kernel)
    }

    #[inline(always)]
    fn share<R>(self, formula: impl FnOnce() -> R) -> R {
        self.0.share(formula)
    }

    #[inline(always)]
    fn with_tile<J: Tiled<T>>(self, job: J) -> J::Output {
        self.0.with_tile(job)
    }

    #[inline(always)]
    fn splat(self, x: T) -> Self::Vector {
        [self.0.splat(x); 2]
    }
    /// The block, twice.
    #[inline(always)]
    fn load(self, x: &T::Block) -> Self::Vector {
        [self.0.load(x); 2]
    }
    /// The first block.
    #[inline(always)]
    fn store(self, [x, _]: Self::Vector) -> T::Block {
        self.0.store(x)
    }
    #[inline(always)]
    fn wide(self) -> Self::Wide {
        Pair(self.0.wide())
    }
    #[inline(always)]
    fn widen(self, [a, b]: Self::Vector) -> [<Self::Wide as Simd<f64>>::Vector; 2] {
        let ([a_low, a_high], [b_low, b_high]) = (self.0.widen(a), self.0.widen(b));
        [[a_low, b_low], [a_high, b_high]]
    }

    both! {
        add(a: Vector, b: Vector) -> Vector;
        sub(a: Vector, b: Vector) -> Vector;
        mul(a: Vector, b: Vector) -> Vector;
        div(a: Vector, b: Vector) -> Vector;
        sqrt(a: Vector) -> Vector;
        mul_add(a: Vector, b: Vector, c: Vector) -> Vector;
        lt(a: Vector, b: Vector) -> Mask;
        le(a: Vector, b: Vector) -> Mask;
        eq(a: Vector, b: Vector) -> Mask;
        select(mask: Mask, a: Vector, b: Vector) -> Vector;
        mask_and(a: Mask, b: Mask) -> Mask;
        mask_or(a: Mask, b: Mask) -> Mask;
        mask_not(a: Mask) -> Mask;
        larger(a: Vector, b: Vector) -> Vector;
        and(a: Vector, b: Vector) -> Vector;
        or(a: Vector, b: Vector) -> Vector;
        xor(a: Vector, b: Vector) -> Vector;
        int_add(a: Vector, b: Vector) -> Vector;
        int_sub(a: Vector, b: Vector) -> Vector;
    }

    #[inline(always)]
    fn any(self, [a, b]: Self::Mask) -> bool {
        self.0.any(self.0.mask_or(a, b))
    }
    #[inline(always)]
    fn shl(self, [a, b]: Self::Vector, n: u32) -> Self::Vector {
        [self.0.shl(a, n), self.0.shl(b, n)]
    }
    #[inline(always)]
    fn shr(self, [a, b]: Self::Vector, n: u32) -> Self::Vector {
        [self.0.shr(a, n), self.0.shr(b, n)]
    }
    #[inline(always)]
    fn bit(self, [a, b]: Self::Vector) -> Self::Vector {
        [self.0.bit(a), self.0.bit(b)]
    }
    #[inline(always)]
    fn lookup(self, table: &[T; 8], [a, b]: Self::Vector) -> Self::Vector {
        [self.0.lookup(table, a), self.0.lookup(table, b)]
    }

    /// Of one square, twice.
    #[inline(always)]
    fn transpose(self, x: &[T], stride: usize, count: usize, mut each: impl FnMut(usize, Self::Vector)) {
        self.0.transpose(
            x,
            stride,
            count,
            #[inline(always)]
            |j, column| each(j, [column; 2]),
        );
    }
}
